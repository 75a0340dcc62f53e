//! The rules: what an answer has to be. Pure; each says in plain words what is wrong and what to do.

use reqwest::StatusCode;
use reqwest::header::LOCATION;

use super::exchange::Answer;
use crate::text::printable;

/// What is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// What is wrong.
    pub reason: String,
    /// What to do, where that is known.
    pub advice: Option<&'static str>,
}

impl Complaint {
    /// Something wrong that explains itself.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), advice: None }
    }

    /// With what to do.
    pub fn advise(self, advice: &'static str) -> Self {
        Self { advice: Some(advice), ..self }
    }
}

/// Judges the answer to what is named.
pub type Rule = fn(&Answer, &str) -> Result<(), Complaint>;

/// Any 2xx: what a call can really bring is taken, or the event is lost.
pub fn accepted(answer: &Answer, what: &str) -> Result<(), Complaint> {
    let status = answer.status;
    if status.is_success() {
        return Ok(());
    }
    let complaint = Complaint::new(format!("{what} was answered {}", status.as_u16()));
    Err(if status.is_redirection() {
        redirected(answer, complaint)
    } else if status.is_server_error() {
        complaint.advise(
            "callhook tries such an event again and then gives it up. Look into the receiver's own \
             log for the error, and answer 200 once the event is taken.",
        )
    } else if matches!(status.as_u16(), 400 | 410 | 413 | 415 | 422) {
        complaint.advise(
            "callhook takes this status as final and gives the event up at once. Take the event with \
             a 2xx, also where it is of no use to the receiver.",
        )
    } else {
        complaint
            .advise("Every event that a call can bring needs a 2xx; any other status is a failure.")
    })
}

fn redirected(answer: &Answer, mut complaint: Complaint) -> Complaint {
    if let Some(to) = answer.header(&LOCATION) {
        complaint.reason.push_str(&format!(", a redirect to {}", printable(to)));
    }
    complaint.advise("Redirects are not followed. Give the URL that it redirects to.")
}

/// Any 2xx, also for an event that was there before.
pub fn accepted_again(answer: &Answer, what: &str) -> Result<(), Complaint> {
    let status = answer.status;
    if status.is_success() {
        return Ok(());
    }
    let reason = format!("the repeat of {what} was answered {}", status.as_u16());
    Err(Complaint::new(reason).advise(
        "An event whose answer got lost is sent again with the same webhook-id, so a repeat is no \
         fault. Remember the ids of the last hour, and answer a repeat as the first time.",
    ))
}

/// Any answer at all.
pub fn answered(_: &Answer, _: &str) -> Result<(), Complaint> {
    Ok(())
}

/// A 2xx or a 4xx: what no call brings may be refused, but not break anything.
pub fn tolerated(answer: &Answer, what: &str) -> Result<(), Complaint> {
    let status = answer.status;
    if status.is_success() || status.is_client_error() {
        return Ok(());
    }
    Err(Complaint::new(format!("{what} was answered {}", status.as_u16())).advise(
        "Take it with a 2xx, or refuse it with a 400: a 5xx says that the receiver is broken, so the \
         event is tried again for nothing.",
    ))
}

/// 4xx: it cannot be read, and no retry mends that.
pub fn refused_as_bad(answer: &Answer, what: &str) -> Result<(), Complaint> {
    let status = answer.status;
    if status.is_client_error() {
        return Ok(());
    }
    let complaint = Complaint::new(format!("{what} was answered {}", status.as_u16()));
    Err(if status.is_success() {
        complaint.advise(
            "A body that cannot be read is no event: with a 2xx it counts as delivered and is lost \
             without a trace. Answer 400.",
        )
    } else {
        complaint.advise(
            "Answer 400 to what cannot be read. A 5xx says that the receiver is broken, so the event \
             is tried again for nothing.",
        )
    })
}

/// 401: the sender is not who it should be.
pub fn unauthorized(answer: &Answer, what: &str) -> Result<(), Complaint> {
    let status = answer.status;
    if status == StatusCode::UNAUTHORIZED {
        return Ok(());
    }
    let complaint = Complaint::new(format!("{what} was answered {}, not 401", status.as_u16()));
    Err(if status.is_success() {
        complaint.advise(
            "Anybody who finds this URL can make up calls. Compare X-AVR-WEBHOOK-SECRET with the \
             secret before anything else, and answer 401 where it differs or is missing.",
        )
    } else {
        complaint
            .advise("Answer 401, as AVR's own receivers do, so that the cause is plain in logs.")
    })
}

/// 400, 401 or 403: the signature is not good.
pub fn unsigned(answer: &Answer, what: &str) -> Result<(), Complaint> {
    let status = answer.status.as_u16();
    if matches!(status, 400 | 401 | 403) {
        return Ok(());
    }
    Err(Complaint::new(format!("{what} was answered {status}, not 400, 401 or 403")).advise(
        "Verify webhook-signature over `{webhook-id}.{webhook-timestamp}.{body}` with the raw body, \
         and refuse timestamps over five minutes old. There are libraries at \
         https://www.standardwebhooks.com.",
    ))
}

/// Anything but a 5xx; 501 is the proper answer to a method that a server does not know (RFC 9110,
/// section 15.6.2).
pub fn unbroken(answer: &Answer, what: &str) -> Result<(), Complaint> {
    let status = answer.status;
    if !status.is_server_error() || status == StatusCode::NOT_IMPLEMENTED {
        return Ok(());
    }
    Err(Complaint::new(format!("{what} was answered {}", status.as_u16())).advise(
        "Answer 404 or 405, or a page. Browsers, monitors and load balancers send GET and HEAD to \
         any URL they know.",
    ))
}

/// Anything that lets the other checks judge the receiver: not the wrong place, not the wrong
/// sender.
pub fn reached(answer: &Answer, what: &str) -> Result<(), Complaint> {
    let status = answer.status;
    let complaint = Complaint::new(format!("{what} was answered {}", status.as_u16()));
    match status.as_u16() {
        300..=399 => Err(redirected(answer, complaint)),
        401 | 403 => Err(complaint.advise(
            "The receiver wants another sender: give its secret with --secret, and its signing key, \
             where it has one, with --signing-key.",
        )),
        404 | 405 => Err(complaint.advise(
            "The path is probably another one. AVR's receivers listen on /events (avr-webhook) and \
             /webhooks (avr-app).",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses_that_pass(rule: Rule) -> Vec<u16> {
        let answer = |status| Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: reqwest::header::HeaderMap::new(),
            body: bytes::Bytes::new(),
            connection: None,
        };
        (200..600).filter(|status| rule(&answer(*status), "it").is_ok()).collect()
    }

    #[test]
    fn each_rule_passes_the_statuses_that_it_says() {
        let within = |ranges: &[std::ops::RangeInclusive<u16>]| -> Vec<u16> {
            ranges.iter().cloned().flatten().collect()
        };
        for (rule, expected) in [
            (accepted as Rule, within(&[200..=299])),
            (tolerated, within(&[200..=299, 400..=499])),
            (refused_as_bad, within(&[400..=499])),
            (unauthorized, within(&[401..=401])),
            (unsigned, within(&[400..=401, 403..=403])),
            (unbroken, within(&[200..=499, 501..=501])),
            (reached, within(&[200..=299, 400..=400, 402..=402, 406..=599])),
        ] {
            assert_eq!(statuses_that_pass(rule), expected);
        }
    }
}
