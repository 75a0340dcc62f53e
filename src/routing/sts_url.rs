//! STS URL: where a speech-to-speech server is, and on which hosts a receiver may choose one.
//!
//! Invariant: an [`StsUrl`] is `ws` or `wss` and has a host. [`Display`](fmt::Display) never shows its userinfo.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use url::Url;

/// In bytes: Asterisk truncates the answer that carries the URL at about 4000.
pub const MAX_STS_URL: usize = 4096;

/// A `ws` or `wss` URL with a host, of at most [`MAX_STS_URL`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StsUrl(Url);

impl StsUrl {
    /// With userinfo, too.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// With userinfo: for connecting, not for showing.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// `host` or `host:port`, for logs: a query may hold keys.
    pub fn host_and_port(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        self.0.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

impl FromStr for StsUrl {
    type Err = BadStsUrl;

    fn from_str(text: &str) -> Result<Self, BadStsUrl> {
        if text.len() > MAX_STS_URL {
            return Err(BadStsUrl(format!("it is longer than {MAX_STS_URL} bytes")));
        }
        let url = Url::parse(text).map_err(|error| BadStsUrl(error.to_string()))?;
        match (url.scheme(), url.has_host()) {
            ("ws" | "wss", true) => Ok(Self(url)),
            ("ws" | "wss", false) => Err(BadStsUrl("it has no host".to_owned())),
            // Not quoted: without `//`, what was parsed as the scheme may be a user name.
            (_, _) => Err(BadStsUrl("its scheme is neither".to_owned())),
        }
    }
}

impl fmt::Display for StsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(without_user(&self.0).as_str())
    }
}

/// Holds the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a ws:// or wss:// URL with a host ({0})")]
pub struct BadStsUrl(String);

/// For logs and pages.
pub fn without_user(url: &Url) -> Cow<'_, Url> {
    if url.username().is_empty() && url.password().is_none() {
        return Cow::Borrowed(url);
    }
    let mut url = url.clone();
    // Both fail only for URLs that cannot have userinfo, and this one has it.
    url.set_username("").expect("the URL has userinfo");
    url.set_password(None).expect("the URL has userinfo");
    Cow::Owned(url)
}

/// `STS_ALLOWED_HOSTS`: where a receiver may route to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedHosts {
    Any,
    Only(Vec<HostRule>),
}

impl AllowedHosts {
    pub fn admit(&self, url: &StsUrl) -> bool {
        match self {
            Self::Any => true,
            Self::Only(rules) => rules.iter().any(|rule| rule.admits(&url.0)),
        }
    }
}

/// `host` (any port) or `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRule {
    host: url::Host<String>,
    port: Option<u16>,
}

impl HostRule {
    fn admits(&self, url: &Url) -> bool {
        // `ws` is a special scheme of the URL standard, so hosts in an StsUrl are parsed as in a rule.
        let same_host = url.host().map(|host| host.to_owned()).as_ref() == Some(&self.host);
        let same_port = self.port.is_none() || self.port == url.port_or_known_default();
        same_host && same_port
    }
}

impl FromStr for HostRule {
    type Err = BadHostRule;

    fn from_str(text: &str) -> Result<Self, BadHostRule> {
        let bare_ipv6 = text.starts_with('[') && text.ends_with(']');
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !bare_ipv6 => {
                (host, Some(port.parse().map_err(|_| BadHostRule)?))
            }
            Some(_) | None => (text, None),
        };
        let host = url::Host::parse(host).map_err(|_| BadHostRule)?;
        Ok(Self { host, port })
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected host or host:port")]
pub struct BadHostRule;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn userinfo_of_an_sts_url_is_never_shown() {
        let url: StsUrl = "wss://user:hush@h/p".parse().unwrap();
        assert_eq!(url.to_string(), "wss://h/p");
        assert_eq!(url.as_str(), "wss://user:hush@h/p");
    }
}
