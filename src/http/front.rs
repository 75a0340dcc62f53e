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
use super::secret::{Secrets, basic_passwords, bearer};
use crate::calls::Calls;
use crate::delivery::trace::{ProcessId, VIA_HEADER};
use crate::history::History;
use crate::listener::ListenAddress;
use crate::queue::Queue;
use crate::queue::metrics::RoutingAnswer;
use crate::queue::slot::Slot;
use crate::routing::destination::Destinations;
use crate::routing::{Decision, StsUrl};

/// `HTTP_*`.
#[derive(Clone, Debug)]
pub struct FrontSettings {
    pub listen: ListenAddress,
    /// `HTTP_SECRET`: required by `POST /call` and `POST /events`, where it is set.
    pub secrets: Secrets,
    /// `AGENT_SECRET`: opens the agent's routes, beside the other.
    pub agent_secrets: Secrets,
    /// `TRANSFER_TO`: where an agent may send a caller.
    pub transfer_to: Destinations,
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
    /// Where it is remembered what agents asked.
    pub history: History,
    /// `STS_URL`.
    pub fallback: Option<StsUrl>,
    /// `HTTP_SECRET`.
    pub secrets: Secrets,
    /// `AGENT_SECRET`.
    pub agent_secrets: Secrets,
    /// `TRANSFER_TO`.
    pub transfer_to: Destinations,
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
        if sent_secrets(headers).any(|given| self.secrets.accept(given)) {
            return Ok(());
        }
        Err(HttpError::new(
            StatusCode::UNAUTHORIZED,
            "send HTTP_SECRET as X-AVR-WEBHOOK-SECRET or Authorization: Bearer",
        ))
    }

    /// Whether the sender knows `AGENT_SECRET` or `HTTP_SECRET`, where either is set. AVR's tools send no header of
    /// their own, so it may also be the password of their URL.
    ///
    /// # Errors
    /// 401 if not.
    pub fn authorise_agent(&self, headers: &HeaderMap) -> Result<(), HttpError> {
        let accepting = [&self.secrets, &self.agent_secrets];
        if !accepting.iter().any(|secrets| secrets.are_set()) {
            return Ok(());
        }
        let passwords = basic_passwords(headers);
        let mut given = sent_secrets(headers).chain(passwords.iter().map(Vec::as_slice));
        if given.any(|given| accepting.iter().any(|secrets| secrets.accept(given))) {
            return Ok(());
        }
        Err(HttpError::new(
            StatusCode::UNAUTHORIZED,
            "the secret is wrong or missing, which only the operator can mend: send AGENT_SECRET or HTTP_SECRET as the \
             password in AMI_URL (http://avr:SECRET@callhook:6001), as X-AVR-WEBHOOK-SECRET or Authorization: Bearer",
        ))
    }
}

/// The secrets in a request's headers.
fn sent_secrets(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let own = headers.get("x-avr-webhook-secret").map(HeaderValue::as_bytes);
    own.into_iter().chain(bearer(headers))
}
