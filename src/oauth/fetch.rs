//! One small exchange with a server that nobody vouches for: no redirects, little time, few bytes.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, DATE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::egress::{self, Body, Egress, Reach};

/// Largest answer, in bytes.
pub(super) const MAX_BYTES: usize = 256 << 10;
/// Time for one exchange, the body included.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// A whole answer.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Egress(#[from] egress::Error),
    #[error("{host} sent more than {} KiB", MAX_BYTES >> 10)]
    TooLarge { host: String },
    #[error("{host} broke off its answer")]
    Cut { host: String },
    #[error("{host}: {reason}")]
    Compressed { host: String, reason: egress::UnknownCoding },
    #[error("{host} took more than {} s", PATIENCE.as_secs())]
    Slow { host: String },
}

impl Failure {
    /// Whether the server may have acted on the request.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Failure::Egress(error) => !error.is_before_sending(),
            Failure::TooLarge { .. }
            | Failure::Cut { .. }
            | Failure::Compressed { .. }
            | Failure::Slow { .. } => true,
        }
    }

    /// Whether asking again could end otherwise.
    pub fn is_temporary(&self) -> bool {
        match self {
            Failure::Egress(egress::Error::Refused(_) | egress::Error::Settings(_)) => false,
            Failure::Egress(_) | Failure::Cut { .. } | Failure::Slow { .. } => true,
            Failure::TooLarge { .. } | Failure::Compressed { .. } => false,
        }
    }
}

impl Answer {
    /// The media type, in lower case and without parameters.
    pub fn media_type(&self) -> String {
        let value = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// The pause that the server asks for (RFC 9110 §10.2.3); a date is counted from the server's own.
    pub fn retry_after(&self) -> Option<Duration> {
        let text = |name| self.headers.get(name).and_then(|value| value.to_str().ok());
        let asked = text(RETRY_AFTER)?.trim();
        let pause = match asked.parse() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => {
                let until = httpdate::parse_http_date(asked).ok()?;
                let now = httpdate::parse_http_date(text(DATE)?).ok()?;
                until.duration_since(now).unwrap_or_default()
            }
        };
        Some(pause.min(LONGEST_PAUSE))
    }
}

/// Asks for a document.
pub(super) async fn get(egress: &Egress, reach: Reach, uri: &Uri) -> Result<Answer, Failure> {
    send(egress, reach, request("GET", uri, None), egress::full("")).await
}

/// Sends a body of this media type.
pub(super) async fn post(
    egress: &Egress,
    reach: Reach,
    uri: &Uri,
    media_type: &'static str,
    authorization: Option<HeaderValue>,
    body: String,
) -> Result<Answer, Failure> {
    let mut head = request("POST", uri, Some(media_type));
    if let Some(value) = authorization {
        head.headers_mut().insert(http::header::AUTHORIZATION, value);
    }
    send(egress, reach, head, egress::full(body)).await
}

fn request(method: &'static str, uri: &Uri, media_type: Option<&'static str>) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = method.parse().expect("a known method");
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    // GitHub answers in a form unless asked for JSON, and refuses clients without a name.
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("toolgate/", env!("CARGO_PKG_VERSION"))));
    if let Some(media_type) = media_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
    request
}

async fn send(egress: &Egress, reach: Reach, head: Request<()>, body: Body) -> Result<Answer, Failure> {
    let host = head.uri().host().unwrap_or_default().to_owned();
    let exchange = async {
        let response = egress.send(reach, head.map(|()| body), PATIENCE).await?;
        let response =
            egress::decoded(response).map_err(|reason| Failure::Compressed { host: host.clone(), reason })?;
        let (parts, body) = response.into_parts();
        let body = match Limited::new(body, MAX_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(Failure::TooLarge { host: host.clone() });
            }
            Err(_) => return Err(Failure::Cut { host: host.clone() }),
        };
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(answered) => answered,
        Err(_) => Err(Failure::Slow { host: host.clone() }),
    }
}
