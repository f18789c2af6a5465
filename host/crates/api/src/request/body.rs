//! Bodies: their size and their pace are bounded while they stream, whatever the caller announced.

use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use futures::{Stream, StreamExt as _};
use tokio::time::Instant;

use crate::error::{ApiError, Code};
use crate::state::BodyLimits;

/// Why a body was cut off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// Too many bytes.
    #[error("the body is over the limit of {limit} bytes")]
    TooLarge { limit: u64 },
    /// Too few bytes in too much time.
    #[error("the body came too slowly")]
    TooSlow,
    /// The connection broke.
    #[error("the body broke off")]
    Broken(#[source] axum::Error),
}

impl BodyError {
    pub(crate) fn to_api(&self) -> ApiError {
        let code = match self {
            Self::TooLarge { .. } => Code::BodyTooLarge,
            Self::TooSlow => Code::RequestTimeout,
            Self::Broken(_) => Code::BodyIncomplete,
        };
        ApiError::new(code, self.to_string())
    }
}

/// The bytes of a body.
pub(crate) type PacedBody = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

/// The body under the limits. An announced length over the limit is refused before anything is read.
pub(crate) fn paced(headers: &HeaderMap, body: Body, limit: u64, limits: &BodyLimits) -> Result<PacedBody, ApiError> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    if announced
        .and_then(|text| text.parse().ok())
        .is_some_and(|length: u64| length > limit)
    {
        return Err(BodyError::TooLarge { limit }.to_api());
    }
    let start = Instant::now();
    let (grace, rate) = (limits.body_grace, limits.min_rate.max(1));
    let state = Some((body.into_data_stream(), 0_u64));
    let stream = futures::stream::unfold(state, move |state| async move {
        let (mut body, received) = state?;
        // The deadline moves on with every byte: a trickle does not hold the connection for long.
        let deadline = start + grace + Duration::from_millis(received.saturating_mul(1_000) / rate);
        let error = match tokio::time::timeout_at(deadline, body.next()).await {
            Err(_) => BodyError::TooSlow,
            Ok(None) => return None,
            Ok(Some(Err(error))) => BodyError::Broken(error),
            Ok(Some(Ok(bytes))) => {
                let received = received.saturating_add(bytes.len() as u64);
                if received <= limit {
                    return Some((Ok(bytes), Some((body, received))));
                }
                BodyError::TooLarge { limit }
            }
        };
        Some((Err(error), None))
    });
    Ok(Box::pin(stream))
}

/// Reads a whole body into memory.
pub(crate) async fn read_all(
    headers: &HeaderMap,
    body: Body,
    limit: u64,
    limits: &BodyLimits,
) -> Result<Vec<u8>, ApiError> {
    let mut stream = paced(headers, body, limit, limits)?;
    let mut bytes = Vec::new();
    while let Some(part) = stream.next().await {
        bytes.extend_from_slice(&part.map_err(|error| error.to_api())?);
    }
    Ok(bytes)
}

/// Reads a whole text.
pub(crate) async fn read_text(headers: &HeaderMap, body: Body, limits: &BodyLimits) -> Result<String, ApiError> {
    let bytes = read_all(headers, body, limits.json_bytes, limits).await?;
    String::from_utf8(bytes).map_err(|_| {
        let problem = super::value::violation(
            vec!["body".into()],
            "string_unicode",
            "the body is not UTF-8",
            serde_json::Value::Null,
        );
        ApiError::violations(vec![problem])
    })
}

/// Answers 415 unless the content type is one of these (without parameters).
pub(crate) fn content_type(headers: &HeaderMap, allowed: &[&str]) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(essence)) {
        return Ok(());
    }
    Err(ApiError::new(
        Code::UnsupportedMediaType,
        format!("the content type of the body must be {}", allowed.join(" or ")),
    ))
}
