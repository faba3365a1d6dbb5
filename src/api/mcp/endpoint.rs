//! The endpoint: who may ask, what they ask, and the answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use serde_json::{Map, Value, json};
use url::Url;

use super::call::{self, Telling};
use super::outcome;
use super::refused::Refused;
use super::tool;
use crate::api::any_host::any_host;
use crate::api::relay::no_page;
use crate::api::runs::json_response;
use crate::api::{App, body, prompts};
use crate::clean_json;
use crate::completion::{Record, is_run_id};
use crate::config::Settings;
use crate::identity::{Caller, Surface};
use crate::mcp::{self, Era, INVALID_REQUEST, Message, PARSE_ERROR, Refusal, invalid_params};

/// Largest body. It is taken apart as a whole before anything is known of it.
const BODY_BYTES: usize = 2 << 20;
/// How long clients may keep the list of tools, in milliseconds: it does not change as long as the run is there.
const TTL_MILLISECONDS: u64 = 3_600_000;

/// A run as an MCP server. A first part that is no run's id is a provider's host.
pub async fn serve(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request<Body>) -> Response {
    if !is_run_id(&id) {
        return any_host(State(app), request).await.into_response();
    }
    // Boxed, because a run is large, and the provider's requests should not carry room for it.
    Box::pin(answer(&app, &id, request)).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(app: &Arc<App>, id: &str, request: Request<Body>) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return Ok(post_only());
    }
    check_head(&app.settings, &head)?;
    no_page(&head.headers)?;
    let caller = admit(app, &head).await?;
    let record = Arc::new(prompts::find(app, &caller, id).await?);
    let body = read(app, &caller, body, &head.headers).await?;
    let server = Server { app, caller: &caller, record, headers: &head.headers };
    match clean_json::from_slice::<Value>(&body) {
        Err(_) => Err(Refusal::bad_request(PARSE_ERROR, "the body is not JSON").into()),
        Ok(Value::Array(batch)) => server.answer_batch(batch).await,
        Ok(single) => server.answer(single).await,
    }
}

fn post_only() -> Response {
    let text = "only POST is answered here: there are no sessions and no stream besides answers";
    let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, text);
    let mut response = Refused::from(refusal).into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

/// What can be said before anything is looked up.
fn check_head(settings: &Settings, head: &Parts) -> Result<(), Refusal> {
    // Local mode has looked at it already, and lets all pages of this machine in.
    if !settings.is_local() {
        let ours = Url::parse(&settings.public_url()).map(|url| url.origin().ascii_serialization());
        let ours = ours.unwrap_or_default();
        if head.headers.get_all(header::ORIGIN).iter().any(|origin| origin.as_bytes() != ours.as_bytes()) {
            let text = "pages of other sites may not use this server (`Origin`)";
            return Err(Refusal::new(StatusCode::FORBIDDEN, INVALID_REQUEST, text));
        }
    }
    mcp::check_content_type(&head.headers)?;
    mcp::check_accept(&head.headers)
}

async fn admit(app: &App, head: &Parts) -> Result<Caller, Refused> {
    match app.admit(&head.headers, Surface::V1).await {
        Ok(caller) => Ok(caller.from_peer(head.extensions.get(), &head.headers)),
        Err(error)
            if error.status() == StatusCode::UNAUTHORIZED
                && head.headers.contains_key(header::AUTHORIZATION) =>
        {
            Err(Refused::BadKey(error))
        }
        Err(error) => Err(error.into()),
    }
}

async fn read(app: &App, caller: &Caller, body: Body, headers: &HeaderMap) -> Result<bytes::Bytes, Refused> {
    let limit = BODY_BYTES.min(app.settings.limits.body_bytes);
    body::read(app, Some(caller), body, headers, limit).await.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let text = format!("the body is larger than {limit} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, text).into()
        }
        _ => error.into(),
    })
}

/// One request, and whose it is.
pub(super) struct Server<'a> {
    pub app: &'a Arc<App>,
    pub caller: &'a Caller,
    /// The run whose prompt is used.
    pub record: Arc<Record>,
    pub headers: &'a HeaderMap,
}

