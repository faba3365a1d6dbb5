//! The demo's MCP server: stateless, tools only. It never asks the client for anything and offers nothing but tools.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Map, Value, json};

use super::address::{Here, is_on_this_machine};
use super::oauth::SCOPE;
use super::router::{self, DEMO_TOKEN, Demo};
use super::tools::{self, Output, Visitor};
use crate::clean_json;
use crate::clock::Clock;
use crate::mcp::{
    self, Era, INVALID_PARAMS, INVALID_REQUEST, Message, PARSE_ERROR, Refusal, invalid_params, response,
};
use crate::sse;

const BODY_BYTES: usize = 1 << 20;
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// How long clients may keep the tool list: it only changes with the program.
const TTL_MILLISECONDS: u64 = 3_600_000;

/// The server everyone may use.
pub async fn open(State(demo): State<Demo>, request: Request) -> Response {
    serve(demo.clock, None, request).await
}

/// The server that wants a login (RFC 6750 §2.1, RFC 9728 §5.1).
pub async fn private(State(demo): State<Demo>, request: Request) -> Response {
    let here = Here::of(request.headers());
    let token = request.headers().get(header::AUTHORIZATION).map(bearer_token);
    if let (Some(Some(token)), Some(here)) = (token, &here) {
        let visitor = if token == DEMO_TOKEN {
            Some(Visitor::Nameless)
        } else {
            let person = demo.memory.find_person(demo.clock.unix_seconds(), token, &here.resource());
            person.map(Visitor::Named)
        };
        if let Some(visitor) = visitor {
            return serve(demo.clock, Some(visitor), request).await;
        }
    }
    refuse_stranger(here, token.is_some())
}

/// `None` when the header holds another kind of credential.
fn bearer_token(header: &HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

fn refuse_stranger(here: Option<Here>, brought_something: bool) -> Response {
    let mut challenge = String::from("Bearer realm=\"toolgate demo\"");
    if brought_something {
        challenge.push_str(", error=\"invalid_token\"");
    }
    challenge.push_str(&format!(", scope=\"{SCOPE}\""));
    if let Some(here) = here {
        challenge.push_str(&format!(", resource_metadata=\"{}\"", here.resource_metadata()));
    }
    let text =
        format!("This demo server wants a login. Without one, `Authorization: Bearer {DEMO_TOKEN}` will do.");
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, INVALID_REQUEST, text);
    let mut response = router::json(refusal.status, &refusal.to_json(None));
    if let Ok(challenge) = HeaderValue::from_str(&challenge) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

async fn serve(clock: Clock, visitor: Option<Visitor>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if let Err(refusal) = admit(&parts.method, &parts.headers) {
        let mut response = router::json(refusal.status, &refusal.to_json(None));
        if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        return response;
    }
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES).await else {
        let text = format!("the body is larger than {BODY_BYTES} bytes or broke off");
        return refuse(&Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, text), None);
    };
    let server = Server { clock, visitor, headers: parts.headers };
    match clean_json::from_slice::<Value>(&body) {
        Err(_) => refuse(&Refusal::bad_request(PARSE_ERROR, "the body is not JSON"), None),
        Ok(Value::Array(batch)) => server.answer_batch(batch).await,
        Ok(single) => server.answer(single).await,
    }
}

/// What can be said before the body is read.
fn admit(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    let origins = headers.get_all(header::ORIGIN).iter();
    if !origins.into_iter().all(|origin| origin.to_str().is_ok_and(is_on_this_machine)) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, INVALID_REQUEST, "this Origin may not use the demo"));
    }
    if method != Method::POST {
        let text = "only POST is answered here: no sessions, no GET stream";
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, text));
    }
    mcp::check_content_type(headers)
}

fn refuse(refusal: &Refusal, id: Option<&Value>) -> Response {
    router::json(refusal.status, &refusal.to_json(id))
}

struct Server {
    clock: Clock,
    /// `None` where nobody has to log in.
    visitor: Option<Visitor>,
    headers: HeaderMap,
}

/// What a request comes to.
enum Reply {
    Result(Value),
    /// A tool that takes its time.
    Waiting(u64),
}

impl Server {
    async fn answer(&self, value: Value) -> Response {
        let id_for_errors = value.get("id").filter(|id| id.is_string() || id.is_number()).cloned();
        let checked = mcp::read(value).and_then(|message| {
            let era = mcp::check(&self.headers, &message)?;
            Ok((era, message))
        });
        let (era, message) = match checked {
            Ok(checked) => checked,
            Err(refusal) => return refuse(&refusal, id_for_errors.as_ref()),
        };
        let Some(id) = &message.id else {
            let mut accepted = Response::default();
            *accepted.status_mut() = StatusCode::ACCEPTED;
            return accepted;
        };
        match self.reply(era, &message) {
            Err(refusal) => refuse(&refusal, Some(id)),
            Ok(Reply::Result(result)) => router::json(StatusCode::OK, &response(id, &result)),
            Ok(Reply::Waiting(seconds)) if mcp::reads_event_streams(&self.headers) => {
                let token = message.params.get("_meta").and_then(|meta| meta.get("progressToken")).cloned();
                wait_streaming(era, id.clone(), token, seconds)
            }
            Ok(Reply::Waiting(seconds)) => {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                router::json(StatusCode::OK, &response(id, &waited(era, seconds)))
            }
        }
    }

