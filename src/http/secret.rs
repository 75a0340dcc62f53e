//! Secrets of requests: how one is sent, and how it is compared.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

/// The scheme of a bearer token, in any case: <https://www.rfc-editor.org/rfc/rfc9110#section-11.1>.
const BEARER: &[u8] = b"Bearer ";

/// The token of an `Authorization: Bearer` header.
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then_some(token)
}

/// Compares in constant time, so that timing does not tell how much of a guess was right.
pub fn is_same_secret(given: &[u8], secret: &SecretString) -> bool {
    given.ct_eq(secret.expose_secret().as_bytes()).into()
}
