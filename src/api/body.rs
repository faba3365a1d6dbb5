//! Reading request bodies: within a size, a time, and a share of the gateway's memory.
//!
//! A body that comes whole with its head pays for none of this. Any other one is counted as it arrives, not as it is
//! announced, and stays counted for as long as somebody holds its bytes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{HeaderMap, StatusCode, header};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::Instant;

use super::{ApiError, App};
use crate::config::Limits;
use crate::identity::{Caller, CallerKind};
use crate::memory_budget::MemoryReservation;
use crate::openai::{ChatRequest, ErrorBody, ErrorKind, InvalidField};

/// How long a client may be silent in the middle of its body.
const SILENCE: Duration = Duration::from_secs(60);
/// Once so much of a body has come, room is made for all that is announced.
const BELIEVED_BYTES: usize = 1 << 20;

/// Bytes of bodies that are held now for callers whose key costs nothing, by the address they call from. Cheap to clone.
#[derive(Clone, Default)]
pub struct BodyShares(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// What one body takes of its address's share, given back when dropped.
struct BodyShare {
    shares: BodyShares,
    address: IpAddr,
    most: usize,
    held: usize,
}

impl BodyShare {
    fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        let mut shares = self.shares.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = shares.entry(self.address).or_default();
        if held.saturating_add(bytes) > self.most {
            if *held == 0 {
                shares.remove(&self.address);
            }
            let message = format!(
                "requests from your network address hold {} bytes, as many as they may \
                 (`limits.body_bytes_per_address`); wait until one ends",
                self.most
            );
            let body = ErrorBody::new(ErrorKind::RateLimit, Some("limit_reached"), message);
            return Err(ApiError::from_body(
                StatusCode::TOO_MANY_REQUESTS,
                body.param("body_bytes_per_address"),
            ));
        }
        *held += bytes;
        self.held += bytes;
        Ok(())
    }
}

impl Drop for BodyShare {
    fn drop(&mut self) {
        let mut shares = self.shares.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = shares.get_mut(&self.address) {
            *held = held.saturating_sub(self.held);
            if *held == 0 {
                shares.remove(&self.address);
            }
        }
    }
}

/// The bytes of a body, and what counts them.
struct CountedBody {
    bytes: BytesMut,
    memory: MemoryReservation,
    share: Option<BodyShare>,
}

impl AsRef<[u8]> for CountedBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl CountedBody {
    fn new(app: &App, caller: Option<&Caller>) -> Self {
        let most = app.settings.limits.body_bytes_per_address;
        let address = caller
            .filter(|caller| most > 0 && caller.kind == CallerKind::PassThrough)
            .and_then(|caller| caller.place);
        let shares = &app.body_shares;
        CountedBody {
            bytes: BytesMut::new(),
            memory: app.memory_budget.reserve(),
            share: address.map(|address| BodyShare { shares: shares.clone(), address, most, held: 0 }),
        }
    }

    /// Takes one more piece, once there is room for it.
    async fn take(&mut self, piece: &[u8], announced: Option<usize>) -> Result<(), ApiError> {
        if let Some(share) = &mut self.share {
            share.grow(piece.len())?;
        }
        if !self.memory.can_ever_hold(piece.len()) {
            return Err(never_fits());
        }
        self.memory.grow(piece.len()).await?;
        let length = self.bytes.len();
        if let Some(announced) = announced.filter(|announced| length >= BELIEVED_BYTES && *announced > length)
        {
            // Does nothing when the room is there. Untouched, it takes no memory.
            self.bytes.reserve(announced - length);
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }
}

/// The whole body of a request of `caller`, at most `limit` bytes.
///
/// # Errors
/// 413 when it is longer, 408 when it comes too slowly, 400 when it breaks off; 429 and 503 when there is no room for it.
pub async fn read(
    app: &App,
    caller: Option<&Caller>,
    body: Body,
    headers: &HeaderMap,
    limit: usize,
) -> Result<Bytes, ApiError> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_long(limit));
    }
    let mut body = Limited::new(body, limit);
    let first = match body.frame().now_or_never() {
        None => Bytes::new(),
        Some(None) => return Ok(Bytes::new()),
        Some(Some(frame)) => frame.map_err(|error| broken(error, limit))?.into_data().unwrap_or_default(),
    };
    if body.is_end_stream() {
        return Ok(first);
    }
    // Boxed, so that the usual way stays small.
    Box::pin(read_slowly(app, caller, body, first, announced, limit)).await
}

async fn read_slowly(
    app: &App,
    caller: Option<&Caller>,
    mut body: Limited<Body>,
    mut piece: Bytes,
    announced: Option<usize>,
    limit: usize,
) -> Result<Bytes, ApiError> {
    let mut counted = CountedBody::new(app, caller);
    let mut began = Instant::now();
    loop {
        let waiting = Instant::now();
        counted.take(&piece, announced).await?;
        // The client cannot help that it had to wait.
        began += waiting.elapsed();
        let deadline = began + time_for(&app.settings.limits, counted.bytes.len());
        let until = deadline.min(Instant::now() + SILENCE);
        let frame = tokio::time::timeout_at(until, body.frame()).await.map_err(|_| too_slow())?;
        piece = match frame {
            None => break,
            Some(frame) => frame.map_err(|error| broken(error, limit))?.into_data().unwrap_or_default(),
        };
        // Many clients send the head by itself, and the body whole after it.
        if counted.bytes.is_empty() && body.is_end_stream() {
            return Ok(piece);
        }
    }
    Ok(Bytes::from_owner(counted))
}

/// How long a body may have taken of which so much is there.
fn time_for(limits: &Limits, bytes: usize) -> Duration {
    let rate = limits.body_bytes_per_second.max(1);
    Duration::from_secs(limits.body_seconds) + Duration::from_secs(bytes as u64 / rate)
}

fn too_long(limit: usize) -> ApiError {
    let message = format!("the body is larger than {limit} bytes (`limits.body_bytes`)");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorKind::InvalidRequest, Some("body_too_large"), message)
}

fn never_fits() -> ApiError {
    let message =
        "the body is larger than one request may be in the gateway's memory (`limits.memory_bytes`)";
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorKind::InvalidRequest, Some("body_too_large"), message)
}

fn too_slow() -> ApiError {
    let message =
        "the body came too slowly (`limits.body_seconds`, `limits.body_bytes_per_second`); send it again";
    ApiError::new(StatusCode::REQUEST_TIMEOUT, ErrorKind::InvalidRequest, Some("body_too_slow"), message)
}

fn broken(error: Box<dyn std::error::Error + Send + Sync>, limit: usize) -> ApiError {
    if error.downcast_ref::<LengthLimitError>().is_some() {
        return too_long(limit);
    }
    InvalidField { param: None, message: "the body broke off".to_owned() }.into()
}

/// The body of a request of `caller` as a JSON object.
///
/// # Errors
/// As [`read`], and 400 when it is none.
pub async fn read_request(
    app: &App,
    caller: Option<&Caller>,
    body: Body,
    headers: &HeaderMap,
    limit: usize,
) -> Result<ChatRequest, ApiError> {
    let encoding = headers.get(header::CONTENT_ENCODING).filter(|value| *value != "identity");
    if encoding.is_some() {
        return Err(InvalidField {
            param: None,
            message: "compressed bodies are not accepted; send plain JSON".into(),
        }
        .into());
    }
    Ok(ChatRequest::parse(read(app, caller, body, headers, limit).await?)?)
}
