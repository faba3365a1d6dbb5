//! What happens to every request before and after its handler: an id, a look at where it comes from, a count.

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use tokio::time::Instant;
use tower_service::Service;

use super::connection::{Exchange, ExchangeState};
use super::host::check_host;
use super::lent::{Back, Lent};
use super::router;
use crate::api::{self, ApiError, App};
use crate::completion::is_run_id;
use crate::id::random_id;
use crate::identity::{self, Peer};
use crate::openai::{ErrorBody, ErrorKind};
use crate::telemetry::{Endpoint, Metrics, OpenStream, PanicSite, catch_panic, note_panic};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers requests; one per process, cloned for every connection.
#[derive(Clone)]
pub struct Front {
    app: Arc<App>,
    router: Router,
    ids: Arc<RequestIds>,
    local: bool,
    /// Who is at the other end of the connection.
    peer: Option<IpAddr>,
    /// What the connection is at.
    state: Arc<ExchangeState>,
}

impl Front {
    /// In front of `router`. `local` refuses what a web page could make a browser send to this machine, and what a
    /// proxy sends on.
    pub fn new(app: Arc<App>, router: Router, local: bool) -> Self {
        let ids = RequestIds { prefix: format!("{}_", random_id("req_")), count: AtomicU64::new(0) };
        Front { app, router, ids: Arc::new(ids), local, peer: None, state: Arc::default() }
    }

    /// For a connection from `peer`, whose state is told to `state`.
    pub fn facing(&self, peer: IpAddr, state: Arc<ExchangeState>) -> Self {
        Front { peer: Some(peer), state, ..self.clone() }
    }

    /// Answers one request.
    ///
    /// # Errors
    /// Never.
    pub async fn answer(mut self, request: Request<Incoming>) -> Result<Response<Tracked>, Infallible> {
        let started = Instant::now();
        self.state.begin(request.version());
        let id = self.ids.of(request.headers());
        let endpoint = endpoint(request.uri());
        let (mut head, body) = request.into_parts();
        let may_be_taken_off = !head.headers.contains_key(header::EXPECT);
        let (body, lent) = lend(body);
        let checked = check(&mut head, self.local).and_then(|()| self.count_by_address(&head.headers));
        let mut response = match checked {
            Ok(()) => self.answer_or_500(Request::from_parts(head, body), &id).await,
            Err(refused) => {
                drop(body);
                refused.into_response()
            }
        };
        let status = response.status();
        if let Some(lent) = lent
            && lent.is_left_unread(may_be_taken_off && !status.is_success()).await
        {
            // With the rest of a request on it, a connection cannot be used again.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            self.state.leave_unread();
        }
        response.headers_mut().insert(REQUEST_ID, id.clone());
        self.app.metrics.request(endpoint, status.as_u16(), started.elapsed());
        if status.is_server_error() {
            tracing::warn!(
                http.status = status.as_u16(),
                milliseconds = started.elapsed().as_millis() as u64,
                "a request failed"
            );
        }
        let streamed = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let guard = streamed.then(|| self.app.metrics.open_stream());
        let exchange = Arc::clone(&self.state).send(streamed);
        let metrics = Arc::clone(&self.app.metrics);
        Ok(response.map(|body| Tracked { body, metrics, id, _open: guard, _exchange: exchange }))
    }
}

impl Front {
    /// Counts the requests that come from one address with a provider's own key: anybody can make up any number of them.
    fn count_by_address(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let most = self.app.settings.rate_limit.requests_per_minute_per_address;
        if self.local || most == 0 || !identity::has_provider_key(headers) {
            return Ok(());
        }
        match self.peer.and_then(|peer| Peer(peer).place(headers)) {
            Some(place) => Ok(self.app.rate_limit.check(&format!("address {place}").into(), most)?),
            None => Ok(()),
        }
    }

    /// The router's answer, or a 500 that names the request when a defect of ours kept it from answering.
    async fn answer_or_500(&mut self, request: Request<Body>, id: &HeaderValue) -> Response {
        let metrics = Arc::clone(&self.app.metrics);
        let name = id.to_str().unwrap_or_default();
        let answer = catch_panic(&*metrics, PanicSite::Request, name, self.route(request)).await;
        answer.unwrap_or_else(|| defect(name))
    }

