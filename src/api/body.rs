//! Reading request bodies.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::ApiError;
use crate::openai::{ChatRequest, ErrorKind, InvalidField};

/// How long a client may be silent in the middle of its body.
const SILENCE: Duration = Duration::from_secs(60);

/// The whole body, at most `limit` bytes.
///
/// # Errors
/// 413 when it is longer, 400 when it breaks off.
pub async fn read(body: Body, headers: &HeaderMap, limit: usize) -> Result<Bytes, ApiError> {
    let too_long = || {
        let message = format!("the body is larger than {limit} bytes (`limits.body_bytes`)");
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::InvalidRequest,
            Some("body_too_large"),
            message,
        )
    };
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit) {
        return Err(too_long());
    }
    let mut body = Limited::new(body, limit);
    let mut whole = BytesMut::new();
    let mut last = Bytes::new();
    loop {
        let frame =
            tokio::time::timeout(SILENCE, body.frame()).await.map_err(|_| broke_off("stopped coming"))?;
        match frame {
            None => break,
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                // Most bodies come in one piece, which is not copied.
                if !last.is_empty() {
                    whole.extend_from_slice(&last);
                }
                last = data;
            }
            Some(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => return Err(too_long()),
            Some(Err(_)) => return Err(broke_off("broke off")),
        }
    }
    if whole.is_empty() {
        return Ok(last);
    }
    whole.extend_from_slice(&last);
    Ok(whole.freeze())
}

fn broke_off(how: &str) -> ApiError {
    InvalidField { param: None, message: format!("the body {how}") }.into()
}

/// The body as a JSON object.
///
/// # Errors
/// 400, 413.
pub async fn read_request(body: Body, headers: &HeaderMap, limit: usize) -> Result<ChatRequest, ApiError> {
    let encoding = headers.get(header::CONTENT_ENCODING).filter(|value| *value != "identity");
    if encoding.is_some() {
        return Err(InvalidField {
            param: None,
            message: "compressed bodies are not accepted; send plain JSON".into(),
        }
        .into());
    }
    Ok(ChatRequest::parse(read(body, headers, limit).await?)?)
}
