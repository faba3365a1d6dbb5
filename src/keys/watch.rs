//! Noticing that the keyring's file has changed.

use std::sync::Arc;
use std::time::Duration;

use super::{Error, Source};
use crate::crypto::Keyring;

/// How long a change of the file may go unnoticed.
pub(super) const EVERY: Duration = Duration::from_secs(2);

/// Keeps `keyring` as `source` has it, for as long as it is polled. A file that cannot be used for the moment changes
/// nothing.
pub async fn watch(source: Source, keyring: Keyring) {
    if !matches!(source, Source::File(_)) {
        return std::future::pending().await;
    }
    let source = Arc::new(source);
    let mut is_bad = false;
    loop {
        tokio::time::sleep(EVERY).await;
        let reading = Arc::clone(&source);
        let read = tokio::task::spawn_blocking(move || reading.read());
        match read.await.unwrap_or(Err(Error::Nowhere)) {
            Ok(set) => {
                is_bad = false;
                if set.to_text() != keyring.keys().to_text() {
                    let (keys, active) = (set.ids().count(), set.active_id().to_owned());
                    keyring.replace(set);
                    tracing::info!(keyring.keys = keys, keyring.active = active, "the keyring has changed");
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
