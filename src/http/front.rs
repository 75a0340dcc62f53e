//! What the front's routes share: the parts behind it, who may use it, and the wait for a decision.

use std::sync::Arc;

use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::Instant;

use super::body::Budget;
use super::error::HttpError;
use super::metrics::HttpMetrics;
use super::refusals::Refusals;
use super::repeats::Repeats;
use super::secret::{Secrets, bearer};
use crate::calls::Calls;
use crate::delivery::trace::{ProcessId, VIA_HEADER};
use crate::listener::ListenAddress;
use crate::queue::Queue;
use crate::queue::metrics::RoutingAnswer;
use crate::queue::slot::Slot;
use crate::routing::{Decision, StsUrl};

/// `HTTP_*`.
#[derive(Clone, Debug)]
pub struct FrontSettings {
    pub listen: ListenAddress,
    /// `HTTP_SECRET`: required by `POST /call` and `POST /events`, where it is set.
    pub secrets: Secrets,
}

/// What is kept of requests, and for how many there is room.
#[derive(Default)]
pub struct Requests {
    pub bodies: Budget,
    pub repeats: Repeats,
    pub refusals: Refusals,
}

pub struct Front {
    pub queue: Queue,
    pub calls: Arc<Calls>,
    /// `STS_URL`.
    pub fallback: Option<StsUrl>,
    /// `HTTP_SECRET`.
    pub secrets: Secrets,
    /// By which an event that callhook sent itself is known.
    pub process: ProcessId,
    pub requests: Requests,
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

    /// Whether any route answers this request.
    ///
    /// # Errors
    /// 403 for a web page's: one that somebody on this network looks at could hand in events. 508 for what this very
    /// process sent, whichever route it comes to: an event in a circle would count as delivered, and reach nobody.
    pub fn admit(&self, headers: &HeaderMap) -> Result<(), HttpError> {
        if headers.contains_key(ORIGIN) {
            return Err(HttpError::new(
                StatusCode::FORBIDDEN,
                "a request with an Origin header is a web page's, and the front answers none",
            ));
        }
        let via = headers.get(VIA_HEADER).and_then(|via| via.to_str().ok());
        if via.is_some_and(|via| self.process.is_in(via)) {
            return Err(HttpError::new(
                StatusCode::LOOP_DETECTED,
                "this callhook sent that event itself: its WEBHOOK_URL leads back to it, directly or through other \
                 callhooks; set WEBHOOK_URL to the receiver",
            ));
        }
        Ok(())
    }

    /// Whether the sender knows `HTTP_SECRET`, where it is set.
    ///
    /// # Errors
    /// 401 if not.
    pub fn authorise(&self, headers: &HeaderMap) -> Result<(), HttpError> {
        if !self.secrets.are_set() {
            return Ok(());
        }
        let own = headers.get("x-avr-webhook-secret").map(HeaderValue::as_bytes);
        if [own, bearer(headers)].into_iter().flatten().any(|given| self.secrets.accept(given)) {
            return Ok(());
        }
        Err(HttpError::new(
            StatusCode::UNAUTHORIZED,
            "send HTTP_SECRET as X-AVR-WEBHOOK-SECRET or Authorization: Bearer",
        ))
    }
}
