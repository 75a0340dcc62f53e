//! Basic authentication ([RFC 7617](https://www.rfc-editor.org/rfc/rfc7617)), from the user part of a URL.

use base64_simd::STANDARD;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;
use url::Url;

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
