//! Trust: is the sender who it should be?
//!
//! By the secret in `X-AVR-WEBHOOK-SECRET`, and by the signature of Standard Webhooks, which has to
//! be of the last or next [`TOLERANCE`]
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md#verifying-webhook-authenticity>).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName};
use secrecy::SecretString;

use crate::delivery::SECRET_HEADER;
use crate::delivery::signature::{ID_HEADER, SIGNATURE_HEADER, SigningKey, TIMESTAMP_HEADER};
use crate::http::is_same_secret;

/// How far a signature's timestamp may be from now, as the reference libraries have it.
pub const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// What a sender has to know.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    pub secret: Option<SecretString>,
    pub key: Option<SigningKey>,
}

/// Why a request is not trusted. Repeats nothing of a secret or a signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error("X-AVR-WEBHOOK-SECRET is wrong")]
    SecretWrong,
    #[error("X-AVR-WEBHOOK-SECRET is missing")]
    SecretMissing,
    #[error("{0} is missing")]
    Missing(HeaderName),
    #[error("webhook-timestamp is not a number of seconds")]
    NoTimestamp,
    #[error("webhook-timestamp is {0} s old; {most} s are taken", most = TOLERANCE.as_secs())]
    TooOld(u64),
    #[error("webhook-timestamp is {0} s ahead; {most} s are taken", most = TOLERANCE.as_secs())]
    TooNew(u64),
    #[error("webhook-signature is not this key's for this body")]
    SignatureWrong,
}

impl Trust {
    /// # Errors
    /// The first reason why a request with these headers and this body is not trusted.
    pub fn judge(&self, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Result<(), Distrust> {
        if let Some(secret) = &self.secret {
            let given = headers.get(SECRET_HEADER).ok_or(Distrust::SecretMissing)?;
            if !is_same_secret(given.as_bytes(), secret) {
                return Err(Distrust::SecretWrong);
            }
        }
        self.key.as_ref().map_or(Ok(()), |key| judge_signature(key, headers, body, now))
    }
}

fn judge_signature(
    key: &SigningKey,
    headers: &HeaderMap,
    body: &[u8],
    now: SystemTime,
) -> Result<(), Distrust> {
    let text = |name: HeaderName| {
        let value = headers.get(&name).and_then(|value| value.to_str().ok());
        value.ok_or(Distrust::Missing(name))
    };
    let (id, timestamp) = (text(ID_HEADER)?, text(TIMESTAMP_HEADER)?);
    let signatures = text(SIGNATURE_HEADER)?;
    let then: u64 = timestamp.parse().map_err(|_| Distrust::NoTimestamp)?;
    let now = now.duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs();
    if now.saturating_sub(then) > TOLERANCE.as_secs() {
        return Err(Distrust::TooOld(now - then));
    }
    if then.saturating_sub(now) > TOLERANCE.as_secs() {
        return Err(Distrust::TooNew(then - now));
    }
    let signed = key.has_signed(id, timestamp, body, signatures);
    if signed { Ok(()) } else { Err(Distrust::SignatureWrong) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::signature::SigningKeys;

    const BODY: &[u8] = b"{}";

    fn judged(then: u64, now: u64) -> Result<(), Distrust> {
        let key: SigningKey = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let signed = SigningKeys::from(key.clone()).sign("a", at(then), BODY);
        let mut headers = HeaderMap::new();
        headers.insert(ID_HEADER, "a".parse().unwrap());
        headers.insert(TIMESTAMP_HEADER, signed.timestamp.into());
        headers.insert(SIGNATURE_HEADER, signed.signatures.parse().unwrap());
        Trust { secret: None, key: Some(key) }.judge(&headers, BODY, at(now))
    }

    #[test]
    fn a_signature_holds_for_five_minutes_either_way() {
        let now = 1_800_000_000;
        assert_eq!(judged(now - 300, now), Ok(()));
        assert_eq!(judged(now - 301, now), Err(Distrust::TooOld(301)));
        assert_eq!(judged(now + 300, now), Ok(()));
        assert_eq!(judged(now + 301, now), Err(Distrust::TooNew(301)));
    }
}
