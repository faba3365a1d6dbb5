//! `GET /v1/runs`, and what lists of runs have in common: what may be asked for, and one page of it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use serde_json::{Value, json};

use super::runs::{json_response, summary};
use super::{ApiError, App};
use crate::completion::{Kind, Reader, Record, Status};
use crate::openai::InvalidField;
use crate::store::RunFilter;

/// Most entries of one page.
const MOST: usize = 100;
/// Runs that are looked through for one page when not all of them fit.
const MOST_LOOKED_AT: usize = 10_000;

/// `GET /v1/runs`: `user`, `model`, `status`, `kind`, `limit`, `order`, `after`.
///
/// # Errors
/// 400, 401, 403, 429, 503.
pub async fn list(State(app): State<Arc<App>>, head: Parts) -> Result<Response, ApiError> {
    let reader = app.owner(&head).await?;
    let text = head.uri.query().unwrap_or_default();
    let (query, wanted) = (Query::read(text, true, Listed::Runs)?, Wanted::read(text)?);
    let project = reader.namespace.clone().unwrap_or_default();
    // A person's own are theirs in all projects, under whatever name.
    let only = reader.only_user.as_deref().filter(|_| reader.person.is_empty());
    let filter = RunFilter {
        project: &project,
        user: wanted.user.as_deref().or(only),
        model: query.model.as_deref(),
        status: wanted.status.map(Status::as_str),
        kind: wanted.kind.map(Kind::as_str),
        ..RunFilter::default()
    };
    let (found, has_more) = read_page(&app, &reader, filter, &query, |_| true).await?;
    let data = found.iter().map(|record| summary(&app, record)).collect();
    Ok(json_response(StatusCode::OK, &envelope(data, has_more)))
}

/// Up to `query.limit` runs that fit, and whether there are more.
///
/// # Errors
/// 400 when `after` is none of those that `filter` is about, 503.
pub(super) async fn read_page(
    app: &App,
    reader: &Reader,
    filter: RunFilter<'_>,
    query: &Query,
    fits: impl Fn(&Record) -> bool,
) -> Result<(Vec<Record>, bool), ApiError> {
    let mut cursor = match &query.after {
        Some(id) => {
            let found = app.runs().find(id, reader).await?;
            let found = found.filter(|record| record.is_own && (record.stored || !filter.stored_only));
            let what = if filter.stored_only { "stored completion" } else { "run" };
            let wrong = || InvalidField::new("after", format!("`after` is no {what} of yours"));
            let found = found.ok_or_else(wrong)?;
            Some((found.created_at, found.id))
        }
        None => None,
    };
    let mut found: Vec<Record> = Vec::new();
    let mut looked_at = 0;
    loop {
        let filter = RunFilter {
            newest_first: query.newest_first,
            after: cursor.as_ref().map(|(at, id)| (*at, id.as_str())),
            limit: i64::try_from(MOST).unwrap_or(i64::MAX),
            ..filter
        };
        let page = if reader.person.is_empty() {
            app.runs().list(&filter, reader).await?
        } else {
            app.runs().list_own(&filter, reader).await?
        };
        let is_last = page.len() < MOST;
        looked_at += page.len();
        cursor = page.last().map(|record| (record.created_at, record.id.clone()));
        found.extend(page.into_iter().filter(|record| app.runs().is_kept(record) && fits(record)));
        if is_last || found.len() > query.limit || looked_at >= MOST_LOOKED_AT {
            break;
        }
    }
    let has_more = found.len() > query.limit;
    found.truncate(query.limit);
    Ok((found, has_more))
}

/// OpenAI's form of a list.
pub(super) fn envelope(data: Vec<Value>, has_more: bool) -> Value {
    let id = |entry: Option<&Value>| entry.map(|entry| entry["id"].clone());
    json!({
        "object": "list",
        "first_id": id(data.first()),
        "last_id": id(data.last()),
        "has_more": has_more,
        "data": data,
    })
}

