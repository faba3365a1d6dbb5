//! Every outcome of a feature, as a status and OpenAI's error envelope.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::bounds::LimitReached;
use crate::completion::{
    self, OtherUser,
    event::{LoginHeaders, RunError},
};
use crate::config::KeyScope;
use crate::connections::FlowError;
use crate::memory_budget::{self, MemoryExhausted};
use crate::openai::{ErrorBody, ErrorKind, InvalidField};
use crate::upstream::{self, SelectError};
use crate::{connections, identity, rate_limit};

pub(super) const RUN_ID: HeaderName = HeaderName::from_static("x-run-id");
pub(super) const RESULT_URL: HeaderName = HeaderName::from_static("x-result-url");
/// Makes the OpenAI SDKs give up.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const LOGIN_URL: HeaderName = HeaderName::from_static("x-login-url");

/// An error answer.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    error: Value,
    retry_after: Option<Box<str>>,
    authenticate: Option<&'static str>,
    /// What few errors have.
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    login: Option<LoginHeaders>,
    /// Tools were called: clients must not repeat the request by themselves.
    is_after_tools: bool,
    /// The kept run that failed, and where its result is.
    run: Option<(String, String)>,
}

impl ApiError {
    /// An error of the gateway's own.
    pub fn new(status: StatusCode, kind: ErrorKind, code: Option<&str>, message: impl Into<String>) -> Self {
        Self::from_body(status, ErrorBody::new(kind, code, message))
    }

    /// Whether there is no memory for the answer now.
    pub fn is_memory_exhausted(&self) -> bool {
        self.error["code"] == "memory_exhausted"
    }

    /// The caller's key is not for this (RFC 6750 §3.1).
    pub fn scope_missing(scope: KeyScope) -> Self {
        let message = format!("this key is not for that: it lacks the scope `{}`", identity::word_of(scope));
        let challenge = Some(r#"Bearer realm="toolgate", error="insufficient_scope""#);
        let error =
            Self::new(StatusCode::FORBIDDEN, ErrorKind::Permission, Some("insufficient_scope"), message);
        ApiError { authenticate: challenge, ..error }
    }

    /// Too much of something, which may be sent again later.
    fn too_many(after: rate_limit::RetryAfterSeconds, message: String) -> Self {
        let code = Some("rate_limit_exceeded");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorKind::RateLimit, code, message);
        ApiError { retry_after: Some(after.0.to_string().into()), ..error }
    }

    /// An error with more than the usual four fields.
    pub fn from_body(status: StatusCode, body: ErrorBody) -> Self {
        ApiError { status, error: body.into_value(), retry_after: None, authenticate: None, more: None }
    }

    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The value of `error` in the answer.
    pub(super) fn error(&self) -> &Value {
        &self.error
    }

    /// The words of the answer.
    pub(super) fn message(&self) -> &str {
        self.error.get("message").and_then(Value::as_str).unwrap_or("the gateway cannot say what failed")
    }

    /// The error of this run; one that is kept can be looked at afterwards.
    #[must_use]
    pub fn of_run(self, run_id: &str, result_url: Option<&str>) -> Self {
        let mut more = self.more.unwrap_or_default();
        more.run = result_url.map(|url| (run_id.to_owned(), url.to_owned()));
        ApiError { more: Some(more), ..self }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.error }).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        // SDKs repeat every 429; this one needs something to be deleted first.
        let is_full = self.error["code"] == "limit_reached"
            && self.error["param"].as_str().is_some_and(|param| param.starts_with("stored_"));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(value) = self.retry_after.and_then(|text| HeaderValue::try_from(&*text).ok()) {
            headers.insert(header::RETRY_AFTER, value);
        }
        if let Some(challenge) = self.authenticate {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        let More { login, is_after_tools, run } = self.more.map(|more| *more).unwrap_or_default();
        if is_after_tools || is_full {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        let login_url = login.and_then(|login| login.login_url);
        if let Some(url) = login_url.and_then(|url| HeaderValue::try_from(url).ok()) {
            headers.insert(LOGIN_URL, url);
        }
        if let Some((run_id, result_url)) = run {
            for (name, value) in [(RUN_ID, run_id), (RESULT_URL, result_url)] {
                headers.extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
            }
        }
        response
    }
}

impl From<InvalidField> for ApiError {
    fn from(error: InvalidField) -> Self {
        let mut body = ErrorBody::new(ErrorKind::InvalidRequest, Some("invalid_request"), error.message);
        if let Some(param) = error.param {
            body = body.param(param);
        }
        Self::from_body(StatusCode::BAD_REQUEST, body)
    }
}

