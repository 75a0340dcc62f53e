//! Signatures by the Standard Webhooks specification, version 1
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//!
//! Owns the key and what is signed: `{id}.{timestamp}.{body}`.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use base64_simd::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, Mac};
use reqwest::header::HeaderName;
use sha2::Sha256;

/// The receiver's idempotency key.
pub const ID_HEADER: HeaderName = HeaderName::from_static("webhook-id");
/// Unix seconds of this attempt.
pub const TIMESTAMP_HEADER: HeaderName = HeaderName::from_static("webhook-timestamp");
/// `v1,BASE64`.
pub const SIGNATURE_HEADER: HeaderName = HeaderName::from_static("webhook-signature");

const PREFIX: &str = "whsec_";

/// The symmetric scheme.
const VERSION: &str = "v1,";

/// `WEBHOOK_SIGNING_KEY`.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

/// The headers that signing adds.
pub struct Signed {
    /// Unix seconds.
    pub timestamp: u64,
    /// `v1,BASE64`.
    pub signature: String,
}

impl SigningKey {
    pub fn sign(&self, id: &str, now: SystemTime, body: &[u8]) -> Signed {
        let since_epoch = now.duration_since(UNIX_EPOCH);
        let timestamp = since_epoch.expect("the clock is past 1970").as_secs();
        let mac = self.mac(id, &timestamp.to_string(), body);
        let mut signature = VERSION.to_owned();
        STANDARD.encode_append(mac.finalize().into_bytes(), &mut signature);
        Signed { timestamp, signature }
    }

    /// Whether any of the space-separated signatures was made with this key. Compares in constant time;
    /// leaves to the caller how old the timestamp may be.
    pub fn has_signed(&self, id: &str, timestamp: &str, body: &[u8], signatures: &str) -> bool {
        let mac = self.mac(id, timestamp, body);
        let given = signatures.split(' ').filter_map(|signature| signature.strip_prefix(VERSION));
        given
            .filter_map(|encoded| STANDARD.decode_to_vec(encoded).ok())
            .any(|signature| mac.clone().verify_slice(&signature).is_ok())
    }

    fn mac(&self, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        mac
    }
}

impl FromStr for SigningKey {
    type Err = BadSigningKey;

    fn from_str(text: &str) -> Result<Self, BadSigningKey> {
        let encoded = text.strip_prefix(PREFIX).ok_or(BadSigningKey)?;
        // Keys exist with and without padding.
        let key = STANDARD.decode_to_vec(encoded);
        let key = key.or_else(|_| STANDARD_NO_PAD.decode_to_vec(encoded));
        let key = key.map_err(|_| BadSigningKey)?;
        if key.is_empty() {
            return Err(BadSigningKey);
        }
        let mac = Hmac::new_from_slice(&key).expect("HMAC takes a key of any length");
        Ok(Self(mac))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(***)")
    }
}

/// Does not quote the text, which may be a key with a typo.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {PREFIX} followed by base64 (make one: echo {PREFIX}$(openssl rand -base64 32))")]
pub struct BadSigningKey;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_verified_by_the_reference_library() {
        let text = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let key: SigningKey = text.parse().unwrap();
        let body = br#"{"uuid":"x"}"#;
        let signed = key.sign("msg_1", SystemTime::now(), body);
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert(ID_HEADER, "msg_1".parse().unwrap());
        headers.insert(TIMESTAMP_HEADER, signed.timestamp.into());
        headers.insert(SIGNATURE_HEADER, signed.signature.parse().unwrap());
        let reference = standardwebhooks::Webhook::new(text).unwrap();
        reference.verify(body, &headers).unwrap();
        assert!(reference.verify(b"{}", &headers).is_err());
    }

    #[test]
    fn a_signature_is_told_from_one_of_another_key_id_time_or_body_among_several() {
        let key: SigningKey = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let other: SigningKey = "whsec_AAAA9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let Signed { timestamp, signature } = key.sign("msg_1", SystemTime::now(), b"{}");
        let time = timestamp.to_string();
        for signatures in [&signature, &format!("v1a,AAAA v1,%% v1,AAAA {signature}")] {
            assert!(key.has_signed("msg_1", &time, b"{}", signatures), "{signatures}");
            assert!(!other.has_signed("msg_1", &time, b"{}", signatures), "{signatures}");
            assert!(!key.has_signed("msg_2", &time, b"{}", signatures), "{signatures}");
            assert!(!key.has_signed("msg_1", "1", b"{}", signatures), "{signatures}");
            assert!(!key.has_signed("msg_1", &time, b"{ }", signatures), "{signatures}");
        }
        for bad in ["", "v1,", &signature["v1,".len()..], &signature[..signature.len() - 4]] {
            assert!(!key.has_signed("msg_1", &time, b"{}", bad), "{bad}");
        }
    }

    #[test]
    fn a_key_needs_its_prefix_and_base64() {
        let misshapen = ["", "whsec_", "MfKQ9r8G", "whsec_%%%", "WHSEC_MfKQ9r8G"];
        let badly_padded = ["whsec_====", "whsec_MfKQ9r8GKQ=", "whsec_MfKQ9r8GKQ===="];
        for bad in misshapen.into_iter().chain(badly_padded) {
            assert!(bad.parse::<SigningKey>().is_err(), "{bad}");
        }
        for good in ["whsec_MfKQ9r8GKQ", "whsec_MfKQ9r8GKQ=="] {
            assert!(good.parse::<SigningKey>().is_ok(), "{good}");
        }
    }
}
