//! Errors: `{"error":"…"}` with the status that fits.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::http::header::{CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::journal::DiskError;
use crate::queue::Refused;

/// When to try again after a 503, in seconds.
const TRY_AGAIN: HeaderValue = HeaderValue::from_static("5");

#[derive(Debug)]
pub struct HttpError {
    pub status: StatusCode,
    /// What is wrong, where, and what is accepted.
    pub error: String,
}

/// An extension of an error's response: what its body says.
#[derive(Clone, Debug)]
pub struct Reason(pub String);

impl HttpError {
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into() }
    }

    pub fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    pub fn unavailable(error: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}

impl From<Refused> for HttpError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full { .. }
            | Refused::FullOfBytes { .. }
            | Refused::Disk(_)
            | Refused::Draining => Self::unavailable(refused.to_string()),
            Refused::TooMany { .. } => Self::bad_request(refused.to_string()),
            Refused::KeyReused { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, refused.to_string())
            }
        }
    }
}

impl From<DiskError> for HttpError {
    fn from(error: DiskError) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl From<QueryRejection> for HttpError {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, Json(json!({"error": self.error}))).into_response();
        response.extensions_mut().insert(Reason(self.error));
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, TRY_AGAIN);
            }
            // The rest of the request is not read, so nothing can follow it.
            StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

/// axum adds `Allow`.
pub async fn method_not_allowed() -> HttpError {
    HttpError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method not allowed on this path; see the Allow header",
    )
}