impl From<SelectError> for ApiError {
    fn from(error: SelectError) -> Self {
        let message = error.to_string();
        let (status, kind, code, param) = match error {
            SelectError::UnknownModel { .. } => {
                (StatusCode::NOT_FOUND, ErrorKind::InvalidRequest, "model_not_found", Some("model"))
            }
            SelectError::NoKey { .. } => {
                (StatusCode::UNAUTHORIZED, ErrorKind::Authentication, "no_provider_key", None)
            }
            SelectError::BadHost(_) => (StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, "bad_host", None),
        };
        let body = ErrorBody::new(kind, Some(code), message);
        Self::from_body(status, if let Some(param) = param { body.param(param) } else { body })
    }
}

impl From<RunError> for ApiError {
    fn from(error: RunError) -> Self {
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let is_after_tools = error.is_after_tools();
        let RunError { error, retry_after, login, .. } = error;
        let challenge = r#"Bearer realm="toolgate", error="authentication_required""#;
        let authenticate = login.is_some().then_some(challenge);
        let has_more = is_after_tools || login.is_some();
        let login = login.map(|login| *login);
        let more = has_more.then(|| Box::new(More { login, is_after_tools, run: None }));
        ApiError { status, error, retry_after: retry_after.map(Into::into), authenticate, more }
    }
}

impl From<upstream::Error> for ApiError {
    fn from(error: upstream::Error) -> Self {
        completion::unreachable(&error).into()
    }
}

impl From<completion::Error> for ApiError {
    fn from(error: completion::Error) -> Self {
        match error {
            completion::Error::Invalid(field) => field.into(),
            completion::Error::Ended(error) => error.into(),
        }
    }
}

impl From<OtherUser> for ApiError {
    fn from(error: OtherUser) -> Self {
        let body = ErrorBody::new(ErrorKind::Permission, Some("user_mismatch"), error.to_string());
        Self::from_body(StatusCode::FORBIDDEN, body.param("user"))
    }
}

impl From<connections::Error> for ApiError {
    fn from(error: connections::Error) -> Self {
        tracing::error!(%error, "connections cannot be read or written");
        let message = "logins cannot be looked up right now; try again";
        let code = Some("connections_unavailable");
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Server, code, message);
        ApiError { retry_after: Some("5".into()), ..error }
    }
}

impl From<identity::Error> for ApiError {
    fn from(error: identity::Error) -> Self {
        let challenge = Some(r#"Bearer realm="toolgate""#);
        let error = Self::new(
            StatusCode::UNAUTHORIZED,
            ErrorKind::Authentication,
            Some("invalid_api_key"),
            error.to_string(),
        );
        ApiError { authenticate: challenge, ..error }
    }
}

impl From<FlowError> for ApiError {
    fn from(error: FlowError) -> Self {
        let message = error.to_string();
        let (status, kind, code) = match error {
            FlowError::Store(error) => return error.into(),
            FlowError::Busy(after) => return Self::too_many(after, message),
            FlowError::NotNeeded(_) | FlowError::NotOffered(_) => {
                (StatusCode::NOT_FOUND, ErrorKind::InvalidRequest, "login_not_offered")
            }
            FlowError::Unusable(_) => (StatusCode::BAD_GATEWAY, ErrorKind::Upstream, "login_unusable"),
            FlowError::TooMany => (StatusCode::TOO_MANY_REQUESTS, ErrorKind::RateLimit, "too_many_logins"),
            FlowError::UserMismatch => (StatusCode::CONFLICT, ErrorKind::InvalidRequest, "user_mismatch"),
            FlowError::Unknown => (StatusCode::NOT_FOUND, ErrorKind::InvalidRequest, "flow_not_found"),
        };
        Self::new(status, kind, Some(code), message)
    }
}

impl From<LimitReached> for ApiError {
    fn from(reached: LimitReached) -> Self {
        completion::limit_reached(reached).into()
    }
}

impl From<rate_limit::RetryAfterSeconds> for ApiError {
    fn from(after: rate_limit::RetryAfterSeconds) -> Self {
        Self::too_many(after, after.to_string())
    }
}

impl From<MemoryExhausted> for ApiError {
    fn from(error: MemoryExhausted) -> Self {
        let (status, code) = (StatusCode::SERVICE_UNAVAILABLE, Some("memory_exhausted"));
        let retry_after = Some(memory_budget::RETRY_AFTER_SECONDS.to_string().into());
        let error = Self::new(status, ErrorKind::Server, code, error.to_string());
        ApiError { retry_after, ..error }
    }
}

/// A run that ended without saying how: a defect of ours.
pub(super) fn vanished_run() -> RunError {
    let error = ErrorBody::new(ErrorKind::Server, None, "the run ended unexpectedly; please report this");
    RunError { status: 500, error: error.into_value(), retry_after: None, login: None }
}

/// A run that goes on in another process.
pub(super) fn moved(result_url: &str) -> RunError {
    let message =
        format!("the gateway is being restarted; the run goes on, and its result will be at {result_url}");
    let error = ErrorBody::new(ErrorKind::Server, Some("run_moved"), message).with("url", result_url.into());
    RunError { status: 503, error: error.into_value(), retry_after: None, login: None }
}
