//! The settings of one receiver, each checked to be fit for what it is for.
//!
//! Owns what of them may be shown, and which texts are kept out of what is shown.

use std::time::Duration;

use hyper::header::HeaderMap;
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret as _, SecretString};
use url::{Position, Url};

use super::signature::SigningKeys;
use crate::receiver::ReceiverName;
use crate::routing::without_user;
use crate::wire::basic::authorization;
use crate::wire::identity::Identity;
use crate::wire::proxy::Proxy;
use crate::wire::tcp::Place;

/// In bytes, of a further header's value: a shorter one is no secret (`1`, `de`), and without its letters no text
/// could be read.
const LEAST_MASKED: usize = 4;

/// `WEBHOOK_*`, or `RECEIVER_NAME_*`.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    pub name: ReceiverName,
    /// http or https, with a host.
    pub url: Url,
    /// Whether more than its scheme and host is.
    pub url_is_secret: bool,
    /// Checked to be a header value.
    pub secret: Option<SecretString>,
    pub timeout: Duration,
    pub signing_keys: Option<SigningKeys>,
    /// Further ones, which are sensitive.
    pub headers: HeaderMap,
    /// What it is shown if it asks for a certificate.
    pub identity: Option<Identity>,
    pub proxy: Option<Proxy>,
}

impl WebhookSettings {
    /// `None` unless it is a URL fit for [`url`](Self::url).
    pub fn read_url(text: &str) -> Option<Url> {
        let url = Url::parse(text).ok()?;
        (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
    }

    /// The main one, with nothing but what an attempt needs.
    pub fn to(url: Url, timeout: Duration) -> Self {
        Self {
            name: ReceiverName::main(),
            url,
            url_is_secret: false,
            secret: None,
            timeout,
            signing_keys: None,
            headers: HeaderMap::new(),
            identity: None,
            proxy: None,
        }
    }

    /// `host:port`, as in Node's errors.
    pub fn host_and_port(&self) -> String {
        Place::of(&self.url).to_string()
    }

    /// The proxy that is sent the request itself: for `https` it is asked for a tunnel, and sees nothing of it.
    pub fn forwarding_proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|_| self.url.scheme() == "http")
    }

    /// What a receiver may repeat of what callhook sends, and nobody else may see; the longest first, since a short
    /// one may be part of a long one.
    pub fn secrets(&self) -> Vec<String> {
        let mut secrets: Vec<String> = Vec::new();
        secrets.extend(self.secret.as_ref().map(|secret| secret.expose_secret().to_owned()));
        secrets.extend(secrets_of_user(&self.url));
        secrets.extend(self.proxy.iter().flat_map(|proxy| secrets_of_user(proxy.url())));
        let values = self.headers.values().filter_map(|value| value.to_str().ok());
        // With a scheme before it, as in `Bearer TOKEN`, it is the token that comes back.
        let values =
            values.flat_map(|value| [Some(value), value.split_once(' ').map(|(_, it)| it)]);
        let values = values.flatten().map(str::trim).filter(|value| value.len() >= LEAST_MASKED);
        secrets.extend(values.map(str::to_owned));
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

/// The password, as given and as it is meant, and what it becomes in basic authentication.
fn secrets_of_user(url: &Url) -> Vec<String> {
    let mut secrets = Vec::new();
    if let Some(password) = url.password() {
        secrets.push(password.to_owned());
        secrets.push(percent_decode_str(password).decode_utf8_lossy().into_owned());
    }
    let basic = authorization(url);
    let basic = basic.as_ref().and_then(|value| value.to_str().ok()?.split_once(' '));
    secrets.extend(basic.map(|(_, encoded)| encoded.to_owned()));
    secrets
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
