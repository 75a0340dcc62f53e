//! Delivery: how did one attempt go?
//!
//! Owns the HTTP request to the receiver: headers, signature, deadline, and what the answer says. Leaves to
//! [`crate::wire`] the connections, to [`crate::queue`] when to try, and what a failure means for the event.
//!
//! Invariants and limits:
//! - An attempt ends within its timeout, which covers connecting, sending and reading head and body.
//! - Any 2xx is a success, whatever its body. One that cannot be read costs at worst the routing decision in it,
//!   and the log says so.
//! - Redirects are not followed: a 3xx is a failure.
//! - What is quoted of an answer holds none of the receiver's secrets.

pub mod answer;
pub mod failure;
pub mod headers;
pub mod settings;
pub mod signature;
pub mod trace;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use http_body_util::{Either, Full};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHORIZATION, RETRY_AFTER, USER_AGENT,
};
use hyper::{Method, Request, StatusCode};
use secrecy::ExposeSecret as _;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};
use url::Position;

use self::answer::AnswerBody;
pub use self::headers::{AGENT_HEADER, ATTEMPT_HEADER, SECRET_HEADER, SEQUENCE_HEADER};
pub use self::settings::{WebhookSettings, scheme_and_host, with_json_forms};
use self::trace::ProcessId;
use crate::attempt::{Attempt, Deliver, Failure, Outcome};
use crate::event::EventType;
use crate::wire::basic::authorization;
use crate::wire::connections::{self, AskError, Connections, RequestBody, WireAnswer};
use crate::wire::dial::{DialError, Dialer};
use crate::wire::proxy::Proxy;

/// A longer `Retry-After` counts as this: AVR's sample receiver asks for 900 seconds.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(15 * 60);

const AGENT: &str = concat!("callhook/", env!("CARGO_PKG_VERSION"));

const MASK: &str = "••••••••";

/// The receiver's HTTP client; clones share its connections. Attempts under way keep the client that they began
/// with.
#[derive(Clone)]
pub struct Webhook(Arc<RwLock<Arc<WebhookClient>>>);

struct WebhookClient {
    connections: Connections,
    settings: WebhookSettings,
    secrets: Vec<String>,
    /// With the headers that all attempts share, and no body.
    template: Request<()>,
    agent: Option<HeaderValue>,
    process: ProcessId,
}

/// What an attempt came to.
struct SentAttempt {
    outcome: Outcome,
    /// Why the body of a 2xx cannot be read, so that a decision in it is lost.
    unread: Option<String>,
}

impl Webhook {
    /// Does not connect yet.
    ///
    /// # Errors
    /// If the system's TLS certificates cannot be loaded.
    pub fn new(
        settings: WebhookSettings,
        agent: Option<HeaderValue>,
        process: ProcessId,
    ) -> Result<Self, DialError> {
        let client = WebhookClient::new(settings, agent, process)?;
        Ok(Self(Arc::new(RwLock::new(Arc::new(client)))))
    }

    /// Makes later attempts with these settings, and with the certificates as they are now.
    ///
    /// # Errors
    /// As with [`Self::new`]; then nothing has changed.
    pub fn renew(&self, settings: WebhookSettings) -> Result<(), DialError> {
        let client = self.client();
        let renewed = WebhookClient::new(settings, client.agent.clone(), client.process.clone())?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
        Ok(())
    }

    fn client(&self) -> Arc<WebhookClient> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// If there are keys, signed with the current time. The workbench alters the request before it sends it.
    pub fn request(&self, attempt: &Attempt) -> Request<RequestBody> {
        self.client().request(attempt)
    }

    /// Sends a request that may take as long as an attempt, and judges the answer.
    pub async fn send(&self, request: Request<RequestBody>, timeout: Duration) -> Outcome {
        let copy = connections::copy(&request);
        self.client().send(request, || copy, timeout).await.outcome
    }

    /// Uses the same connections as attempts, but has no time limit.
    ///
    /// # Errors
    /// If no head of an answer arrived.
    pub async fn ask(&self, request: Request<RequestBody>) -> Result<WireAnswer, AskError> {
        let (client, copy) = (self.client(), connections::copy(&request));
        let until = Instant::now() + client.settings.timeout;
        client.connections.ask(request, || copy, until).await
    }
}

