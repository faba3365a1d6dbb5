//! What a provider says it has.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The models of one provider: given, or asked for and kept for a while.
#[derive(Debug)]
pub(super) enum ModelList {
    Given(Vec<String>),
    Asked(Asked),
}

/// The last answer, and a lock so that one request asks at a time.
#[derive(Debug, Default)]
pub(super) struct Asked {
    known: Mutex<Option<(Instant, Arc<Vec<String>>)>>,
    pub(super) asking: tokio::sync::Mutex<()>,
}

impl Asked {
    pub(super) fn fresh(&self, keep: Duration) -> Option<Arc<Vec<String>>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|(at, _)| at.elapsed() < keep).map(|(_, list)| Arc::clone(list))
    }

    pub(super) fn last(&self) -> Option<Arc<Vec<String>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(_, list)| Arc::clone(list))
    }

    pub(super) fn keep(&self, list: Vec<String>) -> Arc<Vec<String>> {
        let list = Arc::new(list);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), Arc::clone(&list)));
        list
    }
}

/// The ids in the body of `GET /models`; both OpenAI's `{data:[…]}` and a bare array (Together) occur.
pub(super) fn parse(body: &[u8]) -> Option<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Model {
        id: String,
    }
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Answer {
        Wrapped { data: Vec<Model> },
        Bare(Vec<Model>),
    }
    let models = match serde_json::from_slice(body).ok()? {
        Answer::Wrapped { data } => data,
        Answer::Bare(models) => models,
    };
    // Google prefixes the ids it lists, and takes them without the prefix.
    Some(
        models
            .into_iter()
            .map(|model| model.id.strip_prefix("models/").map_or(model.id.clone(), str::to_owned))
            .collect(),
    )
}
