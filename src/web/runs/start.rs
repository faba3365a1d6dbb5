//! `/`: a form that starts a run, and the lines of a program that does the same.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use serde_json::{Map, Value, json};

use super::{Samples, StartPage};
use crate::completion::{Error, Incoming, Keep, Kind, Options, Who};
use crate::config::KeyScope;
use crate::identity::{Caller, CallerKind};
use crate::openai::{ChatRequest, InvalidField};
use crate::tools::text;
use crate::upstream::ProviderKey;
use crate::web::form::Fields;
use crate::web::frame;
use crate::web::site::{Site, Visitor};

/// What the demo's model and tools can answer.
const EXAMPLE: &str = "Roll 2 dice and tell me the time in Tokyo";
/// Largest form, in bytes. A character that is no ASCII takes up to twelve.
const LARGEST: usize = 1 << 20;
/// Most MCP servers of one form.
const MOST_SERVERS: usize = 16;
/// Longest message about what is wrong, in characters.
const PROBLEM_CHARACTERS: usize = 600;

/// What stands in the form.
#[derive(Debug, Default)]
struct Entered {
    message: String,
    model: String,
    servers: String,
}

impl Entered {
    fn clean(self) -> Entered {
        let clean = |text: String| text::for_reader(&text).into_owned();
        Entered { message: clean(self.message), model: clean(self.model), servers: clean(self.servers) }
    }
}

/// `GET /`.
pub(in crate::web) async fn show(State(site): State<Arc<Site>>, uri: Uri, headers: HeaderMap) -> Response {
    let visitor = site.visitor(&headers).await;
    let query = Fields::parse(uri.query().unwrap_or_default().as_bytes());
    let mut entered = Entered::default();
    if site.local {
        entered.message = EXAMPLE.to_owned();
        entered.servers = format!("{}/demo/mcp", site.public_url);
    }
    if let Some(id) = query.get("from")
        && let Ok(Some(record)) = site.runs().find(id, &site.reader(&visitor)).await
    {
        entered = Entered {
            message: last_question(record.messages()),
            model: record.model.clone(),
            // A server's address may hold what only its owner may know.
            servers: if record.is_own { servers(&record.request) } else { String::new() },
        };
    }
    page(&site, &visitor, entered, StatusCode::OK, None)
}

/// `POST /`: starts a run and leads to its page.
pub(in crate::web) async fn start(State(site): State<Arc<Site>>, headers: HeaderMap, body: Body) -> Response {
    let (visitor, fields) = match site.form(&headers, body, LARGEST).await {
        Ok(sent) => sent,
        Err(refused) => return refused,
    };
    let field = |name: &str| fields.get(name).unwrap_or_default().trim().to_owned();
    let other = field("other_model");
    let model = if other.is_empty() { field("model") } else { other };
    let entered = Entered { message: field("message"), model, servers: field("servers") };
    let Some(caller) = site.caller(&visitor) else {
        return site.see(&visitor, "/login?return_to=/");
    };
    match begin(&site, &caller, &entered).await {
        Ok(id) => site.see(&visitor, &format!("/{id}")),
        Err((status, problem)) => page(&site, &visitor, entered, status, Some(problem)),
    }
}

