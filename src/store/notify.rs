//! Telling other tasks, and other instances, that something has changed.
//!
//! A hint only: what is told can be lost, so whoever listens also looks now and then.

use sqlx::postgres::PgListener;
use tokio::sync::broadcast;

use super::engine::Engine;
use super::{Error, Store, values};

const CHANNEL: &str = "toolgate";

/// Hears topics of this process and, with PostgreSQL, of all instances.
pub struct Listener {
    own: broadcast::Receiver<String>,
    others: Option<PgListener>,
}

impl Store {
    /// Tells everyone about `topic`: an id, never a secret. It may be lost.
    pub async fn notify(&self, topic: &str) {
        // Nobody may be listening.
        let _ = self.topics.send(topic.to_owned());
        if self.is_shared() {
            let told = self.execute("SELECT pg_notify($1, $2)", values![CHANNEL, topic]).await;
            if let Err(error) = told {
                tracing::debug!(%error, "other instances could not be told of a change; they will look themselves");
            }
        }
    }

    /// Starts to listen.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn listen(&self) -> Result<Listener, Error> {
        let own = self.topics.subscribe();
        let others = match &self.engine {
            Engine::Sqlite { .. } => None,
            Engine::Postgres(pool) => {
                let listening = async {
                    let mut listener = PgListener::connect_with(pool).await?;
                    listener.ignore_pool_close_event(false);
                    listener.listen(CHANNEL).await?;
                    Ok(listener)
                };
                Some(listening.await.map_err(|error| self.health.failed(error))?)
            }
        };
        Ok(Listener { own, others })
    }
}

impl Listener {
    /// The next topic; `None` when some may have been missed, so that everything must be looked at.
    pub async fn next(&mut self) -> Option<String> {
        let own = self.own.recv();
        let Some(others) = &mut self.others else { return own.await.ok() };
        tokio::select! {
            topic = own => topic.ok(),
            topic = others.try_recv() => match topic {
                Ok(Some(topic)) => Some(topic.payload().to_owned()),
                Ok(None) => None,
                Err(_) => {
                    // Without a connection an attempt fails at once; it must not become a busy loop.
                    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                    None
                }
            },
        }
    }
}
