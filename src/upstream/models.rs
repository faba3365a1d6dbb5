//! What a provider says it has.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clean_json;

/// How long a provider that did not tell is not asked again.
const AFTER_FAILURE: Duration = Duration::from_secs(30);

/// The models of one provider: given, or asked for and kept for a while.
#[derive(Debug)]
pub(super) enum ModelList {
    Given(Vec<String>),
    Asked(Asked),
}

/// The last answer, and a lock so that one request asks at a time.
#[derive(Debug, Default)]
pub(super) struct Asked {
    last: Mutex<Option<Answer>>,
    pub(super) asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Answer {
    at: Instant,
    failed: bool,
    /// After a failure, what was known before it.
    list: Option<Arc<Vec<String>>>,
}

impl Asked {
    /// What is known for less than `keep`, or since a failure just now. `None` when it is time to ask.
    pub(super) fn fresh(&self, keep: Duration) -> Option<Option<Arc<Vec<String>>>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let keep = |answer: &Answer| if answer.failed { AFTER_FAILURE.min(keep) } else { keep };
        last.as_ref().filter(|answer| answer.at.elapsed() < keep(answer)).map(|answer| answer.list.clone())
    }

    /// What was told last, however long ago.
    pub(super) fn last(&self) -> Option<Arc<Vec<String>>> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .and_then(|answer| answer.list.clone())
    }

    /// Keeps what was told just now; `None` is a failure, which leaves what was known before.
    pub(super) fn keep(&self, told: Option<Vec<String>>) -> Option<Arc<Vec<String>>> {
        let failed = told.is_none();
        let list = told.map(Arc::new).or_else(|| self.last());
        let answer = Answer { at: Instant::now(), failed, list: list.clone() };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
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
    let models = match clean_json::from_slice(body).ok()? {
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
