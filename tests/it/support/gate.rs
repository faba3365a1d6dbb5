//! A door that tests open once.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Closed until opened, then open for good. Clones are the same door.
#[derive(Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn new() -> Gate {
        Gate(Arc::new(Semaphore::new(0)))
    }

    pub fn open(&self) {
        self.0.close();
    }

    pub async fn wait(&self) {
        assert!(self.0.acquire().await.is_err(), "a gate gives no permits");
    }
}
