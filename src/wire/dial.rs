//! Dialing: from a URL to an open stream.
//!
//! Owns the way to a server: to it or to the proxy before it, and the TLS handshake. Leaves to [`super::tcp`] names
//! and addresses, to [`super::proxy`] what a proxy is asked. Sets no deadline: that is up to the caller, who says
//! until when it will wait.

use std::sync::OnceLock;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use url::{Host, Url};

use super::identity::Identity;
use super::proxy::{Proxy, ProxyError};
use super::tcp::{Place, TcpError};
use super::tls;

pub type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error(transparent)]
    Tcp(#[from] TcpError),
    /// It is the proxy that fails, or refuses.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error(transparent)]
    Tls(#[from] tls::Fault),
}

/// Knows where URLs lead to, and by which way. Certificates are loaded with the first URL that needs TLS.
#[derive(Default)]
pub struct Dialer {
    identity: Option<Identity>,
    proxy: Option<Proxy>,
    tls: OnceLock<Result<TlsConnector, tls::Fault>>,
}

/// A host and port, with TLS or without, through a proxy or not.
pub struct Destination {
    place: Place,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    proxy: Option<Proxy>,
}

impl Dialer {
    /// Shows servers that ask for it this certificate, and goes through this proxy.
    pub fn with(identity: Option<Identity>, proxy: Option<Proxy>) -> Self {
        Self { identity, proxy, tls: OnceLock::new() }
    }

    /// For `http`, `https`, `ws` and `wss` URLs with a host.
    ///
    /// # Errors
    /// [`DialError::Tls`] if the certificates cannot be loaded, or the host is no name for TLS.
    pub fn destination(&self, url: &Url) -> Result<Destination, DialError> {
        let place = Place::of(url);
        let tls = match url.scheme() {
            "https" | "wss" => {
                let connector = self.tls.get_or_init(|| tls::connector(self.identity.as_ref()));
                Some((connector.clone()?, server_name(&place.host)?))
            }
            _ => None,
        };
        Ok(Destination { place, tls, proxy: self.proxy.clone() })
    }
}

fn server_name(host: &Host) -> Result<ServerName<'static>, tls::Fault> {
    match host {
        Host::Domain(name) => ServerName::try_from(name.clone())
            .map_err(|error| format!("{name:?} cannot be a server's name: {error}").into()),
        Host::Ipv4(address) => Ok(ServerName::IpAddress((*address).into())),
        Host::Ipv6(address) => Ok(ServerName::IpAddress((*address).into())),
    }
}

impl Destination {
    /// # Errors
    /// [`DialError`].
    pub async fn dial(&self, until: Instant) -> Result<Stream, DialError> {
        let tcp = match (&self.proxy, &self.tls) {
            (None, _) => self.place.connect(until).await?,
            // It reads from the request where that is to go.
            (Some(proxy), None) => proxy.reach(until).await?,
            (Some(proxy), Some(_)) => proxy.tunnel(&self.place, until).await?,
        };
        let Some((connector, name)) = &self.tls else { return Ok(Either::Left(tcp)) };
        match connector.connect(name.clone(), tcp).await {
            Ok(stream) => Ok(Either::Right(stream)),
            Err(error) => Err(match tls::fault(&error) {
                Some(fault) => fault.into(),
                None => TcpError::Connect(error).into(),
            }),
        }
    }
}
