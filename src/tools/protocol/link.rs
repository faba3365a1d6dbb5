//! One HTTP exchange with a server: sending, following redirects, telling answers from rejections.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, LOCATION, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::deadline::Deadline;
use super::message::{self, Message, RpcError, code, parse, speaks_of_session};
use super::peer::Peer;
use super::reading::Messages;

use crate::egress::{self, DecodedBody, Egress, Reach};
use crate::memory_budget::MemoryBudget;
use crate::tools::{Challenge, Error};

/// The session's name (MCP 2025-11-25, session management).
pub(crate) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub(crate) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// What is read of an answer that says no.
const REJECTION_BYTES: usize = 64 << 10;

/// The way to servers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) egress: Egress,
    /// Largest answer, and largest event of a stream.
    pub(crate) limit: usize,
    /// Counts what is being read.
    pub(crate) memory: MemoryBudget,
}

/// What came back.
pub(crate) enum Answer {
    /// Messages to be read, and the session they open, if they do.
    Messages(Box<Messages>, Option<HeaderValue>),
    /// Taken, with nothing to read.
    Accepted,
    Rejected(Rejection),
}

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(crate) struct Rejection {
    pub(crate) status: StatusCode,
    pub(crate) rpc: Option<RpcError>,
    /// The text speaks of a session.
    pub(crate) about_session: bool,
    /// Set for a 401 or 403 to a request in a session that may be meant for the session alone.
    pub(crate) challenge: Option<Challenge>,
}

impl Link {
    /// Posts one message.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] for a 401 or 403 that is about the credential; what kept the request from being answered.
    pub(crate) async fn post(
        &self,
        peer: &Peer,
        uri: &Uri,
        mut headers: HeaderMap,
        body: Bytes,
        deadline: &Deadline,
    ) -> Result<Answer, Error> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        let in_session = headers.contains_key(SESSION);
        let response = self.send(Method::POST, peer, uri, headers, body, deadline).await?;
        self.sort(response, in_session, deadline).await
    }

    /// Opens an event stream.
    ///
    /// # Errors
    /// As [`Link::post`].
    pub(crate) async fn get(
        &self,
        peer: &Peer,
        uri: &Uri,
        mut headers: HeaderMap,
        deadline: &Deadline,
    ) -> Result<Answer, Error> {
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        let response = self.send(Method::GET, peer, uri, headers, Bytes::new(), deadline).await?;
        let in_session = false;
        self.sort(response, in_session, deadline).await
    }

    /// Sends one request and follows its redirects; what belongs to the user stays at the origin it is for.
    ///
    /// # Errors
    /// What kept the request from being answered.
    pub(crate) async fn send(
        &self,
        method: Method,
        peer: &Peer,
        uri: &Uri,
        mut headers: HeaderMap,
        body: Bytes,
        deadline: &Deadline,
    ) -> Result<Response<Incoming>, Error> {
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("toolgate/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in &peer.headers {
            headers.insert(name.clone(), value.clone());
        }
        let (mut parts, ()) = Request::new(()).into_parts();
        (parts.method, parts.uri, parts.headers) = (method, uri.clone(), headers);
        let covered = |uri: &Uri| peer.covers(uri);
        let sent = self.egress.send_following(Reach::Requested, parts, body, deadline.left(), &covered);
        match deadline.within(sent).await? {
            Ok((response, _)) => Ok(response),
            Err(error) => Err(from_egress(error, deadline)),
        }
    }

    async fn sort(
        &self,
        response: Response<Incoming>,
        in_session: bool,
        deadline: &Deadline,
    ) -> Result<Answer, Error> {
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            let challenge = Challenge::read(status.as_u16(), response.headers());
            // Without a challenge it may be a restarted server's way to say that it does not know the session.
            if in_session && !response.headers().contains_key(WWW_AUTHENTICATE) {
                let body = match egress::decoded(response) {
                    Ok(response) => deadline.within(read_little(response.into_body())).await?,
                    Err(_) => Bytes::new(),
                };
                let about_session = speaks_of_session(&body);
                if about_session || status == StatusCode::UNAUTHORIZED {
                    let challenge = Some(challenge);
                    return Ok(Answer::Rejected(Rejection { status, rpc: None, about_session, challenge }));
                }
            }
            return Err(Error::Unauthorized(challenge));
        }
        if status == StatusCode::ACCEPTED || status == StatusCode::NO_CONTENT {
            return Ok(Answer::Accepted);
        }
        let response = egress::decoded(response).map_err(|reason| Error::Protocol(reason.to_string()))?;
        if status.is_redirection() {
            let target = response.headers().get(LOCATION).and_then(|target| target.to_str().ok());
            let target = message::harmless(target.unwrap_or("nowhere"));
            return Err(Error::Protocol(format!("it redirects to {target}; use that address")));
        }
        if status.is_success() {
            let session = response.headers().get(SESSION).cloned();
            if let Some(messages) = Messages::new(response, self.limit, self.memory.reserve())? {
                return Ok(Answer::Messages(Box::new(messages), session));
            }
            return Ok(Answer::Rejected(Rejection {
                status,
                rpc: None,
                about_session: false,
                challenge: None,
            }));
        }
        let body = deadline.within(read_little(response.into_body())).await?;
        let rpc = parse(&body).ok().and_then(|messages| {
            messages.into_iter().find_map(|message| match message {
                Message::Response { outcome: Err(rpc), .. } => Some(rpc),
                _ => None,
            })
        });
        let about_session = speaks_of_session(&body);
        Ok(Answer::Rejected(Rejection { status, rpc, about_session, challenge: None }))
    }
}

