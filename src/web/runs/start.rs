//! `/`: a form that starts a run, and the lines of a program that does the same.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use serde_json::{Map, Value, json};
use url::Url;

use super::show::broken;
use super::{Samples, StartPage, again};
use crate::completion::event::RunError;
use crate::completion::{Error, Incoming, Keep, Kind, Options, Record, Who};
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
    /// The visitor's own run whose instructions and limits go along.
    from: Option<String>,
}

impl Entered {
    fn clean(self) -> Entered {
        let clean = |text: String| text::for_reader(&text).into_owned();
        let Entered { message, model, servers, from } = self;
        Entered { message: clean(message), model: clean(model), servers: clean(servers), from }
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
            message: again::last_question(record.messages()),
            model: record.model.clone(),
            servers: again::servers(&record),
            from: (record.is_own && again::has_more(&record)).then_some(record.id),
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
    let mut entered = Entered { message: field("message"), model, servers: field("servers"), from: None };
    let Some(caller) = site.caller(&visitor) else {
        if !site.can_sign_in() {
            let words = "Nobody can sign in here, so nobody can start runs on this page. Send it with a key of your application, as below.";
            return page(&site, &visitor, entered, StatusCode::FORBIDDEN, Some(words.to_owned()));
        }
        return site.see(&visitor, "/login?return_to=/");
    };
    let from = field("from");
    let mut before = None;
    if !from.is_empty() {
        // Read anew: a form says what its sender likes.
        before = match site.runs().find(&from, &site.reader(&visitor)).await {
            Ok(found) => found.filter(|record| record.is_own),
            Err(error) => return broken(&site, &visitor, &error),
        };
        if before.is_none() {
            let words = "The run that this repeats is gone, or not yours: its instructions and limits cannot go along. \
                         To run without them what stands here, press Run.";
            return page(&site, &visitor, entered, StatusCode::NOT_FOUND, Some(words.to_owned()));
        }
        entered.from = Some(from);
    }
    match begin(&site, &caller, &entered, before.as_ref()).await {
        Ok(id) => site.see(&visitor, &format!("/{id}")),
        Err((status, problem)) => page(&site, &visitor, entered, status, Some(problem)),
    }
}

/// Starts the run; its id.
///
/// `before` is the caller's own run that is carried out again.
async fn begin(
    site: &Site,
    caller: &Caller,
    entered: &Entered,
    before: Option<&Record>,
) -> Result<String, (StatusCode, String)> {
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
    if let Some(address) = addresses.iter().find(|address| !is_address(address)) {
        let words =
            format!("`{address}` is not an address. Write it whole, such as https://mcp.example.com/mcp");
        return Err((StatusCode::BAD_REQUEST, words));
    }
    let mut body = match before {
        Some(record) => again::body(record, &entered.message, &addresses),
        None => again::plain(&entered.message, &addresses),
    };
    if let Some(record) =
        before.filter(|record| record.is_callers && matches!(caller.kind, CallerKind::Local))
    {
        // In whose name tools are used. People who sign in have one name alone.
        for field in ["user", "safety_identifier"] {
            body.extend(record.request.get(field).map(|name| (field.to_owned(), name.clone())));
        }
    }
    body.insert("model".into(), entered.model.as_str().into());
    body.insert("store".into(), true.into());
    body.insert("stream".into(), true.into());
    body.insert("stream_options".into(), json!({ "include_usage": true }));
    let tools = body.get("tools").and_then(Value::as_array).cloned().unwrap_or_default();
    let invalid = |error: InvalidField| (StatusCode::BAD_REQUEST, for_people(error, &tools));
    let request = ChatRequest::parse(Value::Object(body).to_string().into()).map_err(invalid)?;
    let (headers, engine) = (HeaderMap::new(), &site.engine);
    let options = match before {
        Some(record) => again::options(record, site.run.max_turns_cap).ok_or_else(|| {
            let words = "The limits of that run cannot be read any more. Start from an empty form.";
            (StatusCode::CONFLICT, words.to_owned())
        })?,
        None => Options::read(&request, &headers, &site.run).map_err(invalid)?,
    };
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
        visibility: options.visibility,
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
        repeat: None,
        keep: Some(keep),
    };
    match engine.start(incoming).await {
        Ok(started) => match started.created().await {
            // Its page is there from now on.
            Ok(()) => Ok(started.run_id),
            Err(error) => Err(refusal(&error)),
        },
        Err(Error::Invalid(error)) => Err(invalid(error)),
        Err(Error::Ended(error)) => Err(refusal(&error)),
    }
}

/// Why a run was not started, for people.
fn refusal(error: &RunError) -> (StatusCode, String) {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_GATEWAY);
    if error.error.get("code").is_some_and(|code| code == "store_unavailable") {
        let message =
            "The gateway cannot keep results right now. Nothing was started; try again in a moment.";
        return (status, message.to_owned());
    }
    let message = error.error.get("message").and_then(Value::as_str).unwrap_or("It could not be started.");
    (status, capital(message))
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
    let Entered { message, model, servers, from } = entered.clean();
    let model = if model.is_empty() { models.first().cloned().unwrap_or_default() } else { model };
    let base = format!("{}/v1", site.public_url);
    let asked = if message.is_empty() { EXAMPLE } else { &message };
    let addresses: Vec<String> = servers.split_whitespace().map(str::to_owned).collect();
    let page = StartPage {
        frame: site.frame(visitor),
        other_model: Some(model.clone()).filter(|model| !models.contains(model)).unwrap_or_default(),
        samples: Samples::stored(&base, &model, asked, &addresses, site.local),
        models,
        model,
        message,
        servers,
        base,
        local: site.local,
        can_start,
        can_sign_in: site.can_sign_in(),
        from,
        problem: problem.map(|problem| text::one_line(&problem, PROBLEM_CHARACTERS)),
    };
    let mut response = site.page(visitor, status, &page);
    frame::allow_script(&mut response);
    response
}

/// Whether it is the address of something on the web, as far as can be seen.
fn is_address(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}

/// What is wrong with a request, with a server's address where programs are told its place.
fn for_people(error: InvalidField, tools: &[Value]) -> String {
    let place = error
        .param
        .as_deref()
        .and_then(|param| param.strip_prefix("tools[")?.split(']').next()?.parse().ok());
    let tool = place.and_then(|place: usize| tools.get(place));
    let address = tool.and_then(|tool| tool.get("server_url").or(tool.get("url")).and_then(Value::as_str));
    match (error.param, address) {
        (Some(param), Some(address)) => error.message.replace(&format!("`{param}`"), &format!("`{address}`")),
        _ => error.message,
    }
}

/// Messages for programs begin small.
fn capital(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}", characters.as_str())
}