/// Starts the run; its id.
async fn begin(site: &Site, caller: &Caller, entered: &Entered) -> Result<String, (StatusCode, String)> {
    let invalid = |error: InvalidField| (StatusCode::BAD_REQUEST, error.message);
    if !caller.scopes.contains(KeyScope::Completions) {
        let words = "Whoever runs this gateway has not allowed people to start runs here. Use a key of your application.";
        return Err((StatusCode::FORBIDDEN, words.to_owned()));
    }
    if let Err(wait) = site.rate_limit.check(caller.counted_as(), caller.requests_per_minute) {
        return Err((
            StatusCode::TOO_MANY_REQUESTS,
            format!("Too many requests: try again in {} s.", wait.0),
        ));
    }
    if entered.message.is_empty() {
        return Err((StatusCode::BAD_REQUEST, "Write a message first.".to_owned()));
    }
    let addresses: Vec<&str> = entered.servers.split_whitespace().collect();
    if addresses.len() > MOST_SERVERS {
        return Err((
            StatusCode::BAD_REQUEST,
            format!("At most {MOST_SERVERS} MCP servers can be used here."),
        ));
    }
    let tools: Vec<Value> =
        addresses.iter().map(|address| json!({ "type": "mcp", "server_url": address })).collect();
    let mut body = json!({
        "model": entered.model,
        "messages": [{ "role": "user", "content": entered.message }],
        "store": true,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    if !tools.is_empty() {
        body["tools"] = Value::Array(tools);
    }
    let request = ChatRequest::parse(body.to_string().into()).map_err(invalid)?;
    let (headers, engine) = (HeaderMap::new(), &site.engine);
    let options = Options::read(&request, &headers, &site.run).map_err(invalid)?;
    let key = match &caller.kind {
        CallerKind::Local => ProviderKey::ConfiguredOr(None),
        CallerKind::Project { .. } | CallerKind::Person { .. } => ProviderKey::Configured,
        CallerKind::PassThrough => ProviderKey::Callers(None),
    };
    let target = site.providers.select(engine.upstream(), &entered.model, key).await;
    let target = target.map_err(|error| (StatusCode::NOT_FOUND, capital(&error.to_string())))?;
    let keep = Keep {
        kind: Kind::Page,
        stored: true,
        metadata: Map::new(),
        person: caller.own_user().cloned(),
        visibility: None,
        idempotency: None,
        webhook_url: None,
    };
    let incoming = Incoming {
        request,
        headers,
        forwarded: HeaderMap::new(),
        target,
        path: "/chat/completions".to_owned(),
        options,
        who: Who::of(caller),
        keep: Some(keep),
    };
    match engine.start(incoming).await {
        // Its page is there from now on.
        Ok(started) if started.events.created().await => Ok(started.run_id),
        Ok(_) => Err((StatusCode::SERVICE_UNAVAILABLE, "It could not be kept. Try again.".to_owned())),
        Err(Error::Invalid(error)) => Err(invalid(error)),
        Err(Error::Ended(error)) => {
            let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_GATEWAY);
            let message =
                error.error.get("message").and_then(Value::as_str).unwrap_or("It could not be started.");
            Err((status, capital(message)))
        }
    }
}

fn page(
    site: &Site,
    visitor: &Visitor,
    entered: Entered,
    status: StatusCode,
    problem: Option<String>,
) -> Response {
    let can_start = site.caller(visitor).is_some();
    let models = site.models(can_start);
    // What a person has entered, or somebody else has asked: without what hides or moves text.
    let Entered { message, model, servers } = entered.clean();
    let model = if model.is_empty() { models.first().cloned().unwrap_or_default() } else { model };
    let base = format!("{}/v1", site.public_url);
    let asked = if message.is_empty() { EXAMPLE } else { &message };
    let addresses: Vec<String> = servers.split_whitespace().map(str::to_owned).collect();
    let page = StartPage {
        frame: site.frame(visitor),
        other_model: Some(model.clone()).filter(|model| !models.contains(model)).unwrap_or_default(),
        samples: Samples::new(&base, &model, asked, &addresses, site.local),
        models,
        model,
        message,
        servers,
        base,
        local: site.local,
        can_start,
        problem: problem.map(|problem| text::one_line(&problem, PROBLEM_CHARACTERS)),
    };
    let mut response = site.page(visitor, status, &page);
    frame::allow_script(&mut response);
    response
}

/// The text of the last message of the user.
fn last_question(messages: &[Value]) -> String {
    let last = messages.iter().rev().find(|message| message.get("role").is_some_and(|role| role == "user"));
    match last.and_then(|message| message.get("content")) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str));
            texts.collect::<Vec<_>>().join("\n\n")
        }
        _ => String::new(),
    }
}

/// The addresses of a request's MCP servers, one a line.
fn servers(request: &Map<String, Value>) -> String {
    let tools = request.get("tools").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let addresses =
        tools.iter().filter_map(|tool| tool.get("server_url").or(tool.get("url")).and_then(Value::as_str));
    addresses.collect::<Vec<_>>().join("\n")
}

/// Messages for programs begin small.
fn capital(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}", characters.as_str())
}
