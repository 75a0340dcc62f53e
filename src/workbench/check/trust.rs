//! Trust: does the receiver know its sender, by the secret and by the signature?

use super::exchange::{Call, Secret, Signature};
use super::rules::{accepted, unauthorized, unsigned};
use super::trial::{Ruling, Stop, Trial};
use crate::event::EventType;

/// Sends with another secret.
pub async fn secret_wrong(trial: &mut Trial) -> Ruling {
    secret(trial, Secret::Wrong).await
}

/// Sends without a secret.
pub async fn secret_missing(trial: &mut Trial) -> Ruling {
    secret(trial, Secret::Missing).await
}

async fn secret(trial: &mut Trial, secret: Secret) -> Ruling {
    if trial.sender.settings().secret.is_none() {
        return Err(Stop::Skip("no --secret was given".to_owned()));
    }
    let sending = Call::fresh().next(EventType::CallStarted).with_secret(secret);
    trial.expect(sending, unauthorized).await?;
    Ok("it was refused with 401".to_owned())
}

/// Sends with a good signature.
pub async fn signature_good(trial: &mut Trial) -> Ruling {
    needs_key(trial)?;
    trial.expect(Call::fresh().next(EventType::CallStarted), accepted).await?;
    Ok("it was taken".to_owned())
}

/// Sends with a signature that another key could have made.
pub async fn signature_wrong(trial: &mut Trial) -> Ruling {
    unsigned_event(trial, Signature::Wrong).await
}

/// Sends without a signature.
pub async fn signature_missing(trial: &mut Trial) -> Ruling {
    unsigned_event(trial, Signature::Missing).await
}

/// Sends with a good signature of an hour ago, as somebody does who recorded a request.
pub async fn signature_old(trial: &mut Trial) -> Ruling {
    unsigned_event(trial, Signature::Old).await
}

async fn unsigned_event(trial: &mut Trial, signature: Signature) -> Ruling {
    needs_key(trial)?;
    let sending = Call::fresh().next(EventType::CallStarted).with_signature(signature);
    let answer = trial.expect(sending, unsigned).await?;
    Ok(format!("it was refused with {}", answer.status.as_u16()))
}

fn needs_key(trial: &Trial) -> Result<(), Stop> {
    match trial.sender.settings().signing_key {
        Some(_) => Ok(()),
        None => Err(Stop::Skip("no --signing-key was given".to_owned())),
    }
}
