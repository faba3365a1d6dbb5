//! `/runs`: one's results.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use url::form_urlencoded::Serializer;

use super::show::broken;
use super::{ListPage, Row};
use crate::completion::{Record, Status};
use crate::store::RunFilter;
use crate::tools::text;
use crate::web::form::Fields;
use crate::web::site::Site;
use crate::web::words;

/// Results on one page.
const PER_PAGE: usize = 25;
/// Longest text that is looked for, in characters.
const SEARCH_CHARACTERS: usize = 200;

/// `GET /runs`.
pub(in crate::web) async fn show(State(site): State<Arc<Site>>, uri: Uri, headers: HeaderMap) -> Response {
    let visitor = site.visitor(&headers).await;
    let reader = site.reader(&visitor);
    let Some(namespace) = &reader.namespace else { return site.see(&visitor, "/login?return_to=/runs") };
    let query = Fields::parse(uri.query().unwrap_or_default().as_bytes());
    let search = text::one_line(query.get("q").unwrap_or_default(), SEARCH_CHARACTERS);
    let status = query.get("status").and_then(Status::parse);
    let after = query.get("after").and_then(place);
    let filter = RunFilter {
        project: namespace,
        user: None,
        model: None,
        kind: None,
        status: status.map(Status::as_str),
        text: Some(search.as_str()).filter(|text| !text.is_empty()),
        stored_only: false,
        newest_first: true,
        after,
        before: None,
        // One more, to know whether there are more.
        limit: i64::try_from(PER_PAGE + 1).unwrap_or(i64::MAX),
    };
    let found = if site.local && visitor.person.is_none() {
        site.runs().list(&filter, &reader).await
    } else {
        site.runs().list_own(&filter, &reader).await
    };
    let mut records = match found {
        Ok(records) => records,
        Err(error) => return broken(&site, &visitor, &error),
    };
    let has_more = records.len() > PER_PAGE;
    records.truncate(PER_PAGE);
    let link = |after: Option<String>| {
        let mut query = Serializer::new(String::new());
        for (name, value) in [("q", search.as_str()), ("status", status.map_or("", Status::as_str))] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        if let Some(after) = after {
            query.append_pair("after", &after);
        }
        query.finish()
    };
    let last = records.last().filter(|_| has_more);
    let page = ListPage {
        frame: site.frame(&visitor),
        older: last.map(|last| link(Some(format!("{}.{}", last.created_at, last.id)))),
        newest: after.map(|_| link(None)),
        rows: records.iter().map(|record| row(record, site.now())).collect(),
        is_filtered: !search.is_empty() || status.is_some() || after.is_some(),
        status: status.map_or("", Status::as_str).to_owned(),
        search,
        notice: (query.get("now") == Some("deleted")).then_some("Deleted."),
    };
    site.page(&visitor, StatusCode::OK, &page)
}

/// `{created_at}.{id}` of the run behind which a page begins.
fn place(text: &str) -> Option<(i64, &str)> {
    let (created_at, id) = text.split_once('.')?;
    Some((created_at.parse().ok()?, id))
}

fn row(record: &Record, now: i64) -> Row {
    let (tone, status) = words::run_status(record.status.as_str(), record.reason.as_deref());
    let title = words::line(&record.title);
    Row {
        id: record.id.clone(),
        title: if title.is_empty() { "Without words".to_owned() } else { title },
        tone,
        status,
        model: words::line(&record.model),
        created: words::ago(now, record.created_at),
        visibility: record.visibility.as_str(),
    }
}
