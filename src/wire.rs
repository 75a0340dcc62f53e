//! The wire: how a connection to a receiver or a speech-to-speech server is made, and used.
//!
//! Owns what both need: [`tcp`] (name resolution, the race of a name's addresses), [`tls`] (the trusted
//! certificates, and TLS faults in words), [`identity`] (callhook's own certificate), [`proxy`], [`dial`] (all of
//! these in order), [`basic`] (the user part of a URL), [`connections`] (HTTP requests over kept connections), and that a client contacts the given host
//! and no other: no proxy but one that is given, and no redirects.

pub mod basic;
pub mod connections;
pub mod dial;
pub mod identity;
pub mod proxy;
pub mod tcp;
pub mod tls;

use reqwest::{redirect, retry};

/// For requests to callhook's own ports, where speed is nothing and TLS is not spoken. No proxy and no
/// redirects: only the given host is contacted.
pub fn client_builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .retry(retry::never().max_retries_per_request(0))
}