/// What all attempts share, and a place for each header that they have of their own: a map that grows is made anew.
fn template(settings: &WebhookSettings) -> Request<()> {
    let url = &settings.url;
    let (host, path) = (
        &url[Position::BeforeHost..Position::AfterPort],
        &url[Position::BeforePath..Position::AfterQuery],
    );
    let forwarding = settings.forwarding_proxy();
    let target = match forwarding {
        Some(_) => format!("http://{host}{path}"),
        None => path.to_owned(),
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target
        .parse()
        .expect("what the URL parser lets through in a path and query is fit for a request");
    let headers = request.headers_mut();
    headers.clone_from(&settings.headers);
    headers.insert(HOST, HeaderValue::try_from(host).expect("a host is visible ASCII"));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    // What is encoded all the same could not be read.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if let Some(authorization) = authorization(url) {
        headers.insert(AUTHORIZATION, authorization);
    }
    if let Some(authorization) = forwarding.and_then(Proxy::authorization) {
        headers.insert(PROXY_AUTHORIZATION, authorization);
    }
    if let Some(secret) = &settings.secret {
        let mut value = HeaderValue::from_str(secret.expose_secret())
            .expect("the settings checked that the secret is a header value");
        value.set_sensitive(true);
        headers.insert(SECRET_HEADER, value);
    }
    let always = [
        ATTEMPT_HEADER,
        SEQUENCE_HEADER,
        signature::ID_HEADER,
        trace::VIA_HEADER,
        trace::TRACE_HEADER,
    ];
    let signed = [signature::TIMESTAMP_HEADER, signature::SIGNATURE_HEADER];
    let signed = signed.into_iter().filter(|_| settings.signing_keys.is_some());
    headers
        .extend(always.into_iter().chain(signed).map(|name| (name, HeaderValue::from_static(""))));
    request
}

impl Deliver for Webhook {
    fn attempt(&self, attempt: Attempt) -> BoxFuture<'static, Outcome> {
        let inner = self.client();
        Box::pin(async move {
            let request = || inner.request(&attempt);
            let sent = inner.send(request(), || Some(request()), attempt.timeout).await;
            log_answer(&attempt, &sent);
            sent.outcome
        })
    }

    fn shown_url(&self) -> String {
        self.client().settings.shown_url()
    }

    fn shown_headers(&self, attempt: &Attempt, at: SystemTime) -> Vec<(String, String)> {
        self.client().shown_headers(attempt, at)
    }
}

/// Says what nobody else knows: a decision that is lost, and what a receiver says of a failure, which may quote the
/// caller.
fn log_answer(attempt: &Attempt, sent: &SentAttempt) {
    let event = &attempt.item.event;
    if let Some(error) = &sent.unread
        && event.kind == EventType::CallInitiated
    {
        warn!(
            uuid = %event.call,
            id = %event.id,
            error,
            "the body of the receiver's answer cannot be read; a routing decision in it is lost"
        );
    }
    if let Outcome::Failed(Failure { answer: Some(answer), status, .. }) = &sent.outcome {
        debug!(uuid = %event.call, id = %event.id, status, answer = &**answer, "what the receiver says of it");
    }
}

impl WebhookClient {
    fn new(
        settings: WebhookSettings,
        agent: Option<HeaderValue>,
        process: ProcessId,
    ) -> Result<Self, DialError> {
        let dialer = Dialer::with(settings.identity.clone(), settings.proxy.clone());
        let destination = dialer.destination(&settings.url)?;
        let (connections, secrets) = (Connections::to(destination), settings.secrets());
        let template = template(&settings);
        Ok(Self { connections, settings, secrets, template, agent, process })
    }

    fn shown_headers(&self, attempt: &Attempt, at: SystemTime) -> Vec<(String, String)> {
        let mut headers = self.template.headers().clone();
        self.put_headers(attempt, &mut headers);
        headers.remove(trace::TRACE_HEADER);
        let traceparent = trace::shown_traceparent(&attempt.item.event);
        let traceparent = traceparent.map(|text| (trace::TRACE_HEADER.to_string(), text));
        if headers.contains_key(signature::TIMESTAMP_HEADER) {
            let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            headers.insert(signature::TIMESTAMP_HEADER, since.as_secs().into());
        }
        let shown = |name: &HeaderName, value: &HeaderValue| {
            let masked = value.is_sensitive()
                || [AUTHORIZATION, SECRET_HEADER, signature::SIGNATURE_HEADER].contains(name);
            if masked { MASK.to_owned() } else { String::from_utf8_lossy(value.as_bytes()).into() }
        };
        let others = headers.iter().map(|(name, value)| (name.to_string(), shown(name, value)));
        others.chain(traceparent).collect()
    }

