//! Sealing everything anew with the active key, while the gateway runs.

use super::Error;
use crate::crypto::{KeySet, Keyring, key_id_of};
use crate::id::random_bytes;
use crate::store::{SEALED_COLUMNS, SealedColumn, SealedValue, Store};

/// Values read at a time.
const PAGE: i64 = 200;
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
