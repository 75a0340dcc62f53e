//! The proxy between callhook and a server.
//!
//! Owns its URL, how it is asked for a tunnel ([CONNECT](https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6)), and
//! what it says instead of one. For plain HTTP it is sent the request itself, with the whole URL as target
//! ([RFC 9112, section 3.2.2](https://www.rfc-editor.org/rfc/rfc9112#section-3.2.2)), which is for whoever makes the
//! request.
//!
//! Invariants and limits:
//! - Its head of an answer has at most [`MAX_HEAD`] bytes; of a refusal nothing but the status is read.
//! - What fails here is told as the proxy's, also its silence: it is given up [`TELLING`] before the time is over.
//! - Nothing that is said shows its user or password.

use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::time::Duration;

use futures_util::future::try_join;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, Parts};
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::basic::authorization;
use super::tcp::{Place, TcpError};

/// In bytes. Real ones are some hundred; hyper reads no less than this.
const MAX_HEAD: usize = 8 * 1024;

/// Before the time is over, or a tenth of it, if that is less: what is left would not do for the server behind.
const TELLING: Duration = Duration::from_millis(50);

/// `http://[user:password@]host:port`
#[derive(Clone)]
pub struct Proxy {
    url: Url,
    place: Place,
}

/// What failed, and at which proxy.
#[derive(Debug, thiserror::Error)]
#[error("proxy {place}: {fault}")]
pub struct ProxyError {
    pub place: Place,
    pub fault: ProxyFault,
}

#[derive(Debug, thiserror::Error)]
pub enum ProxyFault {
    /// It is not reached.
    #[error(transparent)]
    Tcp(#[from] TcpError),
    #[error("no connection in time")]
    NoConnection,
    #[error("no answer to CONNECT {to} in time")]
    Silent { to: String },
    #[error("it asks for a user and password (407), and has been given none")]
    AsksForUser,
    #[error("it does not accept the user and password (407)")]
    RefusesUser,
    #[error("it refuses CONNECT {to} ({status}); its own log may say why")]
    Refuses { to: String, status: StatusCode },
    #[error("CONNECT {to} is not answered as HTTP proxies do ({cause})")]
    Broken { to: String, cause: String },
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a proxy as http://host:port or http://user:password@host:port, without a path (a / ? # @ before the \
     host is written %2F %3F %23 %40)"
)]
pub struct BadProxy;

impl FromStr for Proxy {
    type Err = BadProxy;

    fn from_str(text: &str) -> Result<Self, BadProxy> {
        let url = Url::parse(text).map_err(|_| BadProxy)?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        match url.scheme() == "http" && url.has_host() && bare {
            true => Ok(Self { place: Place::of(&url), url }),
            false => Err(BadProxy),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.place)
    }
}

impl Proxy {
    /// With the user part.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// What `Proxy-Authorization` has to be, if it is to be sent.
    pub fn authorization(&self) -> Option<HeaderValue> {
        authorization(&self.url)
    }

    /// What its answer 407 to a request means.
    pub fn denial(&self) -> ProxyError {
        self.error(match self.authorization() {
            Some(_) => ProxyFault::RefusesUser,
            None => ProxyFault::AsksForUser,
        })
    }

    /// # Errors
    /// [`ProxyError`].
    pub(super) async fn reach(&self, until: Instant) -> Result<TcpStream, ProxyError> {
        let connecting = async { Ok(self.place.connect(until).await?) };
        self.limited(until, connecting, || ProxyFault::NoConnection).await
    }

    /// # Errors
    /// [`ProxyError`].
    pub(super) async fn tunnel(&self, to: &Place, until: Instant) -> Result<TcpStream, ProxyError> {
        let tcp = self.reach(until).await?;
        let silent = || ProxyFault::Silent { to: to.to_string() };
        self.limited(until, self.connect(tcp, to), silent).await
    }

    async fn limited<T>(
        &self,
        until: Instant,
        step: impl Future<Output = Result<T, ProxyFault>>,
        silent: impl FnOnce() -> ProxyFault,
    ) -> Result<T, ProxyError> {
        let left = until.saturating_duration_since(Instant::now());
        let done = timeout_at(until - TELLING.min(left / 10), step).await;
        done.unwrap_or_else(|_late| Err(silent())).map_err(|fault| self.error(fault))
    }

    async fn connect(&self, tcp: TcpStream, to: &Place) -> Result<TcpStream, ProxyFault> {
        let broken = |cause: String| ProxyFault::Broken { to: to.to_string(), cause };
        let http = |error: hyper::Error| broken(error.to_string());
        let mut client = http1::Builder::new();
        client.max_buf_size(MAX_HEAD);
        let handshake = client.handshake::<_, Empty<Bytes>>(TokioIo::new(tcp));
        let (mut requests, connection) = handshake.await.map_err(http)?;
        let request = self.request(to).ok_or_else(|| broken("no host for it".to_owned()))?;
        let asking = async {
            let answer = requests.send_request(request).await.map_err(http)?;
            self.judge(answer.status(), to)
        };
        let using = async { connection.without_shutdown().await.map_err(http) };
        // A refusal ends this at once, and the connection with it.
        let ((), Parts { io, read_buf, .. }) = try_join(asking, using).await?;
        if !read_buf.is_empty() {
            return Err(broken("something comes before the server could speak".to_owned()));
        }
        Ok(io.into_inner())
    }

    fn request(&self, to: &Place) -> Option<Request<Empty<Bytes>>> {
        let mut request = Request::connect(to.to_string()).body(Empty::new()).ok()?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::try_from(to.to_string()).ok()?);
        if let Some(authorization) = self.authorization() {
            headers.insert(PROXY_AUTHORIZATION, authorization);
        }
        Some(request)
    }

    fn judge(&self, status: StatusCode, to: &Place) -> Result<(), ProxyFault> {
        match status {
            _ if status.is_success() => Ok(()),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(self.denial().fault),
            _ => Err(ProxyFault::Refuses { to: to.to_string(), status }),
        }
    }

    fn error(&self, fault: ProxyFault) -> ProxyError {
        ProxyError { place: self.place.clone(), fault }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_an_http_url_with_nothing_after_its_port() {
        for good in
            ["http://p:3128", "http://p:3128/", "http://u:s%40@[::1]:8080", "http://10.0.0.1"]
        {
            assert!(good.parse::<Proxy>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "p:3128",
            "https://p:3128",
            "socks5://p",
            "http://p:1/x",
            "http://p:1/?x",
            "http://p:1/#x",
        ] {
            assert_eq!(bad.parse::<Proxy>().err(), Some(BadProxy), "{bad}");
        }
        let proxy: Proxy = "http://joe:hush@p:3128".parse().unwrap();
        assert_eq!(format!("{proxy:?}"), "Proxy(p:3128)");
    }
}
