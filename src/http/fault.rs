//! Refusals: `{"error":"…"}` with the status that fits.

use axum::Json;
use axum::http::header::{CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::journal::DiskError;
use crate::queue::Refused;

/// When a sender should try again after there was no room or no disk, in seconds.
const TRY_AGAIN: HeaderValue = HeaderValue::from_static("5");

/// Why a request is refused: `{"error":"…"}`.
#[derive(Debug)]
pub struct Fault {
    /// The HTTP status.
    pub status: StatusCode,
    /// What is wrong, where, and what is accepted.
    pub error: String,
}

impl Fault {
    /// A refusal with this status.
    pub fn new(status: StatusCode, error: String) -> Self {
        Self { status, error }
    }

    /// 400.
    pub fn bad_request(error: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        let status = match refused {
            Refused::Full { .. } | Refused::Disk(_) | Refused::Draining => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Refused::TooMany { .. } => StatusCode::BAD_REQUEST,
        };
        Self::new(status, refused.to_string())
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, Json(json!({"error": self.error}))).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, TRY_AGAIN);
            }
            // What is left of the request is not read, so nothing can follow it.
            StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

impl From<DiskError> for Fault {
    fn from(fault: DiskError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, fault.to_string())
    }
}

/// The answer to a method that a path does not take; axum adds `Allow`.
pub async fn method_not_allowed() -> Fault {
    Fault::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path takes another method; see the Allow header".to_owned(),
    )
}
