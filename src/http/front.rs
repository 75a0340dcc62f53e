//! What the front's routes share: the parts behind it, who may use it, and how a decision is waited for.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use secrecy::SecretString;
use tokio::time::Instant;

use super::body::Budget;
use super::fault::Fault;
use super::metrics::HttpMetrics;
use super::secret::{bearer, is_same_secret};
use crate::calls::Calls;
use crate::listener::ListenAddress;
use crate::queue::Queue;
use crate::queue::metrics::RoutingAnswer;
use crate::queue::slot::Slot;
use crate::routing::{Decision, NoDecision, StsUrl};

/// The front (`HTTP_*`).
#[derive(Clone, Debug)]
pub struct FrontSettings {
    /// Where it listens.
    pub listen: ListenAddress,
    /// What `POST /call` and `POST /events` must bring.
    pub secret: Option<SecretString>,
}

/// What the routes need.
pub struct Front {
    /// Where events go.
    pub queue: Queue,
    /// Which calls were announced.
    pub calls: Arc<Calls>,
    /// `STS_URL`.
    pub fallback: Option<StsUrl>,
    /// `HTTP_SECRET`.
    pub secret: Option<SecretString>,
    /// Memory for request bodies.
    pub bodies: Budget,
    /// Where requests and routing are counted.
    pub metrics: Arc<HttpMetrics>,
}

impl Front {
    /// Waits for a decision, as long as there may be one.
    pub async fn decision_of(&self, slot: &Slot) -> Option<Arc<Decision>> {
        let begun = Instant::now();
        let decision = slot.wait().await;
        self.metrics.routing.seconds.observe(begun.elapsed().as_secs_f64());
        self.metrics.routing.answers.count(RoutingAnswer(slot.no_decision()));
        decision
    }

    /// Nobody decides where a call goes whose `call_initiated` was not taken.
    pub fn no_decision(&self) {
        self.metrics.routing.seconds.observe(0.0);
        self.metrics.routing.answers.count(RoutingAnswer(Some(NoDecision::Refused)));
    }

    /// Whether the sender knows `HTTP_SECRET`, if there is one.
    ///
    /// # Errors
    /// 401 if not.
    pub fn authorise(&self, headers: &HeaderMap) -> Result<(), Fault> {
        let Some(secret) = &self.secret else {
            return Ok(());
        };
        let own = headers.get("x-avr-webhook-secret").map(HeaderValue::as_bytes);
        if [own, bearer(headers)].into_iter().flatten().any(|given| is_same_secret(given, secret)) {
            return Ok(());
        }
        Err(Fault::new(
            StatusCode::UNAUTHORIZED,
            "send HTTP_SECRET as X-AVR-WEBHOOK-SECRET or Authorization: Bearer".to_owned(),
        ))
    }
}
