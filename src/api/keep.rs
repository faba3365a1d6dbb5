//! Whether and how the run of a request is kept.

use std::sync::Arc;

use http::HeaderMap;
use serde_json::{Map, Value};

use super::chat::Asked;
use super::{ApiError, App};
use crate::completion::{Idempotency, Keep, Kind, RepeatKey, Who};
use crate::crypto::sha256;
use crate::identity::{Caller, CallerKind};
use crate::openai::{ChatRequest, InvalidField};
use crate::upstream::Target;

/// OpenAI's bounds of `metadata`.
const MOST_PAIRS: usize = 16;
const LONGEST_KEY: usize = 64;
const LONGEST_VALUE: usize = 512;
/// Longest `Idempotency-Key`, in characters.
const LONGEST_IDEMPOTENCY_KEY: usize = 255;

/// How the run of a chat completion is kept; `None`: not at all.
///
/// # Errors
/// 400 for fields of a wrong shape, 503 when the store fails.
pub(super) async fn of_completion(
    app: &App,
    caller: &Caller,
    asked: &Asked<'_>,
) -> Result<Option<Keep>, ApiError> {
    let stored = is_stored(&asked.request)?;
    let Some(word) = asked.options.kept_by_option() else {
        return if stored {
            Ok(Some(keep(app, caller, asked, Kind::Completion, true).await?))
        } else {
            Ok(None)
        };
    };
    match (word, stored) {
        ("cache_seconds", _) | (_, true) => {
            Ok(Some(keep(app, caller, asked, Kind::Completion, stored).await?))
        }
        (word, false) => {
            let message = format!(
                "`toolgate.{word}` is for runs that are kept: send `\"store\": true` too, or use /v1/tasks"
            );
            Err(InvalidField::new(format!("toolgate.{word}"), message).into())
        }
    }
}

/// How the run of a task is kept.
///
/// # Errors
/// 400 for fields of a wrong shape, 503 when the store fails.
pub(super) async fn of_task(app: &App, caller: &Caller, asked: &Asked<'_>) -> Result<Keep, ApiError> {
    let stored = is_stored(&asked.request)?;
    let idempotency = idempotency(caller, &asked.headers, &asked.request)?;
    Ok(Keep { idempotency, ..keep(app, caller, asked, Kind::Task, stored).await? })
}

async fn keep(
    app: &App,
    caller: &Caller,
    asked: &Asked<'_>,
    kind: Kind,
    stored: bool,
) -> Result<Keep, ApiError> {
    let metadata = asked.request.get::<Map<String, Value>>("metadata", "an object")?.unwrap_or_default();
    check_metadata(&metadata)?;
    Ok(Keep {
        kind,
        stored,
        metadata,
        person: person(app, caller, asked).await?,
        visibility: asked.options.visibility,
        idempotency: None,
        webhook_url: asked.options.webhook_url.as_ref().map(ToString::to_string),
    })
}

/// Whether the caller wants the result kept for good.
///
/// # Errors
/// 400 when `store` is something else than true, false or null.
pub(super) fn is_stored(request: &ChatRequest) -> Result<bool, InvalidField> {
    Ok(request.get::<bool>("store", "true or false")?.unwrap_or(false))
}

/// OpenAI's rules for `metadata`.
///
/// # Errors
/// 400.
pub(super) fn check_metadata(metadata: &Map<String, Value>) -> Result<(), InvalidField> {
    let wrong = |message: String| Err(InvalidField::new("metadata", message));
    if metadata.len() > MOST_PAIRS {
        return wrong(format!("`metadata` may have at most {MOST_PAIRS} pairs"));
    }
    for (key, value) in metadata {
        let Some(value) = value.as_str() else {
            return wrong(format!("`metadata.{key}` must be a text"));
        };
        if key.chars().count() > LONGEST_KEY || value.chars().count() > LONGEST_VALUE {
            return wrong(format!(
                "`metadata` may have keys of {LONGEST_KEY} and values of {LONGEST_VALUE} characters"
            ));
        }
    }
    Ok(())
}