    /// `again` makes the request anew, if it can be sent more than once.
    async fn send(
        &self,
        request: Request<RequestBody>,
        again: impl FnOnce() -> Option<Request<RequestBody>>,
        timeout: Duration,
    ) -> SentAttempt {
        let begun = Instant::now();
        let deadline = begun + timeout;
        let failed = |failure| SentAttempt { outcome: Outcome::Failed(failure), unread: None };
        let asked = self.connections.ask(request, again, deadline);
        let mut answer = match timeout_at(deadline, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                return failed(failure::of_request(&error, &self.settings, begun.elapsed()));
            }
            Err(_) => return failed(Failure::of_timeout(timeout, begun.elapsed())),
        };
        let body = AnswerBody::read(&mut answer, deadline).await;
        let status = answer.head.status;
        if status.is_success() {
            let (answer, unread) = match body.whole() {
                Ok(answer) => (Some(answer), None),
                Err(unread) => (None, Some(unread)),
            };
            return SentAttempt {
                outcome: Outcome::Delivered { status: status.as_u16(), answer },
                unread,
            };
        }
        let quote = body.quote(&self.secrets);
        let failure = match self.settings.forwarding_proxy() {
            Some(proxy) if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                failure::of_proxy(&proxy.denial(), &self.settings, begun.elapsed())
            }
            Some(_) | None => {
                let retry_after = retry_after(&answer.head.headers);
                Failure::of_status(status.as_u16(), retry_after, begun.elapsed())
            }
        };
        failed(Failure { answer: quote, ..failure })
    }

    fn request(&self, attempt: &Attempt) -> Request<RequestBody> {
        let mut request = Request::new(Either::Left(Full::new(attempt.item.event.body.clone())));
        request.method_mut().clone_from(self.template.method());
        request.uri_mut().clone_from(self.template.uri());
        let headers = request.headers_mut();
        headers.clone_from(self.template.headers());
        self.put_headers(attempt, headers);
        request
    }

    fn put_headers(&self, attempt: &Attempt, headers: &mut HeaderMap) {
        let event = &attempt.item.event;
        headers.insert(ATTEMPT_HEADER, attempt.number().into());
        headers.insert(SEQUENCE_HEADER, attempt.item.sequence.into());
        let own = event.agent().map(|agent| {
            HeaderValue::from_str(agent).expect("an event's agent was a header value")
        });
        if let Some(agent) = own.or_else(|| self.agent.clone()) {
            headers.insert(AGENT_HEADER, agent);
        }
        match trace::traceparent(event) {
            Some(traceparent) => headers.insert(trace::TRACE_HEADER, traceparent),
            None => headers.remove(trace::TRACE_HEADER),
        };
        headers.insert(trace::VIA_HEADER, self.process.via(event));
        let id = event.id.to_string();
        if let Some(keys) = &self.settings.signing_keys {
            let signed = keys.sign(&id, SystemTime::now(), &event.body);
            headers.insert(signature::TIMESTAMP_HEADER, signed.timestamp.into());
            headers.insert(signature::SIGNATURE_HEADER, header(signed.signatures));
        }
        headers.insert(signature::ID_HEADER, header(id));
    }
}

fn header(text: String) -> HeaderValue {
    text.try_into().expect("ids and base64 are visible ASCII")
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    parse_retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, SystemTime::now())
}

/// Seconds or an HTTP date (RFC 9110, section 10.2.3), capped at [`MAX_RETRY_AFTER`]. A date in the past is a
/// wait of zero; anything else is `None`.
pub fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that overflow are a long wait, not an error.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(now).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{CallId, Event, Item, Origin, Payload};

    #[test]
    fn retry_after_is_seconds_or_a_date_up_to_fifteen_minutes() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (value, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("900", Some(900)),
            ("901", Some(900)),
            ("99999999999999999999999", Some(900)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 07:00:00 GMT", Some(0)),
            ("Mon, 07 Nov 1994 08:49:37 GMT", Some(900)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let expected = expected.map(Duration::from_secs);
            assert_eq!(parse_retry_after(value, now), expected, "{value:?}");
        }
    }

    #[test]
    fn every_header_that_an_attempt_has_is_refused_as_a_further_one() {
        let settings = WebhookSettings {
            secret: Some("s3cret".into()),
            signing_keys: "whsec_MfKQ9r8GKYqr".parse().ok(),
            proxy: "http://joe:hush@proxy".parse().ok(),
            ..WebhookSettings::to("http://joe:hush@h/".parse().unwrap(), Duration::ZERO)
        };
        let agent = Some(HeaderValue::from_static("agent"));
        let client = WebhookClient::new(settings, agent, ProcessId::random()).unwrap();
        let event = Event::now(CallId::random(), EventType::CallEnded, &Payload::empty());
        let item = Item::new(event.into(), 1, Origin::Relayed);
        let request =
            client.request(&Attempt { item, probe: false, timeout: Duration::from_secs(1) });
        assert_eq!(request.headers().len(), 16);
        for name in request.headers().keys() {
            let text = format!(r#"{{"{name}":"x"}}"#);
            assert!(headers::read_headers(&text, true).is_err(), "{name}");
        }
    }
}