impl Server<'_> {
    async fn answer(&self, value: Value) -> Result<Response, Refused> {
        let id = value.get("id").filter(|id| id.is_string() || id.is_number()).cloned();
        let refused = |refusal| Refused::Message(refusal, id.clone());
        let message = mcp::read(value).map_err(refused)?;
        let era = mcp::check(self.headers, &message).map_err(refused)?;
        let Some(request) = &message.id else { return Ok(accepted()) };
        if message.method != "tools/call" {
            let result = self.reply(era, &message).map_err(refused)?;
            let result = mcp::in_era(era, result, &self.info());
            return Ok(json_response(StatusCode::OK, &mcp::response(request, &result)));
        }
        let asked = tool::Asked::read(&message.params).map_err(refused)?;
        let open = self.app.open_answer(self.caller, None, self.headers)?;
        let telling = self.telling(era, request.clone(), asked.progress_token);
        Ok(telling.answer(call::start(self, &asked.message), open).await)
    }

    /// The answers to a batch, together. A call is a run and costs as much as any other, which is counted by requests:
    /// so there is one to a batch.
    async fn answer_batch(&self, batch: Vec<Value>) -> Result<Response, Refused> {
        mcp::check_batch(self.headers, &batch)?;
        let mut answers = Vec::new();
        let mut calls = 0;
        for value in batch {
            let message = match mcp::read(value) {
                Ok(message) => message,
                Err(refusal) => {
                    answers.push(refusal.to_json(None));
                    continue;
                }
            };
            let Some(id) = &message.id else { continue };
            let reply = match message.method.as_str() {
                "tools/call" => {
                    calls += 1;
                    self.call_in_batch(&message.params, calls).await
                }
                _ => self.reply(Era::Legacy, &message),
            };
            answers.push(match reply {
                Ok(result) => mcp::response(id, &result),
                Err(refusal) => refusal.to_json(Some(id)),
            });
        }
        if answers.is_empty() {
            return Ok(accepted());
        }
        Ok(json_response(StatusCode::OK, &Value::Array(answers)))
    }

    async fn call_in_batch(&self, params: &Map<String, Value>, number: usize) -> Result<Value, Refusal> {
        if number > 1 {
            return Err(invalid_params("a batch may call the tool once; send the other calls by themselves"));
        }
        let asked = tool::Asked::read(params)?;
        let open = self.app.open_answer(self.caller, None, self.headers);
        let _open = match open {
            Ok(open) => open,
            Err(error) => return Ok(outcome::text(error.message(), true)),
        };
        Ok(call::start(self, &asked.message).result().await)
    }

    /// The result of everything but calls.
    fn reply(&self, era: Era, message: &Message) -> Result<Value, Refusal> {
        Ok(match (message.method.as_str(), era) {
            ("server/discover", Era::Modern) => cacheable(json!({
                "supportedVersions": mcp::supported(),
                "capabilities": { "tools": {} },
                "instructions": self.instructions(),
            })),
            ("initialize", Era::Legacy) => {
                let asked = message.params.get("protocolVersion").and_then(Value::as_str);
                json!({
                    "protocolVersion": mcp::accepted_version(asked),
                    "capabilities": { "tools": {} },
                    "serverInfo": self.info(),
                    "instructions": self.instructions(),
                })
            }
            ("ping", Era::Legacy) => json!({}),
            ("tools/list", _) => {
                if message.params.get("cursor").is_some_and(|cursor| !cursor.is_null()) {
                    return Err(invalid_params("there is no such page: the list has only one"));
                }
                cacheable(json!({ "tools": [tool::definition(self.app, &self.record)] }))
            }
            (unknown, _) => return Err(mcp::method_not_found(era, unknown)),
        })
    }

    fn info(&self) -> Value {
        let title = tool::title(self.app, &self.record);
        json!({ "name": "toolgate", "title": title, "version": env!("CARGO_PKG_VERSION") })
    }

    fn instructions(&self) -> String {
        format!(
            "One prompt that was kept: “{}”. `ask` gives the answer to a message that follows it.",
            tool::title(self.app, &self.record)
        )
    }

    fn telling(&self, era: Era, id: Value, progress_token: Option<Value>) -> Telling {
        Telling {
            era,
            id,
            progress_token,
            server_info: self.info(),
            keep_alive: Duration::from_secs(self.app.settings.run.keep_alive_seconds.max(1)),
            reads_streams: mcp::reads_event_streams(self.headers),
        }
    }
}

/// What one caller may read, no cache may show to another.
fn cacheable(mut result: Value) -> Value {
    result["ttlMs"] = json!(TTL_MILLISECONDS);
    result["cacheScope"] = json!("private");
    result
}

/// The answer to notifications.
fn accepted() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}