/// The person in whose list the run is: who is signed in, or whom an application names that the operator trusts and
/// whose users sign in here.
async fn person(app: &App, caller: &Caller, asked: &Asked<'_>) -> Result<Option<Arc<str>>, ApiError> {
    match &caller.kind {
        CallerKind::Person { account } => Ok(Some(Arc::clone(account))),
        CallerKind::Project { .. } => {
            let user = Who::of(caller).user(&asked.request, &asked.headers)?;
            let Some(user) = user else { return Ok(None) };
            Ok(app.connections.has_people(&caller.namespace).await?.then_some(user))
        }
        CallerKind::Local | CallerKind::PassThrough => Ok(None),
    }
}

/// The digests of the caller's `Idempotency-Key` and of what it asks with it.
fn idempotency(
    caller: &Caller,
    headers: &HeaderMap,
    request: &ChatRequest,
) -> Result<Option<Idempotency>, InvalidField> {
    let key = idempotency_key(caller, headers)?;
    Ok(key.map(|key| Idempotency { key, body: asked_digest(headers, request) }))
}

fn idempotency_key(caller: &Caller, headers: &HeaderMap) -> Result<Option<[u8; 32]>, InvalidField> {
    let wrong = |why: &str| InvalidField::new("Idempotency-Key", format!("`Idempotency-Key` {why}"));
    let mut given = headers.get_all("idempotency-key").iter();
    let Some(key) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(wrong("is there twice; send it once"));
    }
    let key = key.to_str().map_err(|_| wrong("must be plain ASCII"))?.trim();
    if key.is_empty() || key.len() > LONGEST_IDEMPOTENCY_KEY {
        return Err(wrong("must have 1 to 255 characters"));
    }
    // People share a namespace, and no keys.
    let own = caller.own_user().map_or("", |user| user);
    Ok(Some(sha256(format!("{}\n{own}{key}", own.len()).as_bytes())))
}

/// The digest of all that a request asks: the body, and the headers that say for whom and how.
fn asked_digest(headers: &HeaderMap, request: &ChatRequest) -> [u8; 32] {
    let mut asked = Vec::with_capacity(request.body().len() + 64);
    for (name, value) in headers {
        if name.as_str().starts_with("x-toolgate-") || name == "x-mcp-authorization" {
            asked.extend_from_slice(format!("{name} {}\n", value.len()).as_bytes());
            asked.extend_from_slice(value.as_bytes());
        }
    }
    asked.push(0);
    asked.extend_from_slice(request.body());
    sha256(&asked)
}

/// What another try of a request for a run is known by: its `Idempotency-Key`, or, for clients that count their tries as the
/// OpenAI SDKs do, who asks and what.
pub(super) fn repeat_key(
    caller: &Caller,
    headers: &HeaderMap,
    request: &ChatRequest,
    target: &Target,
    path: &str,
) -> Result<Option<RepeatKey>, InvalidField> {
    let tries = headers.get("x-stainless-retry-count").and_then(|count| count.to_str().ok());
    let tries = tries.and_then(|count| count.trim().parse::<u32>().ok());
    let key = idempotency_key(caller, headers)?;
    if tries.is_none() && key.is_none() {
        return Ok(None);
    }
    let body = asked_digest(headers, request);
    let own = caller.own_user().map_or("", |user| user);
    let by = if key.is_some() { "key" } else { "body" };
    // Another provider's is another request.
    let place =
        format!("{by}\n{}\n{}\n{own}\n{}\n{path}\n", caller.namespace, own.len(), target.provider.name);
    let key_digest = sha256(&[place.as_bytes(), &key.unwrap_or(body)[..]].concat());
    Ok(Some(RepeatKey {
        key: key_digest,
        body,
        may_join: key.is_some() || tries.is_some_and(|tries| tries > 0),
    }))
}