    async fn answer_batch(&self, batch: Vec<Value>) -> Response {
        if let Err(refusal) = mcp::check_batch(&self.headers, &batch) {
            return refuse(&refusal, None);
        }
        let mut answers = Vec::new();
        for value in batch {
            let message = match mcp::read(value) {
                Ok(message) => message,
                Err(refusal) => {
                    answers.push(refusal.to_json(None));
                    continue;
                }
            };
            let Some(id) = &message.id else { continue };
            answers.push(match self.reply(Era::Legacy, &message) {
                Err(refusal) => refusal.to_json(Some(id)),
                Ok(Reply::Result(result)) => response(id, &result),
                Ok(Reply::Waiting(_)) => {
                    Refusal::bad_request(INVALID_PARAMS, "`slow` cannot be part of a batch").to_json(Some(id))
                }
            });
        }
        if answers.is_empty() {
            let mut accepted = Response::default();
            *accepted.status_mut() = StatusCode::ACCEPTED;
            return accepted;
        }
        router::json(StatusCode::OK, &Value::Array(answers))
    }

    fn is_private(&self) -> bool {
        self.visitor.is_some()
    }

    fn reply(&self, era: Era, message: &Message) -> Result<Reply, Refusal> {
        let result = match (message.method.as_str(), era) {
            ("server/discover", Era::Modern) => self.cacheable(json!({
                "supportedVersions": mcp::supported(),
                "capabilities": {"tools": {}},
                "instructions": instructions(self.is_private()),
            })),
            ("initialize", Era::Legacy) => {
                let asked = message.params.get("protocolVersion").and_then(Value::as_str);
                json!({
                    "protocolVersion": mcp::accepted_version(asked),
                    "capabilities": {"tools": {}},
                    "serverInfo": server_info(),
                    "instructions": instructions(self.is_private()),
                })
            }
            ("ping", Era::Legacy) => json!({}),
            ("tools/list", _) => {
                if message.params.get("cursor").is_some_and(|cursor| !cursor.is_null()) {
                    return Err(invalid_params("there is no such page: the list has only one"));
                }
                self.cacheable(json!({"tools": tools::list(self.is_private())}))
            }
            ("tools/call", _) => match self.call(&message.params)? {
                Output::Wait { seconds } => return Ok(Reply::Waiting(seconds)),
                output => output.into_result(),
            },
            (unknown, _) => return Err(mcp::method_not_found(era, unknown)),
        };
        Ok(Reply::Result(in_era(era, result)))
    }

    /// What needs a login to be seen must not be shown to others from a cache.
    fn cacheable(&self, mut result: Value) -> Value {
        result["ttlMs"] = json!(TTL_MILLISECONDS);
        result["cacheScope"] = json!(if self.is_private() { "private" } else { "public" });
        result
    }

    fn call(&self, params: &Map<String, Value>) -> Result<Output, Refusal> {
        let Some(name) = params.get("name").and_then(Value::as_str) else {
            return Err(invalid_params("`params.name` must be a string"));
        };
        let none = Map::new();
        let arguments = match params.get("arguments") {
            None | Some(Value::Null) => &none,
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return Err(invalid_params("`params.arguments` must be an object")),
        };
        tools::call(&self.clock, self.visitor.as_ref(), name, arguments)
            .ok_or_else(|| mcp::unknown_tool(name))
    }
}

fn server_info() -> Value {
    json!({"name": "toolgate-demo", "title": "toolgate demo", "version": env!("CARGO_PKG_VERSION")})
}

fn instructions(private: bool) -> &'static str {
    if private {
        "The demo tools of toolgate, for someone who is logged in. They read nothing and change nothing outside."
    } else {
        "The demo tools of toolgate. They read nothing and change nothing outside."
    }
}

fn in_era(era: Era, result: Value) -> Value {
    mcp::in_era(era, result, &server_info())
}

fn waited(era: Era, seconds: u64) -> Value {
    in_era(era, Output::Wait { seconds }.into_result())
}

/// Waits in an event stream, telling the progress when the client gave a token. When the client leaves, the stream is
/// dropped and the waiting ends with it.
fn wait_streaming(era: Era, id: Value, token: Option<Value>, seconds: u64) -> Response {
    let steps = seconds * 1000 / u64::try_from(PROGRESS_INTERVAL.as_millis()).expect("half a second");
    router::event_stream(stream::unfold(0, move |step| {
        let (id, token) = (id.clone(), token.clone());
        async move {
            if step > steps {
                return None;
            }
            if step > 0 {
                tokio::time::sleep(PROGRESS_INTERVAL).await;
            }
            let mut out = Vec::new();
            match token {
                Some(token) => sse::data(&mut out, progress(&token, step, steps).to_string().as_bytes()),
                None => sse::comment(&mut out, "working"),
            }
            if step == steps {
                sse::data(&mut out, response(&id, &waited(era, seconds)).to_string().as_bytes());
            }
            Some((Ok(Bytes::from(out)), step + 1))
        }
    }))
}

fn progress(token: &Value, step: u64, steps: u64) -> Value {
    mcp::progress(token, step, Some(steps), &format!("{} % done", step * 100 / steps))
}
