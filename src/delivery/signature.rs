//! Signatures by the Standard Webhooks specification, version 1
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//!
//! Owns the key and what is signed: `{id}.{timestamp}.{body}`.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use base64_simd::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac};
use hyper::header::HeaderName;
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

/// `WEBHOOK_SIGNING_KEY`: one key or several, separated by spaces. Each signs, so that a key can be changed
/// without a gap: receivers accept what one of the signatures proves.
#[derive(Clone, Debug)]
pub struct SigningKeys(Vec<SigningKey>);

#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

/// The headers that signing adds.
pub struct Signed {
    /// Unix seconds.
    pub timestamp: u64,
    /// `v1,BASE64` of each key, separated by spaces.
    pub signatures: String,
}

impl SigningKeys {
    pub fn sign(&self, id: &str, now: SystemTime, body: &[u8]) -> Signed {
        let since_epoch = now.duration_since(UNIX_EPOCH);
        let timestamp = since_epoch.expect("the clock is past 1970").as_secs();
        let mut signatures = String::new();
        for SigningKey(key) in &self.0 {
            if !signatures.is_empty() {
                signatures.push(' ');
            }
            signatures.push_str(VERSION);
            let mac = mac(key, id, &timestamp.to_string(), body);
            STANDARD.encode_append(mac.finalize().into_bytes(), &mut signatures);
        }
        Signed { timestamp, signatures }
    }
}

impl SigningKey {
    /// Whether any of the space-separated signatures was made with this key. Compares in constant time;
    /// leaves to the caller how old the timestamp may be.
    pub fn has_signed(&self, id: &str, timestamp: &str, body: &[u8], signatures: &str) -> bool {
        let mac = mac(&self.0, id, timestamp, body);
        let given = signatures.split(' ').filter_map(|signature| signature.strip_prefix(VERSION));
        given
            .filter_map(|encoded| STANDARD.decode_to_vec(encoded).ok())
            .any(|signature| mac.clone().verify_slice(&signature).is_ok())
    }
}

fn mac(key: &Hmac<Sha256>, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = key.clone();
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    mac
}

impl From<SigningKey> for SigningKeys {
    fn from(key: SigningKey) -> Self {
        Self(vec![key])
    }
}

impl FromStr for SigningKeys {
    type Err = BadSigningKey;

    fn from_str(text: &str) -> Result<Self, BadSigningKey> {
        let keys: Vec<SigningKey> =
            text.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(BadSigningKey) } else { Ok(Self(keys)) }
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
        let keys: SigningKeys = text.parse().unwrap();
        let body = br#"{"uuid":"x"}"#;
        let signed = keys.sign("msg_1", SystemTime::now(), body);
        let mut headers = hyper::header::HeaderMap::new();
        headers.insert(ID_HEADER, "msg_1".parse().unwrap());
        headers.insert(TIMESTAMP_HEADER, signed.timestamp.into());
        headers.insert(SIGNATURE_HEADER, signed.signatures.parse().unwrap());
        let reference = standardwebhooks::Webhook::new(text).unwrap();
        reference.verify(body, &headers).unwrap();
        assert!(reference.verify(b"{}", &headers).is_err());
    }

    #[test]
    fn a_signature_is_told_from_one_of_another_key_id_time_or_body_among_several() {
        let key: SigningKey = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let other: SigningKey = "whsec_AAAA9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let Signed { timestamp, signatures: signature } =
            SigningKeys::from(key.clone()).sign("msg_1", SystemTime::now(), b"{}");
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
    fn each_of_several_keys_signs() {
        let texts =
            ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAAA9r8GKYqrTwjUPD8ILPZIo2LaLaSw"];
        let keys: SigningKeys = texts.join(" ").parse().unwrap();
        let Signed { timestamp, signatures } = keys.sign("msg_1", SystemTime::now(), b"{}");
        assert_eq!(signatures.split(' ').count(), 2, "{signatures}");
        for text in texts {
            let key: SigningKey = text.parse().unwrap();
            assert!(key.has_signed("msg_1", &timestamp.to_string(), b"{}", &signatures));
        }
        for bad in ["", " ", "whsec_MfKQ9r8G hush"] {
            assert!(bad.parse::<SigningKeys>().is_err(), "{bad}");
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
