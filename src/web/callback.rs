//! Back from an authorization server.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};

use super::connect::proof_of;
use super::form::Fields;
use super::limits::is_only_looked_at;
use super::message::{Action, Message};
use super::site::{Sent, Site, Visitor};
use crate::connections::{Callback, Finished, LinkView, PageError, Proof};

/// `GET /oauth/callback`
pub(super) async fn finish(
    State(site): State<Arc<Site>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let visitor = site.visitor(&headers).await;
    if is_only_looked_at(&method, &headers) {
        return site.message(&visitor, StatusCode::TOO_EARLY, Message::not_opened());
    }
    let fields = Fields::parse(uri.query().unwrap_or_default().as_bytes()).into_pairs();
    let finished = site.connections.finish(Callback { fields, browser: site.browser(&headers) }).await;
    match finished {
        Err(PageError::Unknown) => site.message(&visitor, StatusCode::NOT_FOUND, Message::unknown_return()),
        finished => show(&site, &visitor, finished),
    }
}

/// `POST /connect/{link}/account`: whether to keep a login that is of another account than the one before.
pub(super) async fn account(
    State(site): State<Arc<Site>>,
    Path(link): Path<String>,
    Sent { visitor, fields }: Sent,
) -> Response {
    let flow = match site.connections.view_link(&link, Some(&visitor.browser)).await {
        Ok(LinkView::One(flow)) => flow,
        Ok(LinkView::Several(_)) => {
            return site.message(&visitor, StatusCode::NOT_FOUND, Message::unknown_link());
        }
        Err(error) => return site.page_error(&visitor, error),
    };
    let Some(proven) = proof_of(&site, &visitor, &flow) else {
        if flow.proof == Proof::Gateway {
            return site.see(&visitor, &format!("/login?return_to=/connect/{link}"));
        }
        return site.message(&visitor, StatusCode::FORBIDDEN, Message::no_cookie(None));
    };
    let question = fields.get("question").unwrap_or_default();
    match fields.get("action") {
        Some("keep") => show(&site, &visitor, site.connections.keep(&link, question, proven).await),
        Some("drop") => match site.connections.drop_other(&link, question, proven).await {
            Ok(flow) => site.ended(&visitor, &flow),
            Err(error) => site.page_error(&visitor, error),
        },
        _ => site.see(&visitor, &format!("/connect/{link}")),
    }
}

fn show(site: &Site, visitor: &Visitor, finished: Result<Finished, PageError>) -> Response {
    match finished {
        Ok(Finished::Connected { flow, account, next }) => {
            let mut message =
                Message::connected(&flow.application.name, &flow.host, account.as_deref(), next.is_some());
            let onward = next.map(|link| format!("/connect/{link}"));
            if let Some(path) = &onward {
                message = message.with(Action::Link { path: path.clone(), words: "Go on".to_owned() });
            }
            let mut response = site.message(visitor, StatusCode::OK, message);
            if let Some(refresh) = onward.and_then(|path| HeaderValue::try_from(format!("3;url={path}")).ok())
            {
                response.headers_mut().insert(header::REFRESH, refresh);
            }
            response
        }
        Ok(Finished::OtherAccount { flow, question }) => site.ask_about_account(visitor, &flow, &question),
        Err(error) => site.page_error(visitor, error),
    }
}

/// `GET /oauth/client-metadata.json`: what this gateway is as a client (OAuth Client ID Metadata Document).
pub(super) async fn client_metadata(State(site): State<Arc<Site>>) -> Response {
    let mut response = Response::new(Body::from(site.connections.client_document()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
