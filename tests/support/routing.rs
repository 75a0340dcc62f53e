//! Where calls are routed to: a service with a fallback, and what `POST /call` says.

use serde_json::{Value, json};

use super::service::{self, Service};

/// Where a call goes that the receiver has not decided on.
pub const FALLBACK: &str = "ws://fallback.test:6030/sts";

/// A service that delivers to this URL and has the fallback.
pub async fn serve(url: &str, vars: &[(&str, &str)]) -> Service {
    service::serve(url, &[&[("STS_URL", FALLBACK)], vars].concat()).await
}

pub fn routed(sts_url: &str) -> Value {
    json!({ "sts_url": sts_url, "override": true })
}

pub fn fallback() -> Value {
    json!({ "sts_url": FALLBACK, "override": false })
}
