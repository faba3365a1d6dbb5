//! `/v1/connections…`: what an application may see and do about its users' logins. Tokens only where the operator
//! allows it.
//!
//! Everything is looked up in the caller's own project: what belongs to another one is as if it did not exist.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use serde_json::{Value, json};

use super::{ApiError, App, body};
use crate::completion::Who;
use crate::config::KeyScope;
use crate::connections::{ConnectionView, FlowError, Owner, Reason, RevokeOutcome, Scopes, Wanted};
use crate::identity::{Caller, CallerKind, Surface};
use crate::openai::{ChatRequest, ErrorBody, ErrorKind, InvalidField};

/// Addresses in one question.
const MOST_URLS: usize = 64;
/// Addresses that are asked at the same time.
const AT_ONCE: usize = 16;
const LONGEST_SCOPE: usize = 256;
const MOST_SCOPES: usize = 100;
/// Connections in one answer, when the question does not say, and at most.
const PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1000;

/// Which connections are listed.
#[derive(Debug, Default)]
struct Filter {
    user: Option<String>,
    profile: Option<String>,
    after: Option<String>,
    limit: Option<String>,
}

impl Filter {
    fn read(query: &str) -> Result<Self, InvalidField> {
        let mut filter = Filter::default();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let slot = match &*key {
                "user" => &mut filter.user,
                "profile" => &mut filter.profile,
                "after" => &mut filter.after,
                "limit" => &mut filter.limit,
                other => {
                    let other = other.escape_default().to_string();
                    let message = format!(
                        "`{other}` is not known here; known are `user`, `profile`, `limit` and `after`"
                    );
                    return Err(InvalidField::new(other, message));
                }
            };
            *slot = Some(value.into_owned());
        }
        Ok(filter)
    }

    fn limit(&self) -> Result<u32, InvalidField> {
        let limit = self.limit.as_deref().map_or(Some(PAGE), |text| text.parse().ok());
        limit.filter(|limit| (1..=LARGEST_PAGE).contains(limit)).ok_or_else(|| {
            InvalidField::new("limit", format!("`limit` must be a number from 1 to {LARGEST_PAGE}"))
        })
    }
}

/// `GET /v1/connections?user=&profile=&limit=&after=`.
///
/// # Errors
/// 401, 403, 429, 503.
pub async fn list(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let caller = admit(&app, &headers, KeyScope::Connections).await?;
    let filter = Filter::read(uri.query().unwrap_or_default())?;
    let limit = filter.limit()?;
    let user = Who::of(&caller).may_list(filter.user)?;
    let (profile, after) = (filter.profile.as_deref(), filter.after.as_deref());
    // One more than is shown, to know whether there are more.
    let found = app.connections.list(&caller.namespace, user.as_deref(), profile, after, limit + 1).await?;
    let Some(mut found) = found else {
        return Err(InvalidField::new("after", "`after` must be the id of a connection").into());
    };
    let shown_at_most = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = found.len() > shown_at_most;
    found.truncate(shown_at_most);
    let data: Vec<Value> = found.iter().map(shown).collect();
    Ok(answer(StatusCode::OK, &json!({ "object": "list", "data": data, "has_more": has_more })))
}