/// The beginning of a body that is only looked into for a reason.
async fn read_little(mut body: DecodedBody) -> Bytes {
    let mut read = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        read.extend_from_slice(&data[..data.len().min(REJECTION_BYTES - read.len())]);
        if read.len() == REJECTION_BYTES {
            break;
        }
    }
    read.into()
}

fn from_egress(error: egress::Error, deadline: &Deadline) -> Error {
    let maybe_ran = !error.is_before_sending();
    match error {
        egress::Error::Refused(refusal) => Error::Refused(refusal),
        egress::Error::Timeout { .. } if deadline.left().is_zero() => deadline.error(),
        egress::Error::Timeout { after, .. } => Error::Timeout { after },
        other => Error::Unreachable { reason: other.to_string(), maybe_ran },
    }
}

impl Rejection {
    /// Whether a server of unknown era, asked in the modern way, must be of an older one.
    pub(crate) fn means_legacy(&self) -> bool {
        if let Some(rpc) = &self.rpc {
            return match rpc.code {
                code::HEADER_MISMATCH | code::MISSING_CAPABILITY => false,
                code::UNSUPPORTED_VERSION => self.legacy_version().is_some(),
                _ => !self.is_passing(),
            };
        }
        !self.is_passing()
    }

    /// Whether it says that the session is unknown, and nothing else.
    pub(crate) fn names_session(&self) -> bool {
        self.challenge.is_none() && (self.status == StatusCode::NOT_FOUND || self.about_session)
    }

    /// Whether a server may no longer be of the era it was taken for. A request answered so was not carried out:
    /// the status refuses it, or the error says that there is no such method or no session for it.
    pub(crate) fn doubts_the_era(&self) -> bool {
        let refused = matches!(self.status.as_u16(), 400 | 404 | 405 | 406 | 410 | 415 | 422 | 426);
        match &self.rpc {
            None => refused,
            Some(rpc) => match rpc.code {
                code::METHOD_NOT_FOUND => true,
                code::UNSUPPORTED_VERSION | code::INVALID_REQUEST => refused,
                code if code::SERVER.contains(&code) => refused || self.about_session,
                _ => false,
            },
        }
    }

    /// A JSON-RPC error under a status that says success.
    pub(crate) fn by_rpc(rpc: RpcError) -> Self {
        let about_session = speaks_of_session(rpc.message.as_bytes());
        Rejection { status: StatusCode::OK, rpc: Some(rpc), about_session, challenge: None }
    }

    /// The newest version of the older eras that the server names.
    pub(crate) fn legacy_version(&self) -> Option<&'static str> {
        let supported = self.rpc.as_ref()?.supported_versions();
        super::request::LEGACY_VERSIONS.into_iter().find(|version| supported.iter().any(|s| s == version))
    }

    /// Whether `initialize`, answered so, says that this is a 2024-11-05 server.
    pub(crate) fn means_event_stream(&self) -> bool {
        matches!(self.status.as_u16(), 400 | 404 | 405 | 406 | 415 | 422)
    }

    /// Statuses that speak of the moment or of the request's size, not of the protocol.
    fn is_passing(&self) -> bool {
        matches!(self.status.as_u16(), 402 | 408 | 413 | 414 | 421 | 425 | 429 | 431 | 451 | 502..=599)
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        if let Some(challenge) = rejection.challenge {
            return Error::Unauthorized(challenge);
        }
        match rejection.rpc {
            Some(rpc) => rpc.into_error(),
            None if rejection.status.is_success() => {
                Error::Protocol("it is neither JSON nor an event stream".into())
            }
            None => Error::Status { status: rejection.status.as_u16() },
        }
    }
}

/// What a cut connection means: the request was sent, and what became of it is unknown.
pub(crate) fn cut(reason: impl std::fmt::Display) -> Error {
    Error::Unreachable { reason: message::harmless(&reason.to_string()), maybe_ran: true }
}
