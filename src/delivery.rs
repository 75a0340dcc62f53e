//! Delivery: how did one attempt go?
//!
//! Owns the HTTP request to the receiver: headers, signature, deadline, and the bounded read of the answer.
//! Leaves to [`crate::queue`] when to try, and what a failure means for the event.
//!
//! Invariants and limits:
//! - An attempt ends within `WEBHOOK_TIMEOUT`, which covers connecting, sending and reading head and body.
//! - Any 2xx is a success, whatever its body. A body that is too long, too slow or broken is dropped; at
//!   worst a routing decision in it is lost.
//! - Redirects are not followed: a 3xx is a failure. No proxy is used.
//! - At most [`MAX_ANSWER`] bytes of a body are kept.

pub mod failure;
pub mod signature;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, timeout_at};
use url::{Position, Url};

use self::signature::SigningKey;
use crate::attempt::{Attempt, Deliver, Failure, Outcome};
use crate::routing::without_user;
use crate::wire::client_builder;

/// In bytes; an `sts_url` needs a few hundred.
pub const MAX_ANSWER: usize = 64 * 1024;

/// A longer `Retry-After` counts as this: AVR's sample receiver asks for 900 seconds.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(15 * 60);

/// How long a connection may be idle before callhook closes it. Node closes after 5 s by default; closing
/// first avoids sending an event on a connection that is about to go.
const POOL_IDLE: Duration = Duration::from_secs(4);

const AGENT: &str = concat!("callhook/", env!("CARGO_PKG_VERSION"));

/// `WEBHOOK_SECRET`, by which the receiver recognises callhook.
pub const SECRET_HEADER: HeaderName = HeaderName::from_static("x-avr-webhook-secret");
/// 1, 2, … for the event.
pub const ATTEMPT_HEADER: HeaderName = HeaderName::from_static("x-avr-webhook-attempt");
/// 1, 2, … within the call.
pub const SEQUENCE_HEADER: HeaderName = HeaderName::from_static("x-avr-webhook-sequence");
/// `AGENT_ID`, by which AVR's dashboard knows whose call it is.
pub const AGENT_HEADER: HeaderName = HeaderName::from_static("x-avr-agent-id");

/// The most headers that differ from attempt to attempt.
const OWN_HEADERS: usize = 6;

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
    pub signing_key: Option<SigningKey>,
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

/// The receiver's HTTP client; clones share its connections. Attempts under way keep the client that they began
/// with.
#[derive(Clone)]
pub struct Webhook(Arc<RwLock<Arc<WebhookClient>>>);

struct WebhookClient {
    client: reqwest::Client,
    settings: WebhookSettings,
    /// With the headers that all attempts share, and no body.
    template: reqwest::Request,
    agent: Option<HeaderValue>,
}

impl Webhook {
    /// Does not connect yet.
    ///
    /// # Errors
    /// If the system's TLS certificates cannot be loaded.
    pub fn new(
        settings: WebhookSettings,
        agent: Option<HeaderValue>,
    ) -> Result<Self, reqwest::Error> {
        let client = WebhookClient::new(settings, agent)?;
        Ok(Self(Arc::new(RwLock::new(Arc::new(client)))))
    }

    /// Makes later attempts with these settings, and with the certificates as they are now.
    ///
    /// # Errors
    /// As with [`Self::new`]; then nothing has changed.
    pub fn renew(&self, settings: WebhookSettings) -> Result<(), reqwest::Error> {
        let client = WebhookClient::new(settings, self.client().agent.clone())?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(client);
        Ok(())
    }

    fn client(&self) -> Arc<WebhookClient> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// If there is a key, signed with the current time. The workbench alters the request before it sends it.
    pub fn request(&self, attempt: &Attempt) -> reqwest::Request {
        self.client().request(attempt)
    }

    /// Sends a request with this time limit, and judges the answer.
    pub async fn send(&self, request: reqwest::Request, timeout: Duration) -> Outcome {
        self.client().send(request, timeout).await
    }

    /// Uses the same connections as attempts, but has no time limit.
    ///
    /// # Errors
    /// If no head of an answer arrived.
    pub async fn execute(
        &self,
        request: reqwest::Request,
    ) -> Result<reqwest::Response, reqwest::Error> {
        self.client().client.execute(request).await
    }
}

impl Deliver for Webhook {
    fn attempt(&self, attempt: Attempt) -> BoxFuture<'static, Outcome> {
        let inner = self.client();
        Box::pin(async move { inner.send(inner.request(&attempt), attempt.timeout).await })
    }

    fn shown_headers(&self, attempt: &Attempt, at: SystemTime) -> Vec<(String, String)> {
        self.client().shown_headers(attempt, at)
    }
}

