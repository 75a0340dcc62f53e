//! `callhook health`: asks the running callhook for its health, for containers without a shell.

use std::time::Duration;

use reqwest::Method;

use super::client::{Client, ClientError};
use crate::http::FrontSettings;

/// Container runtimes give up after some seconds themselves.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks `GET /health` of the front.
///
/// # Errors
/// Where the port is not known, or does not answer 2xx in time.
pub async fn ask(front: &FrontSettings) -> Result<(), ClientError> {
    let client = Client::new("HTTP", &front.listen, PATIENCE)?;
    client.send(Method::GET, &["health"], &[]).await?;
    Ok(())
}
