//! Calling a provider.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::budget::RetryBudget;
use super::{Error, Target};
use crate::config;
use crate::egress::{self, Body, Egress};
use crate::telemetry::Metrics;

/// The client for all providers. Cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    egress: Egress,
    settings: Arc<config::Upstream>,
    budget: Arc<RetryBudget>,
    metrics: Arc<Metrics>,
}

impl Upstream {
    /// A client that sends through `egress`, within `settings`.
    pub fn new(egress: Egress, settings: &config::Upstream, metrics: Arc<Metrics>) -> Self {
        let budget = Arc::new(RetryBudget::new(settings.retry_budget_percent));
        Upstream { egress, settings: Arc::new(settings.clone()), budget, metrics }
    }

    /// How long a stream may be silent.
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.settings.idle_seconds)
    }

    /// How long a list of models is kept.
    pub(super) fn model_list_age(&self) -> Duration {
        Duration::from_secs(self.settings.model_list_seconds)
    }

    /// Posts a JSON body to `path` of the target. Tries again when no connection came about, and on 429 and 5xx,
    /// while the budget lasts; the answer of the last try is given whatever its status. `headers` are forwarded;
    /// the target's credential is added here and nowhere else.
    ///
    /// # Errors
    /// [`Error`] when there is no answer at all.
    pub async fn post(
        &self,
        target: &Target,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, Error> {
        let mut headers = headers;
        // Requests that began on a page of ours, or in another process, bring no headers of their own.
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        self.budget.deposit();
        let mut attempt = 0;
        loop {
            let sent =
                self.send(target, Method::POST, path, headers.clone(), egress::full(body.clone())).await;
            let wait = match &sent {
                Ok(response) if is_worth_retrying(response.status()) => {
                    pause(attempt, retry_after(response.headers()))
                }
                Err(egress::Error::Connect { .. }) => pause(attempt, None),
                _ => None,
            };
            match wait {
                Some(wait) if attempt < self.settings.max_retries && self.budget.withdraw() => {
                    attempt += 1;
                    self.metrics.retry(&target.provider.name);
                    tracing::info!(provider = %target.provider.name, attempt, wait_milliseconds = wait.as_millis() as u64, "trying the provider again");
                    tokio::time::sleep(wait).await;
                }
                _ => return sent.map_err(|error| Error::from_egress(&target.provider.name, error)),
            }
        }
    }

    /// Sends one request as it is, with no second try.
    ///
    /// # Errors
    /// [`Error`] when there is no answer.
    pub async fn forward(
        &self,
        target: &Target,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Response<Incoming>, Error> {
        self.send(target, method, path, headers, body)
            .await
            .map_err(|error| Error::from_egress(&target.provider.name, error))
    }

    async fn send(
        &self,
        target: &Target,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Response<Incoming>, egress::Error> {
        let uri = target.provider.endpoint(path).map_err(|_| egress::Refusal::Malformed(path.to_owned()))?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        if let Some(credential) = &target.credential {
            request.headers_mut().insert(header::AUTHORIZATION, credential.clone());
        }
        let started = Instant::now();
        let sent = self
            .egress
            .send(target.provider.reach, request, Duration::from_secs(self.settings.first_byte_seconds))
            .await;
        // Only hosts that answer are counted: a request can name any number of others.
        if sent.is_ok() {
            self.metrics.provider(&target.provider.name).first_byte(started.elapsed());
        }
        sent
    }
}

fn is_worth_retrying(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}

/// `Retry-After` in its form of seconds (RFC 9110 §10.2.3); a date is taken as "later than we wait".
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    Some(value.trim().parse().map_or(Duration::MAX, Duration::from_secs))
}

/// How long to wait before the next try: what the provider asks for if that is short, else not at all (`None`);
/// without its word 0.25 s, 0.5 s, 1 s …, less up to half at random.
fn pause(attempt: u32, asked: Option<Duration>) -> Option<Duration> {
    const LONGEST: Duration = Duration::from_secs(5);
    match asked {
        Some(wait) => (wait <= LONGEST).then_some(wait),
        None => {
            let mut random = [0u8; 1];
            getrandom::fill(&mut random).ok()?;
            let full = Duration::from_millis(250 << attempt.min(4)).min(LONGEST);
            Some(full.mul_f64(1.0 - f64::from(random[0]) / 512.0))
        }
    }
}
