//! The wire: how a connection to a receiver or a speech-to-speech server is made, and used.
//!
//! Owns what both need: [`dial`] (name resolution, the race of a name's addresses, TLS), [`tls`] (the trusted
//! certificates, and TLS faults in words), [`connections`] (HTTP requests over kept connections), and that a
//! client contacts the given host and no other.

pub mod connections;
pub mod dial;
pub mod tls;

use base64_simd::STANDARD;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;
use reqwest::{redirect, retry};
use url::Url;

/// For requests to callhook's own ports, where speed is nothing and TLS is not spoken. No proxy and no
/// redirects: only the given host is contacted.
pub fn client_builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .retry(retry::never().max_retries_per_request(0))
}

/// The URL's userinfo as basic authentication, if it has any.
pub fn authorization(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let user: Vec<u8> = percent_decode_str(url.username()).collect();
    let password: Vec<u8> = percent_decode_str(url.password().unwrap_or_default()).collect();
    let given = [user, vec![b':'], password].concat();
    let value = format!("Basic {}", STANDARD.encode_to_string(given));
    let mut value = HeaderValue::try_from(value).expect("base64 is visible ASCII");
    value.set_sensitive(true);
    Some(value)
}
