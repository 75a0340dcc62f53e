//! `callhook health`: ask the running one whether it lives, for containers without a shell.

use std::time::Duration;

use reqwest::StatusCode;

use crate::http::FrontSettings;
use crate::text::innermost;
use crate::wire::client_builder;

/// How long the answer may take; container runtimes give up after some seconds themselves.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why the running callhook does not count as alive.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// There is no port to ask.
    #[error("HTTP_PORT=0 takes a free port, so it cannot be known which; set HTTP_PORT")]
    UnknownPort,
    /// Nobody answered in time.
    #[error("GET {url}: nobody answers ({cause})")]
    NoAnswer {
        /// What was asked.
        url: String,
        /// The innermost reason.
        cause: String,
    },
    /// Something else than a healthy callhook answered.
    #[error("GET {url} was answered {status}")]
    Unhealthy {
        /// What was asked.
        url: String,
        /// The answer.
        status: StatusCode,
    },
}

/// Asks `GET /health` of the front.
///
/// # Errors
/// Where nobody answers 200 in time, or where the port is not known.
pub async fn ask(front: &FrontSettings) -> Result<(), HealthError> {
    if front.listen.port == 0 {
        return Err(HealthError::UnknownPort);
    }
    let url = format!("http://{}/health", front.listen.reachable());
    let answer = async { client_builder("http").timeout(PATIENCE).build()?.get(&url).send().await };
    match answer.await {
        Ok(response) if response.status().is_success() => Ok(()),
        Ok(response) => Err(HealthError::Unhealthy { url, status: response.status() }),
        Err(error) => Err(HealthError::NoAnswer { url, cause: innermost(&error) }),
    }
}