/// What is listed, which decides by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listed {
    Runs,
    Completions,
    /// Of one completion.
    Messages,
}

impl Listed {
    /// What the list is not asked for: left out, a filter that was spelt wrong would give everything.
    fn refuse(self, unknown: &str) -> InvalidField {
        let unknown: String = unknown.chars().take(100).collect();
        let (what, known) = match self {
            Listed::Runs => ("runs are", "`user`, `model`, `status`, `kind`, `after`, `limit` and `order`"),
            Listed::Completions => {
                ("stored completions are", "`model`, `metadata[key]`, `after`, `limit` and `order`")
            }
            Listed::Messages => ("messages are", "`after`, `limit` and `order`"),
        };
        let message = format!("`{unknown}` is nothing that {what} listed by; {known} are");
        InvalidField::new(unknown, message)
    }
}

/// What every list is asked for.
pub(super) struct Query {
    pub after: Option<String>,
    pub limit: usize,
    pub newest_first: bool,
    pub model: Option<String>,
    metadata: Vec<(String, String)>,
}

impl Query {
    /// # Errors
    /// 400 for a limit or an order that is none, and for what `listed` has no filter for.
    pub fn read(query: &str, newest_first: bool, listed: Listed) -> Result<Self, InvalidField> {
        let mut read = Query { after: None, limit: 20, newest_first, model: None, metadata: Vec::new() };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "after" => read.after = Some(value.into_owned()),
                "model" if listed != Listed::Messages => read.model = Some(value.into_owned()),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                    read.limit = limit.ok_or_else(|| {
                        InvalidField::new("limit", "`limit` must be a number from 1 to 100")
                    })?;
                }
                "order" => read.newest_first = one_of("order", &value, ["asc", "desc"])? == "desc",
                // `Wanted` knows the others.
                _ if listed == Listed::Runs => {}
                name => {
                    let key = name.strip_prefix("metadata[").and_then(|rest| rest.strip_suffix(']'));
                    let key = key.filter(|key| listed == Listed::Completions && !key.is_empty());
                    let key = key.ok_or_else(|| listed.refuse(name))?;
                    read.metadata.push((key.to_owned(), value.into_owned()));
                }
            }
        }
        Ok(read)
    }

    /// Whether the run's `metadata` is as it was asked for.
    pub fn fits(&self, record: &Record) -> bool {
        self.metadata
            .iter()
            .all(|(key, value)| record.metadata.get(key).is_some_and(|there| there == value.as_str()))
    }
}

/// Which runs a list of them is asked for.
#[derive(Default)]
struct Wanted {
    user: Option<String>,
    status: Option<Status>,
    kind: Option<Kind>,
}

impl Wanted {
    fn read(query: &str) -> Result<Self, InvalidField> {
        let mut wanted = Wanted::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "user" => wanted.user = Some(value.into_owned()),
                "status" => {
                    wanted.status = Status::parse(one_of("status", &value, Status::ALL.map(Status::as_str))?);
                }
                "kind" => wanted.kind = Kind::parse(one_of("kind", &value, Kind::ALL.map(Kind::as_str))?),
                "after" | "limit" | "order" | "model" => {}
                unknown => return Err(Listed::Runs.refuse(unknown)),
            }
        }
        Ok(wanted)
    }
}

/// The value, when it is one of those that there are.
fn one_of<const N: usize>(
    name: &str,
    value: &str,
    allowed: [&'static str; N],
) -> Result<&'static str, InvalidField> {
    allowed.into_iter().find(|word| *word == value).ok_or_else(|| {
        let words = allowed.map(|word| format!("`{word}`"));
        let (last, first) = words.split_last().map_or(("", &[][..]), |(last, first)| (last.as_str(), first));
        InvalidField::new(name, format!("`{name}` must be {} or {last}", first.join(", ")))
    })
}