/// `POST /v1/connections {user, server_url, profile?, scopes?}`: a login link for the server.
///
/// # Errors
/// 400, 401, 403, 404 when the server offers no login, 429, 502, 503.
pub async fn create(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, ApiError> {
    let (caller, fields) = read(&app, request, KeyScope::Connections).await?;
    only(&fields, &["user", "server_url", "profile", "scopes", "authorization_callback_url"])?;
    let who = Who::of(&caller);
    let owner = owner(&who, &fields)?;
    let uri = address(&app, fields.get("server_url", "an address")?, "server_url")?;
    let scopes = scopes(&fields)?;
    if scopes.is_empty()
        && let Some(access) = app.connections.look_up(&owner, &uri).await?
    {
        let done = json!({ "status": "connected", "server_url": uri.to_string(), "connection": &*access.connection });
        return Ok(answer(StatusCode::OK, &done));
    }
    let callback = match fields.get::<String>("authorization_callback_url", "an address")? {
        Some(text) => Some(address(&app, Some(text), "authorization_callback_url")?.to_string()),
        None => None,
    };
    let reason = app.connections.find_end(&owner, &uri).await?.unwrap_or(Reason::FirstUse);
    let scopes = if scopes.is_empty() { Scopes::AsAsked } else { Scopes::Also(scopes) };
    let wanted = Wanted { callback_url: callback, ..wanted(&who, uri, scopes, reason) };
    start(&app, &owner, wanted).await
}

/// `POST /v1/connections/{id}/reauthorize {scopes?}`: a login link for a connection that exists, for just these scopes.
///
/// # Errors
/// As [`create`], and 404 for other projects' connections.
pub async fn reauthorize(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let (caller, fields) = read(&app, request, KeyScope::Connections).await?;
    only(&fields, &["scopes"])?;
    let scopes = scopes(&fields)?;
    let who = Who::of(&caller);
    let connection = find(&app, &who, &id).await?;
    let owner = Owner {
        project: Arc::clone(&caller.namespace),
        user: connection.user.as_str().into(),
        profile: connection.profile.as_str().into(),
    };
    let uri = address(&app, Some(connection.server_url.clone()), "server_url")?;
    let scopes = if scopes.is_empty() { Scopes::AsAsked } else { Scopes::Exactly(scopes) };
    start(&app, &owner, wanted(&who, uri, scopes, Reason::ReAuthorize)).await
}

/// `DELETE /v1/connections/{id}`: ends it, at the authorization server too.
///
/// # Errors
/// 401, 403, 404, 429, 503.
pub async fn delete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = admit(&app, &headers, KeyScope::Connections).await?;
    let connection = find(&app, &Who::of(&caller), &id).await?;
    let outcome = app.connections.revoke(&caller.namespace, &connection.id, "api").await?;
    let outcome = match outcome {
        RevokeOutcome::NotFound => return Err(unknown_connection()),
        other => json!(other),
    };
    let gone = json!({ "id": connection.id, "object": "connection", "deleted": true, "revocation": outcome });
    Ok(answer(StatusCode::OK, &gone))
}

