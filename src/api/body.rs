//! Reading request bodies.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::ApiError;
use crate::openai::{ChatRequest, ErrorKind, InvalidField};

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
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => Err(too_long()),
        Err(_) => Err(InvalidField { param: None, message: "the body broke off".into() }.into()),
    }
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