impl WebhookClient {
    fn new(settings: WebhookSettings, agent: Option<HeaderValue>) -> Result<Self, reqwest::Error> {
        let client = client_builder(settings.url.scheme()).pool_idle_timeout(POOL_IDLE).build()?;
        let mut fixed = HeaderMap::new();
        fixed.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        fixed.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if let Some(secret) = &settings.secret {
            let mut value = HeaderValue::from_str(secret.expose_secret())
                .expect("the settings checked that the secret is a header value");
            value.set_sensitive(true);
            fixed.insert(SECRET_HEADER, value);
        }
        // This also turns the URL's userinfo into an Authorization header.
        let template = client.post(settings.url.clone()).headers(fixed).build()?;
        Ok(Self { client, settings, template, agent })
    }

    fn shown_headers(&self, attempt: &Attempt, at: SystemTime) -> Vec<(String, String)> {
        let mut headers = self.template.headers().clone();
        self.put_headers(attempt, &mut headers);
        if headers.contains_key(signature::TIMESTAMP_HEADER) {
            let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            headers.insert(signature::TIMESTAMP_HEADER, since.as_secs().into());
        }
        let shown = |name: &HeaderName, value: &HeaderValue| {
            let masked = value.is_sensitive()
                || [AUTHORIZATION, SECRET_HEADER, signature::SIGNATURE_HEADER].contains(name);
            if masked { MASK.to_owned() } else { String::from_utf8_lossy(value.as_bytes()).into() }
        };
        headers.iter().map(|(name, value)| (name.to_string(), shown(name, value))).collect()
    }

    async fn send(&self, request: reqwest::Request, timeout: Duration) -> Outcome {
        let begun = Instant::now();
        let deadline = begun + timeout;
        let response = match timeout_at(deadline, self.client.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let took = begun.elapsed();
                let address = self.settings.host_and_port();
                return Outcome::Failed(failure::of_request(&error, &address, took));
            }
            Err(_) => return Outcome::Failed(Failure::of_timeout(timeout, begun.elapsed())),
        };
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let answer = timeout_at(deadline, read_bounded(response)).await.ok().flatten();
        if status.is_success() {
            Outcome::Delivered { status: status.as_u16(), answer }
        } else {
            Outcome::Failed(Failure::of_status(status.as_u16(), retry_after, begun.elapsed()))
        }
    }

    fn request(&self, attempt: &Attempt) -> reqwest::Request {
        let mut request =
            self.template.try_clone().expect("a request without a body can be cloned");
        request.headers_mut().reserve(OWN_HEADERS);
        self.put_headers(attempt, request.headers_mut());
        *request.body_mut() = Some(attempt.item.event.body.clone().into());
        request
    }

    fn put_headers(&self, attempt: &Attempt, headers: &mut HeaderMap) {
        headers.insert(ATTEMPT_HEADER, attempt.number().into());
        headers.insert(SEQUENCE_HEADER, attempt.item.sequence.into());
        let own = attempt.item.event.agent.as_deref().map(|agent| {
            HeaderValue::from_str(agent).expect("an event's agent was a header value")
        });
        if let Some(agent) = own.or_else(|| self.agent.clone()) {
            headers.insert(AGENT_HEADER, agent);
        }
        let id = attempt.item.event.id.to_string();
        if let Some(key) = &self.settings.signing_key {
            let signed = key.sign(&id, SystemTime::now(), &attempt.item.event.body);
            headers.insert(signature::TIMESTAMP_HEADER, signed.timestamp.into());
            headers.insert(signature::SIGNATURE_HEADER, header(signed.signature));
        }
        headers.insert(signature::ID_HEADER, header(id));
    }
}

fn header(text: String) -> HeaderValue {
    text.try_into().expect("ids and base64 are visible ASCII")
}

/// `None` if the body is longer than [`MAX_ANSWER`]. Reading to the end keeps the connection usable.
async fn read_bounded(mut response: reqwest::Response) -> Option<Bytes> {
    let Some(first) = response.chunk().await.ok()? else {
        return Some(Bytes::new());
    };
    // Nearly every answer is a single chunk, which needs no copy.
    let Some(second) = response.chunk().await.ok()? else {
        return (first.len() <= MAX_ANSWER).then_some(first);
    };
    let mut body = BytesMut::from(first);
    let mut next = Some(second);
    while let Some(chunk) = next {
        if body.len() + chunk.len() > MAX_ANSWER {
            return None;
        }
        body.extend_from_slice(&chunk);
        next = response.chunk().await.ok()?;
    }
    Some(body.freeze())
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
