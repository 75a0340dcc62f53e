//! The wire: how a connection to another machine comes to be, to the receiver or to a
//! speech-to-speech server.
//!
//! Owns what both need: certificates and the cryptography behind them, names, and that a client asks
//! nobody but whom it was told to ask.

use std::io;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{redirect, retry};
use rustls_platform_verifier::ConfigVerifierExt as _;
use tokio_rustls::TlsConnector;

use crate::text::innermost;

/// A client that asks just who it was told to ask: no proxy, no redirects. For plain `http` it
/// needs no certificates, and a machine may have none.
pub fn client_builder(scheme: &str) -> reqwest::ClientBuilder {
    choose_cryptography();
    let builder = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .dns_resolver(Arc::new(SystemResolver))
        // When to try again is for the queue to say; and a request is not copied to be ready for it.
        .retry(retry::never().max_retries_per_request(0));
    if scheme == "http" { builder.tls_certs_only([]) } else { builder }
}

/// TLS for a connection of one's own, with the system's certificates.
///
/// # Errors
/// Where they cannot be loaded.
pub fn tls_connector() -> Result<TlsConnector, String> {
    choose_cryptography();
    let config = rustls::ClientConfig::with_platform_verifier();
    config.map(|config| Arc::new(config).into()).map_err(|error| innermost(&error))
}

/// The first call decides for the process, and all decide alike.
fn choose_cryptography() {
    rustls::crypto::ring::default_provider().install_default().ok();
}

/// The host's name does not resolve.
#[derive(Debug, thiserror::Error)]
#[error("{host} does not resolve: {cause}")]
pub struct NotResolved {
    /// The name.
    pub host: String,
    cause: io::Error,
}

/// Resolves names as the system does, and says so in a type when it cannot.
struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await.map(Vec::from_iter);
            match found {
                Ok(addresses) => Ok(Box::new(addresses.into_iter()) as Addrs),
                Err(cause) => Err(NotResolved { host, cause }.into()),
            }
        })
    }
}
