//! Listening.

use tokio::net::TcpListener;

use super::{Error, Started};
use crate::config::{Environment, Settings};

/// Runs the gateway until the process is told to stop. `ready` is called once it listens.
///
/// # Errors
/// See [`Error`].
pub async fn serve(
    settings: Settings,
    _environment: &Environment,
    ready: impl FnOnce(&Started),
) -> Result<(), Error> {
    let listener =
        TcpListener::bind(settings.listen).await.map_err(|error| Error::listen(settings.listen, &error))?;
    let addr = listener.local_addr().map_err(|error| Error::listen(settings.listen, &error))?;
    let listening = Settings { listen: addr, ..settings };
    ready(&Started {
        addr,
        public_url: listening.public_url(),
        local: listening.is_local(),
        project_keys: listening.api_keys.len(),
        pass_through: listening.pass_through.enabled,
        providers: Vec::new(),
        demo: listening.is_local(),
    });
    let _ = tokio::signal::ctrl_c().await;
    Ok(())
}
