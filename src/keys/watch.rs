//! Noticing that the keyring's file has changed.

use std::sync::Arc;
use std::time::Duration;

use super::{Error, Source};
use crate::crypto::Keyring;

/// How long a change of the file may go unnoticed.
const EVERY: Duration = Duration::from_secs(2);

/// Keeps `keyring` as `source` has it, for as long as it is polled. A file that cannot be used for the moment changes
/// nothing.
pub async fn watch(source: Source, keyring: Keyring) {
    look_every(EVERY, source, keyring).await;
}

async fn look_every(period: Duration, source: Source, keyring: Keyring) {
    if !matches!(source, Source::File(_)) {
        return std::future::pending().await;
    }
    let source = Arc::new(source);
    let mut is_bad = false;
    loop {
        tokio::time::sleep(period).await;
        let reading = Arc::clone(&source);
        let read = tokio::task::spawn_blocking(move || reading.read());
        match read.await.unwrap_or(Err(Error::Nowhere)) {
            Ok(set) => {
                let (keys, active) = (set.ids().count(), set.active_id().to_owned());
                if set.to_text() == keyring.keys().to_text() {
                    is_bad = false;
                } else if keyring.replace(set) {
                    is_bad = false;
                    tracing::info!(keyring.keys = keys, keyring.active = active, "the keyring has changed");
                } else if !is_bad {
                    is_bad = true;
                    tracing::warn!(
                        "the keyring's file has only foreign keys now; the keys read before stay in use"
                    );
                }
            }
            Err(error) if !is_bad => {
                is_bad = true;
                tracing::warn!(%error, "the keyring's file cannot be used; the keys read before stay in use");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::KeySet;
    use crate::id::random_id;

    #[tokio::test]
    async fn a_changed_file_is_noticed_and_a_damaged_one_changes_nothing() {
        let folder = std::env::temp_dir().join(random_id("toolgate-watch-"));
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("keyring.toml");
        let source = Source::File(file.clone());
        let keyring = Keyring::new(source.read_or_create().unwrap());
        let watching = tokio::spawn(look_every(Duration::from_millis(10), source.clone(), keyring.clone()));
        source
            .change(|set| {
                set.add("key_new", &[1; 32])?;
                Ok(set.activate("key_new")?)
            })
            .unwrap();
        let noticed = async {
            while keyring.active_id() != "key_new" {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), noticed).await.expect("the change is noticed");
        for bad in ["damaged", &KeySet::of_one("key_foreign", &[9; 32]).unwrap().to_text()] {
            std::fs::write(&file, bad).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(keyring.keys().ids().count(), 2);
        }
        watching.abort();
        std::fs::remove_dir_all(folder).unwrap();
    }
}
