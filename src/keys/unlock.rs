//! Does the keyring belong to the database? And the pepper that the gateway keeps there.

use zeroize::Zeroizing;

use super::Error;
use crate::crypto::{Keyring, OpenError};
use crate::id::random_bytes;
use crate::store::{META_VALUE, Store};

const CANARY: &str = "canary";
const CANARY_TEXT: &[u8] = b"this keyring belongs to this database";
const PEPPER: &str = "pepper";

/// What makes namespaces of keys that cannot be traced back to them; the same on all instances, and after a restart.
pub type Pepper = Zeroizing<[u8; 32]>;

/// Refuses a keyring that does not belong to the database, before anything is written there. What cannot be read yet,
/// because no migration has run or nobody answers, is left to the steps that follow.
///
/// # Errors
/// [`Error::Foreign`].
pub async fn check_before_migrating(store: &Store, keyring: &Keyring) -> Result<(), Error> {
    match store.find_meta(CANARY).await {
        Ok(Some(sealed)) => check(keyring, &sealed),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Whether the database was sealed with some keyring already.
pub async fn is_sealed(store: &Store) -> bool {
    matches!(store.find_meta(CANARY).await, Ok(Some(_)))
}

/// Checks the keyring against the canary, which is laid where there is none, and gives the pepper. When several
/// instances begin with an empty database, the first one's canary and pepper count for all.
///
/// # Errors
/// [`Error::Foreign`], [`Error::Store`].
pub async fn unlock(store: &Store, keyring: &Keyring) -> Result<Pepper, Error> {
    let seal = |name: &str, plaintext: &[u8]| {
        keyring.seal(random_bytes(), &META_VALUE.place(name, "", ""), plaintext)
    };
    let canary = match store.find_meta(CANARY).await? {
        Some(canary) => canary,
        None => store.keep_meta(CANARY, &seal(CANARY, CANARY_TEXT)).await?,
    };
    check(keyring, &canary)?;
    let pepper = match store.find_meta(PEPPER).await? {
        Some(pepper) => pepper,
        None => {
            let fresh = Zeroizing::new(random_bytes::<32>());
            store.keep_meta(PEPPER, &seal(PEPPER, fresh.as_slice())).await?
        }
    };
    let opened = keyring.open(&META_VALUE.place(PEPPER, "", ""), &pepper).map_err(foreign)?;
    let mut pepper = Zeroizing::new([0; 32]);
    if opened.len() != pepper.len() {
        return Err(Error::Foreign("what it keeps there has another form".to_owned()));
    }
    pepper.copy_from_slice(&opened);
    Ok(pepper)
}

fn check(keyring: &Keyring, canary: &[u8]) -> Result<(), Error> {
    let opened = keyring.open(&META_VALUE.place(CANARY, "", ""), canary).map_err(foreign)?;
    if opened.as_slice() == CANARY_TEXT {
        return Ok(());
    }
    Err(Error::Foreign("its canary says something else".to_owned()))
}

fn foreign(error: OpenError) -> Error {
    Error::Foreign(match error {
        OpenError::UnknownKey(id) => format!("what is stored is sealed with `{id}`, which the keyring lacks"),
        OpenError::Refused => "it has other keys under the same names".to_owned(),
        OpenError::Malformed => "what is stored was not sealed by this program".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::KeySet;
    use crate::store::Location;

    fn keyring(id: &str, byte: u8) -> Keyring {
        Keyring::new(KeySet::of_one(id, &[byte; 32]).unwrap())
    }

    #[tokio::test]
    async fn the_pepper_stays_and_a_foreign_keyring_is_refused() {
        let store = Store::open(&Location::Memory).await.unwrap();
        check_before_migrating(&store, &keyring("key_a", 1)).await.unwrap();
        store.migrate().await.unwrap();
        let pepper = unlock(&store, &keyring("key_a", 1)).await.unwrap();
        assert_eq!(unlock(&store, &keyring("key_a", 1)).await.unwrap(), pepper);
        assert_ne!(*pepper, [0; 32]);
        for foreign in [keyring("key_a", 2), keyring("key_b", 1)] {
            for result in
                [unlock(&store, &foreign).await.map(|_| ()), check_before_migrating(&store, &foreign).await]
            {
                assert!(matches!(result, Err(Error::Foreign(_))), "{result:?}");
            }
        }
    }

    #[tokio::test]
    async fn of_two_keyrings_that_meet_an_empty_database_one_is_refused() {
        let store = Store::open(&Location::Memory).await.unwrap();
        store.migrate().await.unwrap();
        let (one, other) = (keyring("key_a", 1), keyring("key_b", 2));
        let (one, other) = tokio::join!(unlock(&store, &one), unlock(&store, &other));
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    }
}
