//! Secrets of requests: how one is sent, how it is compared, and which are accepted now.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64_simd::STANDARD;
use percent_encoding::percent_decode;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

/// The scheme of a bearer token, in any case: <https://www.rfc-editor.org/rfc/rfc9110#section-11.1>.
const BEARER: &[u8] = b"Bearer ";

/// The token of an `Authorization: Bearer` header.
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then_some(token)
}

/// The scheme of a user and a password: <https://www.rfc-editor.org/rfc/rfc7617#section-2>.
const BASIC: &[u8] = b"Basic ";

/// The password of an `Authorization: Basic` header, as given, and as it is where a client left the percent-encoding of
/// a URL in it; none without such a header.
pub fn basic_passwords(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let password = || {
        let value = headers.get(AUTHORIZATION)?.as_bytes();
        let (scheme, credentials) = value.split_at_checked(BASIC.len())?;
        let credentials = scheme.eq_ignore_ascii_case(BASIC).then_some(credentials)?;
        let pair = STANDARD.decode_to_vec(credentials.trim_ascii()).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        Some(pair[colon + 1..].to_vec())
    };
    let Some(given) = password() else { return Vec::new() };
    let decoded = percent_decode(&given).collect();
    vec![given, decoded]
}

/// What a port accepts; none = it asks for none. Clones share them, since they can change while it serves.
#[derive(Clone, Default)]
pub struct Secrets(Arc<RwLock<Vec<SecretString>>>);

impl Secrets {
    pub fn new(secrets: Vec<SecretString>) -> Self {
        Self(Arc::new(RwLock::new(secrets)))
    }

    pub fn are_set(&self) -> bool {
        self.first().is_some()
    }

    /// What a client of the port sends.
    pub fn first(&self) -> Option<SecretString> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).first().cloned()
    }

    pub fn accept(&self, given: &[u8]) -> bool {
        let secrets = self.0.read().unwrap_or_else(PoisonError::into_inner);
        secrets.iter().any(|secret| is_same_secret(given, secret))
    }

    /// Takes the other's in place of its own.
    pub fn renew(&self, other: &Self) {
        let secrets = other.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = secrets;
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(***)")
    }
}

/// Compares in constant time, so that timing does not tell how much of a guess was right.
pub fn is_same_secret(given: &[u8], secret: &SecretString) -> bool {
    given.ct_eq(secret.expose_secret().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_basic_password_is_taken_as_given_and_decoded() {
        for (header, expected) in [
            ("Basic YXZyOnMzY3JldA==", vec!["s3cret", "s3cret"]),
            ("basic YXZyOnMzOmNyZXQ=", vec!["s3:cret", "s3:cret"]),
            ("Basic YXZyOmElMmZi", vec!["a%2fb", "a/b"]),
            ("Basic OnM=", vec!["s", "s"]),
            ("Basic YXZy", vec![]),
            ("Basic ???", vec![]),
            ("Bearer s3cret", vec![]),
            ("Basic", vec![]),
        ] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, header.parse().unwrap())]);
            let expected: Vec<Vec<u8>> = expected.into_iter().map(Into::into).collect();
            assert_eq!(basic_passwords(&headers), expected, "{header}");
        }
        assert!(basic_passwords(&HeaderMap::new()).is_empty());
    }
}
