//! `GET /call/{uuid}/next`: a dialplan asks where to send its caller.
//!
//! Invariant: the body is a destination, `context,exten,1`, or nothing, whatever the status: the dialplan sees no
//! status, and hands the text to `Goto()`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tracing::info;

use super::call::unknown;
use super::error::HttpError;
use super::front::Front;
use crate::event::CallId;

pub async fn next(
    State(front): State<Arc<Front>>,
    Path(uuid): Path<String>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    front.authorise(&headers)?;
    let call: CallId = uuid.parse().map_err(|_| unknown(&uuid))?;
    let Some(next) = front.calls.next_of(call).await.ok_or_else(|| unknown(&uuid))? else {
        return Ok(String::new().into_response());
    };
    info!(uuid = %call, %next, "the dialplan is told where to send the caller");
    Ok(next.to_string().into_response())
}

/// The answer, without a body unless it is a destination.
pub fn shaped(mut answer: Response) -> Response {
    if answer.status() != StatusCode::OK {
        answer.headers_mut().remove(CONTENT_LENGTH);
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        *answer.body_mut() = Body::empty();
    }
    answer
}
