//! The sender: makes a request as callhook's delivery makes an attempt, and keeps what came back, be
//! it a success or not.
//!
//! Limits: waits for an answer for [`CheckSender::patience`], which is longer than `--timeout`, so that a
//! slow receiver fails the one check of time and not every check; reads at most [`MAX_ANSWER`] bytes
//! of a body.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::Request;
use hyper::header::{CONNECTION, HeaderValue};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::exchange::{Answer, Came, Exchange, Sending};
use crate::delivery::answer::MAX_ANSWER;
use crate::delivery::trace::ProcessId;
use crate::delivery::{Webhook, WebhookSettings, failure};
use crate::wire::connections::{self, RequestBody};
use crate::wire::dial::DialError;

/// How much longer than `--timeout` the sender waits.
const GRACE: Duration = Duration::from_secs(5);

/// How long a receiver that broke a connection may take to come back, as one does that its
/// supervisor restarts.
const RETURN: Duration = Duration::from_secs(3);

/// Between two looks for it.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub struct CheckSender {
    webhook: Webhook,
    settings: Arc<WebhookSettings>,
    keeps_alive: bool,
}

impl CheckSender {
    /// Prepares to send; connects to nothing yet.
    pub fn new(settings: WebhookSettings) -> Result<Self, DialError> {
        let webhook = Webhook::new(settings.clone(), None, ProcessId::random())?;
        Ok(Self { webhook, settings: Arc::new(settings), keeps_alive: true })
    }

    /// The same, with a new connection for each request.
    pub fn without_keep_alive(self) -> Self {
        Self { keeps_alive: false, ..self }
    }

    pub fn settings(&self) -> &WebhookSettings {
        &self.settings
    }

    pub fn patience(&self) -> Duration {
        self.settings.timeout + GRACE
    }

    pub async fn send(&self, sending: Sending) -> Exchange {
        let request = self.request(&sending);
        let headers = request.headers().clone();
        let begun = Instant::now();
        let came = timeout(self.patience(), self.ask(request, begun)).await;
        Exchange { sending, headers, came: came.unwrap_or(Came::Silence), took: begun.elapsed() }
    }

    /// Whether the receiver takes connections, now or within [`RETURN`].
    pub async fn finds_receiver(&self) -> bool {
        let begun = Instant::now();
        loop {
            let place = self.settings.host_and_port();
            let connected = timeout(RETURN, TcpStream::connect(place)).await;
            if connected.is_ok_and(|stream| stream.is_ok()) {
                return true;
            }
            if begun.elapsed() >= RETURN {
                return false;
            }
            sleep(LOOK).await;
        }
    }

    fn request(&self, sending: &Sending) -> Request<RequestBody> {
        let mut request = self.webhook.request(&sending.attempt);
        if let Some(alteration) = sending.alteration {
            let keys = self.settings.signing_keys.as_ref();
            alteration.apply(&mut request, &sending.attempt.item.event, keys);
        }
        if !self.keeps_alive {
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        request
    }

    async fn ask(&self, request: Request<RequestBody>, begun: Instant) -> Came {
        let mut answer = match self.webhook.ask(request).await {
            Ok(answer) => answer,
            Err(error) => {
                let failure = failure::of_request(&error, &self.settings, begun.elapsed());
                return Came::Broken { code: failure.code.name(), error: failure.error };
            }
        };
        Came::Answer(Answer {
            connection: answer.local_address(),
            body: beginning_of_body(&mut answer).await,
            status: answer.head.status,
            headers: answer.head.headers,
        })
    }
}

/// The body up to the limit, or up to where it breaks: a success is one whatever its body.
async fn beginning_of_body(answer: &mut connections::WireAnswer) -> Bytes {
    let mut body = BytesMut::new();
    while let Ok(Some(piece)) = answer.piece().await {
        let room = MAX_ANSWER - body.len();
        body.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() >= room {
            break;
        }
    }
    body.freeze()
}
