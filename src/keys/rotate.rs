//! Sealing everything anew with the active key, while the gateway runs.

use super::Error;
use crate::crypto::{KeySet, Keyring, key_id_of};
use crate::id::random_bytes;
use crate::store::{SEALED_COLUMNS, SealedColumn, SealedValue, Store};

/// Values read at a time. Some have megabytes.
const PAGE: i64 = 20;
/// How often everything is looked through again for what others wrote meanwhile.
const MOST_ROUNDS: usize = 10;

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rotated {
    /// Values that were looked at, in all rounds.
    pub seen: u64,
    /// Values that are sealed anew.
    pub resealed: u64,
    /// Values that changed while they were being sealed anew; a further round looked at them again.
    pub changed_meanwhile: u64,
}

/// Where a key is in use, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    pub key_id: String,
    pub table: &'static str,
    pub column: &'static str,
    pub number: i64,
}

/// Seals everything with the active key that is sealed with another one. A value is exchanged only if it is still the
/// one that was read, so nothing that others write is lost. `progress` is told after every page.
///
/// # Errors
/// [`Error::Foreign`] names the first value that does not open; what was done until then stays.
pub async fn rotate(
    store: &Store,
    keyring: &Keyring,
    mut progress: impl FnMut(&SealedColumn, &Rotated),
) -> Result<Rotated, Error> {
    let mut total = Rotated::default();
    for _ in 0..MOST_ROUNDS {
        let before = (total.resealed, total.changed_meanwhile);
        for column in SEALED_COLUMNS {
            let mut after = None;
            loop {
                let page = store.list_sealed(column, after.as_ref(), PAGE).await?;
                for value in &page {
                    reseal(store, keyring, column, value, &mut total).await?;
                }
                progress(column, &total);
                let is_last = page.len() < PAGE as usize;
                after = page.into_iter().next_back();
                if is_last {
                    break;
                }
            }
        }
        if (total.resealed, total.changed_meanwhile) == before {
            break;
        }
    }
    Ok(total)
}

async fn reseal(
    store: &Store,
    keyring: &Keyring,
    column: &SealedColumn,
    value: &SealedValue,
    total: &mut Rotated,
) -> Result<(), Error> {
    total.seen += 1;
    if key_id_of(&value.sealed) == Some(keyring.keys().active_id()) {
        return Ok(());
    }
    let place = column.place(&value.row, &value.project, &value.user);
    let opened = keyring.open(&place, &value.sealed).map_err(|error| {
        Error::Foreign(format!("`{}` in row `{}` of `{}`: {error}", column.column, value.row, column.table))
    })?;
    let sealed = keyring.seal(random_bytes(), &place, &opened);
    if store.replace_sealed(column, value, &sealed).await? {
        total.resealed += 1;
    } else {
        total.changed_meanwhile += 1;
    }
    Ok(())
}

/// How often each key is in use, and where; keys that are not in use do not appear.
///
/// # Errors
/// [`Error::Store`].
pub async fn count_uses(store: &Store, keys: &KeySet) -> Result<Vec<Use>, Error> {
    let mut uses = Vec::new();
    for key_id in keys.ids() {
        for column in SEALED_COLUMNS {
            let number = store.count_sealed_with(column, key_id).await?;
            if number > 0 {
                uses.push(Use {
                    key_id: key_id.to_owned(),
                    table: column.table,
                    column: column.column,
                    number,
                });
            }
        }
    }
    Ok(uses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Location, META_VALUE};

    fn keyring(active: &str) -> Keyring {
        let mut set = KeySet::of_one("key_old", &[1; 32]).unwrap();
        set.add("key_new", &[2; 32]).unwrap();
        set.activate(active).unwrap();
        Keyring::new(set)
    }

    async fn store(values: usize) -> Store {
        let store = Store::open(&Location::Memory).await.unwrap();
        store.migrate().await.unwrap();
        for number in 0..values {
            let name = format!("m{number:04}");
            let place = META_VALUE.place(&name, "", "");
            let sealed = keyring("key_old").seal(random_bytes(), &place, name.as_bytes());
            store.keep_meta(&name, &sealed).await.unwrap();
        }
        store
    }

    #[tokio::test]
    async fn everything_is_sealed_anew_over_many_pages_and_opens_as_before() {
        let store = store(450).await;
        let keys = keyring("key_new");
        let mut pages = 0;
        let done = rotate(&store, &keys, |_, _| pages += 1).await.unwrap();
        assert_eq!((done.resealed, done.changed_meanwhile), (450, 0));
        assert!(pages >= 3);
        let uses = count_uses(&store, &keys.keys()).await.unwrap();
        let all = Use { key_id: "key_new".into(), table: "meta", column: "sealed_value", number: 450 };
        assert_eq!(uses, [all]);
        let sealed = store.find_meta("m0007").await.unwrap().unwrap();
        assert_eq!(keys.open(&META_VALUE.place("m0007", "", ""), &sealed).unwrap().as_slice(), b"m0007");
        assert_eq!(rotate(&store, &keys, |_, _| {}).await.unwrap().resealed, 0, "nothing is left to do");
    }

    #[tokio::test]
    async fn a_value_that_does_not_open_is_named_and_stays_as_it_was() {
        let store = store(1).await;
        let elsewhere = META_VALUE.place("elsewhere", "", "");
        let moved = keyring("key_old").seal(random_bytes(), &elsewhere, b"secret");
        store.keep_meta("m0001", &moved).await.unwrap();
        let error = rotate(&store, &keyring("key_new"), |_, _| {}).await.unwrap_err();
        assert!(error.to_string().contains("`sealed_value` in row `m0001` of `meta`"), "{error}");
        assert_eq!(store.find_meta("m0001").await.unwrap(), Some(moved));
    }
}
