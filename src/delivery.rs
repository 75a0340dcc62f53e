//! Delivery: how did one attempt go?
//!
//! Owns the HTTP request to the receiver: headers, signature, deadline, and what the answer says. Leaves to
//! [`crate::wire`] the connections, to [`crate::queue`] when to try, and what a failure means for the event.
//!
//! Invariants and limits:
//! - An attempt ends within its timeout, which covers connecting, sending and reading head and body.
//! - Any 2xx is a success, whatever its body. One that cannot be read costs at worst the routing decision in it,
//!   and the log says so.
//! - Redirects are not followed: a 3xx is a failure. No proxy is used.
//! - What is quoted of an answer holds none of the receiver's secrets.

pub mod answer;
pub mod failure;
pub mod signature;
pub mod trace;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use http_body_util::{Either, Full};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
    RETRY_AFTER, USER_AGENT,
};
use hyper::{Method, Request};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};
use url::{Position, Url};

use self::answer::AnswerBody;
use self::signature::SigningKeys;
use self::trace::ProcessId;
use crate::attempt::{Attempt, Deliver, Failure, Outcome};
use crate::event::EventType;
use crate::routing::without_user;
use crate::wire;
use crate::wire::connections::{self, AskError, Connections, RequestBody, WireAnswer};
use crate::wire::dial::{DialError, Dialer};

/// A longer `Retry-After` counts as this: AVR's sample receiver asks for 900 seconds.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(15 * 60);

const AGENT: &str = concat!("callhook/", env!("CARGO_PKG_VERSION"));

/// `WEBHOOK_SECRET`, by which the receiver recognises callhook.
pub const SECRET_HEADER: HeaderName = HeaderName::from_static("x-avr-webhook-secret");
/// 1, 2, … for the event.
pub const ATTEMPT_HEADER: HeaderName = HeaderName::from_static("x-avr-webhook-attempt");
/// 1, 2, … within the call.
pub const SEQUENCE_HEADER: HeaderName = HeaderName::from_static("x-avr-webhook-sequence");
/// `AGENT_ID`, by which AVR's dashboard knows whose call it is.
pub const AGENT_HEADER: HeaderName = HeaderName::from_static("x-avr-agent-id");

const MASK: &str = "••••••••";

/// `WEBHOOK_*`.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// http or https, with a host.
    pub url: Url,
    /// Whether more than its scheme and host is.
    pub url_is_secret: bool,
    /// Checked to be a header value.
    pub secret: Option<SecretString>,
    pub timeout: Duration,
    pub signing_keys: Option<SigningKeys>,
}

impl WebhookSettings {
    /// `None` unless it is a URL fit for [`url`](Self::url).
    pub fn read_url(text: &str) -> Option<Url> {
        let url = Url::parse(text).ok()?;
        (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
    }

    /// `host:port`, as in Node's errors.
    pub fn host_and_port(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default().unwrap_or_default();
        format!("{host}:{port}")
    }

    /// What a receiver may repeat of what callhook sends, and nobody else may see; the longest first, since a short
    /// one may be part of a long one.
    pub fn secrets(&self) -> Vec<String> {
        let mut secrets: Vec<String> = Vec::new();
        secrets.extend(self.secret.as_ref().map(|secret| secret.expose_secret().to_owned()));
        if let Some(password) = self.url.password() {
            secrets.push(password.to_owned());
            secrets.push(percent_decode_str(password).decode_utf8_lossy().into_owned());
        }
        let basic = wire::authorization(&self.url);
        let basic = basic.as_ref().and_then(|value| value.to_str().ok()?.split_once(' '));
        secrets.extend(basic.map(|(_, encoded)| encoded.to_owned()));
        with_json_forms(secrets)
    }

    /// Without userinfo, for logs.
    pub fn shown_url(&self) -> String {
        match self.url_is_secret {
            true => scheme_and_host(&self.url),
            false => without_user(&self.url).to_string(),
        }
    }
}

/// What is shown of a URL that is a secret.
pub fn scheme_and_host(url: &Url) -> String {
    format!("{}://{}", url.scheme(), &url[Position::BeforeHost..Position::AfterPort])
}

/// The same texts as they are, and as JSON writes them.
pub fn with_json_forms(mut secrets: Vec<String>) -> Vec<String> {
    let in_json = |secret: &String| {
        let quoted = serde_json::Value::from(secret.as_str()).to_string();
        quoted[1..quoted.len() - 1].to_owned()
    };
    let escaped: Vec<String> = secrets.iter().map(in_json).collect();
    secrets.extend(escaped);
    secrets.retain(|secret| !secret.is_empty());
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.dedup();
    secrets
}

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
        client.connections.ask(request, || copy, client.settings.timeout).await
    }
}

/// What all attempts share, and a place for each header that they have of their own: a map that grows is made anew.
fn template(settings: &WebhookSettings) -> Request<()> {
    let url = &settings.url;
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url[Position::BeforePath..Position::AfterQuery]
        .parse()
        .expect("what the URL parser lets through in a path and query is fit for a request");
    let headers = request.headers_mut();
    let host = &url[Position::BeforeHost..Position::AfterPort];
    headers.insert(HOST, HeaderValue::try_from(host).expect("a host is visible ASCII"));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    // What is encoded all the same could not be read.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if let Some(authorization) = wire::authorization(url) {
        headers.insert(AUTHORIZATION, authorization);
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
        let destination = Dialer::default().destination(&settings.url)?;
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
        let asked = self.connections.ask(request, again, timeout);
        let mut answer = match timeout_at(deadline, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let address = self.settings.host_and_port();
                return failed(failure::of_request(&error, &address, begun.elapsed()));
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
        let retry_after = retry_after(&answer.head.headers);
        let quote = body.quote(&self.secrets);
        let failure = Failure::of_status(status.as_u16(), retry_after, begun.elapsed());
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
}
