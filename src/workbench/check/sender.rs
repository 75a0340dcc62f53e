//! The sender: makes a request just as callhook's delivery makes an attempt, and keeps what came
//! back, be it a success or not.
//!
//! Limits: an answer is waited for [`Sender::patience`], which is longer than `--timeout`, so that a
//! slow receiver fails the one check of time and not every check. At most
//! [`MAX_ANSWER`] bytes of a body are read.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use hyper_util::client::legacy::connect::HttpInfo;
use reqwest::Method;
use reqwest::header::{CONNECTION, HeaderValue};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::exchange::{
    Answer, Came, Exchange, OLD, Secret, Sending, Signature, WRONG_SECRET, WRONG_SIGNATURE,
};
use crate::delivery::signature::{SIGNATURE_HEADER, TIMESTAMP_HEADER};
use crate::delivery::{MAX_ANSWER, SECRET_HEADER, Webhook, WebhookSettings, failure};

/// How much longer than `--timeout` an answer is waited for.
const GRACE: Duration = Duration::from_secs(5);

/// How long a receiver that broke a connection may take to come back, as one does that its
/// supervisor restarts.
const RETURN: Duration = Duration::from_secs(3);

/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// Sends to one receiver.
#[derive(Clone)]
pub struct Sender {
    webhook: Webhook,
    settings: Arc<WebhookSettings>,
    /// Whether connections are used again.
    keeps_alive: bool,
}

impl Sender {
    /// Prepares to send; connects to nothing yet.
    ///
    /// # Errors
    /// Where the system's TLS certificates cannot be loaded.
    pub fn new(settings: WebhookSettings) -> Result<Self, reqwest::Error> {
        let webhook = Webhook::new(settings.clone(), None)?;
        Ok(Self { webhook, settings: Arc::new(settings), keeps_alive: true })
    }

    /// The same, with a new connection for each request.
    pub fn without_keep_alive(self) -> Self {
        Self { keeps_alive: false, ..self }
    }

    /// The receiver.
    pub fn settings(&self) -> &WebhookSettings {
        &self.settings
    }

    /// How long an answer is waited for.
    pub fn patience(&self) -> Duration {
        self.settings.timeout + GRACE
    }

    /// Makes one request.
    pub async fn send(&self, sending: Sending) -> Exchange {
        let request = self.request(&sending);
        let headers = request.headers().clone();
        let begun = Instant::now();
        let came = timeout(self.patience(), self.ask(request, begun)).await;
        Exchange { sending, headers, came: came.unwrap_or(Came::Silence), took: begun.elapsed() }
    }

    /// Whether the receiver takes connections, now or within three seconds.
    pub async fn finds_receiver(&self) -> bool {
        let begun = Instant::now();
        loop {
            let place = self.settings.place();
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

    fn request(&self, sending: &Sending) -> reqwest::Request {
        let mut request = self.webhook.request(&sending.attempt);
        if sending.method != Method::POST {
            *request.method_mut() = sending.method.clone();
            *request.body_mut() = None;
        }
        let headers = request.headers_mut();
        match sending.secret {
            Secret::Own => {}
            Secret::Wrong => drop(headers.insert(SECRET_HEADER, fixed(WRONG_SECRET))),
            Secret::Missing => drop(headers.remove(SECRET_HEADER)),
        }
        match (sending.signature, &self.settings.signing_key) {
            (Signature::Own, _) | (_, None) => {}
            (Signature::Wrong, Some(_)) => {
                headers.insert(SIGNATURE_HEADER, fixed(WRONG_SIGNATURE));
            }
            (Signature::Missing, Some(_)) => {
                headers.remove(TIMESTAMP_HEADER);
                headers.remove(SIGNATURE_HEADER);
            }
            (Signature::Old, Some(key)) => {
                let event = &sending.attempt.item.event;
                let signed = key.sign(&event.id.to_string(), SystemTime::now() - OLD, &event.body);
                let signature = HeaderValue::from_str(&signed.signature);
                headers.insert(TIMESTAMP_HEADER, signed.timestamp.into());
                headers.insert(SIGNATURE_HEADER, signature.expect("base64 is visible ASCII"));
            }
        }
        if !self.keeps_alive {
            headers.insert(CONNECTION, fixed("close"));
        }
        request
    }

    async fn ask(&self, request: reqwest::Request, begun: Instant) -> Came {
        let response = match self.webhook.execute(request).await {
            Ok(response) => response,
            Err(error) => {
                let place = self.settings.place();
                let failure = failure::of_request(&error, &place, begun.elapsed());
                return Came::Broken { code: failure.code.name(), error: failure.error };
            }
        };
        let info = response.extensions().get::<HttpInfo>();
        Came::Answer(Answer {
            status: response.status(),
            headers: response.headers().clone(),
            connection: info.map(HttpInfo::local_addr),
            body: begin_of_body(response).await,
        })
    }
}

fn fixed(text: &'static str) -> HeaderValue {
    HeaderValue::from_static(text)
}

/// What there is of the body, up to the limit: a success is one whatever its body, so that what
/// breaks in it is no fault here.
async fn begin_of_body(mut response: reqwest::Response) -> Bytes {
    let mut body = BytesMut::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = MAX_ANSWER - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() >= room {
            break;
        }
    }
    body.freeze()
}