    /// The router's answer. Chat completions are what this program is for: they go to their handler directly, which
    /// spares them the router's clones and boxes.
    async fn route(&mut self, mut request: Request<Body>) -> Response {
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(Peer(peer));
        }
        if router::is_chat_completion(request.method(), request.uri()) {
            let app = State(Arc::clone(&self.app));
            return api::create_chat_completion(app, request).await.into_response();
        }
        match Box::pin(self.router.call(request)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// The answer to a request that ended in a panic.
fn defect(request_id: &str) -> Response {
    let message = format!(
        "toolgate failed on this request because of a defect; please report it with the id {request_id}"
    );
    let body = ErrorBody::new(ErrorKind::Server, Some("internal_error"), message);
    let body = body.with("request_id", request_id.into());
    ApiError::from_body(StatusCode::INTERNAL_SERVER_ERROR, body).into_response()
}

/// Whether a request is one that is answered here at all. Its `Host` is afterwards whom it is truly addressed to.
fn check(head: &mut Parts, local: bool) -> Result<(), ApiError> {
    let refused = |code, message: &str| {
        ApiError::new(StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, Some(code), message)
    };
    if let Some(host) = check_host(head).map_err(|reason| refused("bad_host_header", reason))? {
        head.headers.insert(header::HOST, host);
    }
    if let Some(reason) = local.then(|| why_not_here(head)).flatten() {
        return Err(ApiError::new(StatusCode::FORBIDDEN, ErrorKind::Permission, Some("not_local"), reason));
    }
    if !is_decodable(&head.uri) {
        return Err(refused("bad_path", "the path is not UTF-8 once its `%` escapes are decoded"));
    }
    Ok(())
}

/// Whether a path can be read as text, as far as it is ours: behind a provider's host it is passed on as it is.
fn is_decodable(uri: &Uri) -> bool {
    let path = uri.path();
    if !path.contains('%') {
        return true;
    }
    let ours = match api::split_provider_path(uri) {
        Some((host, _)) => host,
        None => path,
    };
    percent_decode_str(ours).decode_utf8().is_ok()
}

/// The body, and where it comes back to when nobody reads it to its end.
fn lend(body: Incoming) -> (Body, Option<Back>) {
    if body.is_end_stream() {
        return (Body::empty(), None);
    }
    let back = Back::default();
    (Body::new(Lent::new(body, back.clone())), Some(back))
}

/// A response body that counts as open until it has ended or was dropped.
pub struct Tracked {
    body: Body,
    metrics: Arc<Metrics>,
    id: HeaderValue,
    _open: Option<OpenStream>,
    _exchange: Exchange,
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = AssertUnwindSafe(|| Pin::new(&mut self.body).poll_frame(context));
        catch_unwind(polled).unwrap_or_else(|_| {
            note_panic(&self.metrics, PanicSite::Answer, self.id.to_str().unwrap_or_default());
            // The client sees that the answer is not whole.
            self.body = Body::empty();
            Poll::Ready(Some(Err(axum::Error::new("the answer broke off because of a defect of toolgate"))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Makes request ids: random for the process, then counted. They name requests in logs and open nothing.
struct RequestIds {
    prefix: String,
    count: AtomicU64,
}

impl RequestIds {
    /// The caller's own id where it is usable, else a new one.
    fn of(&self, headers: &HeaderMap) -> HeaderValue {
        let usable = |value: &&HeaderValue| {
            (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        match headers.get(REQUEST_ID).filter(usable) {
            Some(given) => given.clone(),
            None => {
                let id = format!("{}{:x}", self.prefix, self.count.fetch_add(1, Ordering::Relaxed));
                HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("req"))
            }
        }
    }
}

/// Tasks, runs, their results and pages, and stored completions.
fn is_about_runs(path: &str) -> bool {
    let beginnings = ["/v1/tasks", "/v1/runs", "/v1/chat/completions/", "/run_", "/runs"];
    path == "/" || beginnings.iter().any(|beginning| path.starts_with(beginning))
}

fn endpoint(uri: &Uri) -> Endpoint {
    match uri.path() {
        "/v1/chat/completions" | "/chat/completions" => Endpoint::Completions,
        path if path.starts_with("/run_") && path.ends_with("/chat/completions") => Endpoint::Completions,
        path if path.starts_with("/demo/") || path.starts_with("/.well-known/") => Endpoint::Other,
        path if path.ends_with("/chat/completions") => Endpoint::HostCompletions,
        path if path.ends_with("/models") => Endpoint::Models,
        "/healthz" | "/readyz" | "/metrics" => Endpoint::Other,
        path if is_about_runs(path) => Endpoint::Runs,
        _ => Endpoint::Relay,
    }
}

/// Why local mode does not answer a request, if it does not.
fn why_not_here(head: &Parts) -> Option<String> {
    let headers = &head.headers;
    if let Some(trace) = headers.keys().find(|name| is_trace_of_proxy(name)) {
        return Some(format!(
            "local mode serves this machine only and asks nobody for a key, and `{trace}` says that a proxy has sent \
             this request on; to serve others set `public_url` to the proxy's https address, or configure `[[api_keys]]`"
        ));
    }
    let welcome = is_welcome_here(&head.method, head.uri.path(), headers);
    (!welcome).then(|| {
        "in local mode, requests must be addressed to this machine and not come from a web page elsewhere"
            .to_owned()
    })
}

/// What proxies add by which they can be told. Not all add any: nginx, unless told to, does not.
fn is_trace_of_proxy(name: &HeaderName) -> bool {
    *name == header::FORWARDED
        || *name == header::VIA
        || name.as_str() == "x-real-ip"
        || name.as_str().starts_with("x-forwarded-")
}

/// Whether the request names this machine (else a foreign name was rebound to it) and comes from no foreign page,
/// unless it is a person who followed a link to one of our own pages: those change nothing when they are looked at.
fn is_welcome_here(method: &Method, path: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let origin = headers.get(header::ORIGIN).map(|value| value.to_str().unwrap_or("null"));
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let origin_is_ours = match origin {
        // What our own pages send, since they give no referrer.
        Some("null") => site == Some(b"same-origin"),
        Some(origin) => origin.split_once("://").is_some_and(|(_, host)| names_loopback(host)),
        None => true,
    };
    let follows_a_link = matches!(*method, Method::GET | Method::HEAD)
        && is_page(path)
        && headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate")
        && headers.get("sec-fetch-dest").is_some_and(|dest| dest == "document");
    host.is_none_or(names_loopback) && origin_is_ours && (site != Some(b"cross-site") || follows_a_link)
}

/// Pages that others link to, or send people back to.
fn is_page(path: &str) -> bool {
    path.starts_with("/connect/")
        || path.starts_with("/login/")
        || matches!(
            path,
            "/" | "/runs"
                | "/oauth/callback"
                | "/connections"
                | "/account"
                | "/login"
                | "/demo/oauth/authorize"
        )
        || path.strip_prefix('/').is_some_and(is_run_id)
}

fn names_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<http::uri::Authority>() else { return false };
    let host = authority.host().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_that_panics_breaks_off_and_is_counted() {
        use futures_util::stream;
        use http_body_util::BodyExt;

        let metrics = Arc::new(Metrics::default());
        let mut pieces = ["one"].into_iter();
        let body = stream::poll_fn(move |_| {
            let piece: &'static str = pieces.next().expect("for a test");
            Poll::Ready(Some(Ok::<_, Infallible>(Bytes::from(piece))))
        });
        let id = HeaderValue::from_static("req_1");
        let _exchange = Arc::new(ExchangeState::default()).send(false);
        let (body, counted) = (Body::from_stream(body), Arc::clone(&metrics));
        let mut tracked = Tracked { body, metrics: counted, id, _open: None, _exchange };
        assert_eq!(tracked.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        assert!(tracked.frame().await.unwrap().is_err(), "not a whole answer");
        assert!(tracked.frame().await.is_none());
        assert!(metrics.encode().contains("toolgate_panics_total{site=\"answer\"} 1"));
    }

    #[tokio::test]
    async fn the_answer_to_a_panic_names_the_request() {
        use http_body_util::BodyExt;

        let response = defect("req_7");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["code"], "internal_error");
        assert_eq!(body["error"]["request_id"], "req_7");
    }

    fn from(pairs: &[(&'static str, &'static str)]) -> bool {
        let headers = pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        is_welcome_here(&Method::POST, "/v1/chat/completions", &headers)
    }

    #[test]
    fn a_web_page_elsewhere_cannot_use_the_local_gateway() {
        assert!(from(&[("host", "127.0.0.1:8787")]));
        assert!(from(&[("host", "localhost:8787"), ("origin", "http://localhost:3000")]));
        assert!(from(&[("host", "[::1]:8787")]));
        assert!(!from(&[("host", "evil.example:8787")]), "a rebound name");
        assert!(!from(&[("host", "127.0.0.1:8787"), ("origin", "https://evil.example")]));
        assert!(!from(&[("host", "127.0.0.1:8787"), ("origin", "null")]));
        assert!(!from(&[("host", "127.0.0.1:8787"), ("sec-fetch-site", "cross-site")]));
        assert!(!from(&[("host", "127.0.0.1.evil.example")]));
    }

    #[test]
    fn a_link_from_elsewhere_leads_to_our_pages_and_to_nothing_else() {
        let visit = |method: Method, path: &str, host: &'static str, dest: &'static str| {
            let pairs = [
                ("host", host),
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", dest),
            ];
            let pairs = pairs.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            is_welcome_here(&method, path, &pairs.into_iter().collect())
        };
        let here = "127.0.0.1:8787";
        assert!(visit(Method::GET, "/connect/flw_1", here, "document"));
        assert!(visit(Method::GET, "/oauth/callback", here, "document"), "the way back");
        let run = "/run_0123456789abcdefghjkmnpqrs";
        assert!(visit(Method::GET, "/", here, "document") && visit(Method::GET, run, here, "document"));
        assert!(!visit(Method::GET, &format!("{run}/live"), here, "empty"));
        assert!(!visit(Method::POST, "/", here, "document") && !visit(Method::POST, run, here, "document"));
        assert!(!visit(Method::GET, run, here, "iframe"));
        assert!(!visit(Method::POST, "/connect/flw_1", here, "document"), "a foreign form");
        assert!(!visit(Method::GET, "/connect/flw_1", here, "iframe"));
        assert!(!visit(Method::GET, "/connect/flw_1", here, "image"));
        assert!(!visit(Method::GET, "/v1/models", here, "document"));
        assert!(!visit(Method::GET, "/metrics", here, "document"));
        assert!(!visit(Method::GET, "/connect/flw_1", "evil.example", "document"));
        assert!(
            from(&[("host", here), ("origin", "null"), ("sec-fetch-site", "same-origin")]),
            "our own form"
        );
        assert!(!from(&[("host", here), ("origin", "null"), ("sec-fetch-site", "same-site")]));
    }
}
