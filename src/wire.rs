//! The wire: how a connection to a receiver or a speech-to-speech server is made.
//!
//! Owns what both need: the TLS provider and the trusted certificates, name resolution, and that a client
//! contacts the given host and no other.

use std::io;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{redirect, retry};
use rustls_platform_verifier::ConfigVerifierExt as _;
use tokio_rustls::TlsConnector;

use crate::text::innermost;

/// No proxy and no redirects: only the given host is contacted. For plain `http` no certificates are loaded,
/// since a machine may have none.
pub fn client_builder(scheme: &str) -> reqwest::ClientBuilder {
    install_tls_provider();
    let builder = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .dns_resolver(Arc::new(SystemResolver))
        // The queue decides when to try again, and without retries reqwest need not copy the request.
        .retry(retry::never().max_retries_per_request(0));
    if scheme == "http" { builder.tls_certs_only([]) } else { builder }
}

/// For connections made without reqwest; trusts the system's certificates.
///
/// # Errors
/// If the system's certificates cannot be loaded.
pub fn tls_connector() -> Result<TlsConnector, String> {
    install_tls_provider();
    let config = rustls::ClientConfig::with_platform_verifier();
    config.map(|config| Arc::new(config).into()).map_err(|error| innermost(&error))
}

/// The first call sets it for the process; the error of later calls means nothing.
fn install_tls_provider() {
    rustls::crypto::ring::default_provider().install_default().ok();
}

#[derive(Debug, thiserror::Error)]
#[error("{host} does not resolve: {cause}")]
pub struct NotResolved {
    pub host: String,
    cause: io::Error,
}

/// The system's resolver, with an error that [`crate::delivery`] can recognise.
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