/// `POST /v1/connections/check {user, urls, profile?}`: per address `connected`, `needs_login` with a link, `public`, or
/// `unknown` with a reason. Looking is no use: it does not keep a connection from being given up as unused.
///
/// # Errors
/// 400, 401, 403, 429, 503.
pub async fn check(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, ApiError> {
    let (caller, fields) = read(&app, request, KeyScope::Connections).await?;
    only(&fields, &["user", "urls", "profile"])?;
    let who = Who::of(&caller);
    let owner = owner(&who, &fields)?;
    let uris = addresses(&app, &fields)?;
    let checking = uris.into_iter().map(|(url, uri)| one(&app, &who, &owner, url, uri));
    let results: Vec<Result<Value, ApiError>> = stream::iter(checking).buffered(AT_ONCE).collect().await;
    let data = results.into_iter().collect::<Result<Vec<Value>, ApiError>>()?;
    Ok(answer(StatusCode::OK, &json!({ "object": "list", "data": data })))
}

/// `POST /v1/connections/tokens {user, urls, profile?}`: fresh access tokens, where the operator allows it and the key
/// has the scope for it.
///
/// # Errors
/// 400, 401, 403, 404 when it is turned off, 429, 503.
pub async fn tokens(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, ApiError> {
    if !app.settings.connections.tokens_endpoint {
        let message = "access tokens are not given out here (`connections.tokens_endpoint`)";
        let kind = ErrorKind::InvalidRequest;
        return Err(ApiError::new(StatusCode::NOT_FOUND, kind, Some("tokens_off"), message));
    }
    let (caller, fields) = read(&app, request, KeyScope::Tokens).await?;
    only(&fields, &["user", "urls", "profile"])?;
    let owner = owner(&Who::of(&caller), &fields)?;
    let mut data = Vec::new();
    for (url, uri) in addresses(&app, &fields)? {
        data.push(match app.connections.give_out(&owner, &uri, key_name(&caller)).await? {
            Some(access) => json!({
                "url": url, "status": "connected", "connection": &*access.connection,
                "authorization": access.authorization.expose(),
            }),
            None => json!({ "url": url, "status": "needs_login" }),
        });
    }
    Ok(answer(StatusCode::OK, &json!({ "object": "list", "data": data })))
}

async fn one(app: &App, who: &Who, owner: &Owner, url: String, uri: Uri) -> Result<Value, ApiError> {
    if let Some(access) = app.connections.look_up(owner, &uri).await? {
        return Ok(json!({ "url": url, "status": "connected", "connection": &*access.connection }));
    }
    let reason = app.connections.find_end(owner, &uri).await?.unwrap_or(Reason::FirstUse);
    match app.connections.start_flow(owner, wanted(who, uri, Scopes::AsAsked, reason)).await {
        Ok(flow) => Ok(json!({
            "url": url, "status": "needs_login", "connect_url": flow.connect_url, "scopes": flow.scopes,
            "expires_at": flow.expires_at_ms / 1000,
        })),
        Err(FlowError::NotNeeded(_)) => Ok(json!({ "url": url, "status": "public" })),
        Err(error @ (FlowError::Store(_) | FlowError::Busy(_))) => Err(error.into()),
        Err(
            error @ (FlowError::NotOffered(_)
            | FlowError::Unusable(_)
            | FlowError::TooMany
            | FlowError::UserMismatch
            | FlowError::Unknown),
        ) => {
            let reason = app.engine.without_links(&error.to_string());
            Ok(json!({ "url": url, "status": "unknown", "reason": reason }))
        }
    }
}

async fn start(app: &App, owner: &Owner, wanted: Wanted) -> Result<Response, ApiError> {
    let server_url = wanted.uri.to_string();
    let started = app.connections.start_flow(owner, wanted).await;
    let flow = started.map_err(|error| match error {
        // Why not may repeat what the server says of itself.
        FlowError::NotOffered(why) => FlowError::NotOffered(app.engine.without_links(&why)),
        FlowError::Unusable(why) => FlowError::Unusable(app.engine.without_links(&why)),
        other => other,
    })?;
    let pending = json!({
        "status": "needs_login", "server_url": server_url, "resource": flow.resource, "host": flow.host,
        "connect_url": flow.connect_url, "scopes": flow.scopes, "expires_at": flow.expires_at_ms / 1000,
    });
    Ok(answer(StatusCode::CREATED, &pending))
}

fn wanted(who: &Who, uri: Uri, scopes: Scopes, reason: Reason) -> Wanted {
    Wanted {
        label: uri.host().unwrap_or_default().to_owned(),
        uri,
        // Nobody has asked the address yet.
        challenge: None,
        scopes,
        reason,
        application: who.application.clone(),
        callback_url: None,
        run_id: None,
        lasting: Duration::ZERO,
    }
}

/// One connection as applications see it.
fn shown(connection: &ConnectionView) -> Value {
    json!({
        "id": connection.id,
        "object": "connection",
        "user": connection.user,
        "profile": Some(&connection.profile).filter(|profile| !profile.is_empty()),
        "server_url": connection.server_url,
        "resource": connection.resource,
        "account": connection.account,
        "scopes": connection.scopes,
        "status": connection.status,
        "application": connection.application,
        "created_at": connection.created_at_ms / 1000,
        "last_used_at": connection.last_used_at_ms / 1000,
    })
}

/// A connection of the caller, by its id.
async fn find(app: &App, who: &Who, id: &str) -> Result<ConnectionView, ApiError> {
    let user = who.may_list(None)?;
    app.connections.find(&who.namespace, user.as_deref(), id).await?.ok_or_else(unknown_connection)
}

async fn admit(app: &App, headers: &HeaderMap, scope: KeyScope) -> Result<Caller, ApiError> {
    app.admit_for(headers, Surface::V1, scope).await
}

/// The caller, and the fields of the body.
pub(super) async fn read(
    app: &App,
    request: Request<Body>,
    scope: KeyScope,
) -> Result<(Caller, ChatRequest), ApiError> {
    let (head, body) = request.into_parts();
    let caller = admit(app, &head.headers, scope).await?;
    let caller = caller.from_peer(head.extensions.get(), &head.headers);
    let limit = app.settings.limits.body_bytes.min(1 << 20);
    let fields = body::read_request(app, Some(&caller), body, &head.headers, limit).await?;
    Ok((caller, fields))
}

pub(super) fn only(fields: &ChatRequest, known: &[&str]) -> Result<(), InvalidField> {
    match fields.fields().find(|(key, _)| !known.contains(key)) {
        None => Ok(()),
        Some((key, _)) => {
            let key = key.escape_default().to_string();
            let message = format!("`{key}` is not a field of this request; known are {}", known.join(", "));
            Err(InvalidField::new(key, message))
        }
    }
}

fn owner(who: &Who, fields: &ChatRequest) -> Result<Owner, ApiError> {
    let profile = fields.get::<String>("profile", "a name")?;
    let long = |name: &String| name.is_empty() || name.len() > 64 || name.chars().any(char::is_control);
    if profile.as_ref().is_some_and(long) {
        return Err(InvalidField::new("profile", "`profile` must be a name of 1 to 64 characters").into());
    }
    let user = who.user(fields, &HeaderMap::new())?;
    let owner = who.owner(user.as_ref(), profile.as_deref())?;
    owner.ok_or_else(|| {
        let message = "`user` is missing: name the end user whose connection it is";
        let body = ErrorBody::new(ErrorKind::InvalidRequest, Some("user_required"), message).param("user");
        ApiError::from_body(StatusCode::BAD_REQUEST, body)
    })
}

fn address(app: &App, text: Option<String>, field: &str) -> Result<Uri, ApiError> {
    let wrong = |reason: &str| InvalidField::new(field, format!("`{field}`: {reason}"));
    let text = text.ok_or_else(|| wrong("it is missing"))?;
    let uri = crate::tools::read_address(&text).map_err(|reason| wrong(&reason))?;
    app.engine.check_address(&uri).map_err(|refusal| wrong(&refusal.to_string()))?;
    Ok(uri)
}

fn addresses(app: &App, fields: &ChatRequest) -> Result<Vec<(String, Uri)>, ApiError> {
    let urls = fields.get::<Vec<String>>("urls", "a list of addresses")?.unwrap_or_default();
    if urls.is_empty() || urls.len() > MOST_URLS {
        let message = format!("`urls` must have 1 to {MOST_URLS} addresses");
        return Err(InvalidField::new("urls", message).into());
    }
    let numbered = urls.into_iter().enumerate();
    numbered.map(|(n, url)| Ok((url.clone(), address(app, Some(url), &format!("urls[{n}]"))?))).collect()
}

fn scopes(fields: &ChatRequest) -> Result<Vec<String>, InvalidField> {
    let scopes = fields.get::<Vec<String>>("scopes", "a list of scopes")?.unwrap_or_default();
    // RFC 6749 §3.3: visible ASCII without quotation mark and backslash.
    let is_scope = |scope: &String| {
        (1..=LONGEST_SCOPE).contains(&scope.len())
            && scope.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte))
    };
    if scopes.len() > MOST_SCOPES || !scopes.iter().all(is_scope) {
        let message =
            format!("`scopes` must be at most {MOST_SCOPES} words as authorization servers know them");
        return Err(InvalidField::new("scopes", message));
    }
    Ok(scopes)
}

/// Who reads tokens, for the audit log.
fn key_name(caller: &Caller) -> &str {
    match &caller.kind {
        CallerKind::Local => "local",
        CallerKind::Project { key_name, .. } => key_name,
        CallerKind::PassThrough => "pass-through",
        CallerKind::Person { account } => account,
    }
}

fn unknown_connection() -> ApiError {
    let message = "there is no such connection";
    ApiError::new(StatusCode::NOT_FOUND, ErrorKind::InvalidRequest, Some("connection_not_found"), message)
}

pub(super) fn answer(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
