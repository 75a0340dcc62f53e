//! The rules: what an answer has to be. Pure; each says in plain words what is wrong and what to do.

use hyper::header::LOCATION;

use super::exchange::Answer;
use crate::text::printable;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub reason: String,
    pub advice: Option<&'static str>,
}

impl Complaint {
    pub fn new(reason: impl Into<String>, advice: &'static str) -> Self {
        Self { reason: reason.into(), advice: Some(advice) }
    }
}

/// The statuses that pass, and what to say of all others.
#[derive(Clone, Copy)]
pub struct Rule {
    passes: fn(u16) -> bool,
    /// Follows the status that was answered: which one was expected, where that is not plain.
    expected: &'static str,
    /// What to do about a status that does not pass.
    advice: fn(u16) -> &'static str,
}

impl Rule {
    /// Judges the answer to `what`.
    pub fn judge(&self, answer: &Answer, what: &str) -> Result<(), Complaint> {
        let status = answer.status.as_u16();
        if (self.passes)(status) {
            return Ok(());
        }
        let mut reason = format!("{what} was answered {status}{}", self.expected);
        let redirected = answer.status.is_redirection();
        if let Some(to) = answer.header(&LOCATION).filter(|_| redirected) {
            reason.push_str(&format!(", a redirect to {}", printable(to)));
        }
        Err(Complaint::new(reason, (self.advice)(status)))
    }
}

const REDIRECTED: &str = "Redirects are not followed. Give the URL that it redirects to.";

/// Any 2xx: an event that a call can really bring is taken, or it is lost.
pub const ACCEPTED: Rule = Rule {
    passes: |status| matches!(status, 200..=299),
    expected: "",
    advice: |status| match status {
        300..=399 => REDIRECTED,
        400 | 410 | 413 | 415 | 422 => {
            "callhook takes this status as final and gives the event up at once. Take the event with \
             a 2xx, even if the receiver has no use for it."
        }
        500..=599 => {
            "callhook retries such an event and then gives it up. See the receiver's own log for the \
             error, and answer 200 once the event is taken."
        }
        _ => "Every event that a call can bring needs a 2xx; any other status is a failure.",
    },
};

/// [`ACCEPTED`], of an event that came before.
pub const ACCEPTED_AGAIN: Rule = Rule {
    advice: |_| {
        "An event whose answer got lost is sent again with the same webhook-id, so a repeat is no \
         fault. Remember the ids of the last hour, and answer a repeat as the first time."
    },
    ..ACCEPTED
};

/// [`ACCEPTED`], of an event of a call that has ended.
pub const ACCEPTED_LATE: Rule = Rule {
    advice: |_| {
        "The last sentence of a call is often transcribed after its end: take what comes late with a \
         2xx, and store or ignore it."
    },
    ..ACCEPTED
};

/// [`ACCEPTED`], of a `call_initiated`.
pub const ROUTED: Rule = Rule {
    advice: |_| {
        "Answer 200 with {} or with {\"sts_url\":\"ws://HOST:PORT\"}. Callers still reach STS_URL, but \
         none can be routed, and each such event is given up. AVR's sample receiver does this by a \
         fault of its own, `res is not defined`: hand its route for call_initiated the response to \
         answer with."
    },
    ..ACCEPTED
};

/// Any answer at all.
pub const ANSWERED: Rule = Rule { passes: |_| true, expected: "", advice: |_| "" };

/// A 2xx or a 4xx: what no call brings may be refused, but not break anything.
pub const TOLERATED: Rule = Rule {
    passes: |status| matches!(status, 200..=299 | 400..=499),
    expected: "",
    advice: |_| {
        "Take it with a 2xx, or refuse it with a 400: a 5xx says that the receiver is broken, so the \
         event is retried for nothing."
    },
};

/// 4xx: it cannot be read, and no retry mends that.
pub const REFUSED_AS_BAD: Rule = Rule {
    passes: |status| matches!(status, 400..=499),
    expected: "",
    advice: |status| match status {
        200..=299 => {
            "A body that cannot be read is no event: with a 2xx it counts as delivered and is lost \
             without a trace. Answer 400."
        }
        _ => {
            "Answer 400 to what cannot be read. A 5xx says that the receiver is broken, so the event \
             is retried for nothing."
        }
    },
};

/// 401: the sender is not who it should be.
pub const UNAUTHORIZED: Rule = Rule {
    passes: |status| status == 401,
    expected: ", not 401",
    advice: |status| match status {
        200..=299 => {
            "Anybody who finds this URL can make up calls. Compare X-AVR-WEBHOOK-SECRET with the \
             secret before anything else, and answer 401 where it differs or is missing."
        }
        _ => "Answer 401, as AVR's own receivers do, so that the cause is plain in logs.",
    },
};

/// 400, 401 or 403: the signature is bad.
pub const UNSIGNED: Rule = Rule {
    passes: |status| matches!(status, 400 | 401 | 403),
    expected: ", not 400, 401 or 403",
    advice: |_| {
        "Verify webhook-signature over `{webhook-id}.{webhook-timestamp}.{body}` with the raw body, \
         and refuse timestamps over five minutes old. There are libraries at \
         https://www.standardwebhooks.com."
    },
};

/// Anything but a 5xx; 501 is the proper answer to a method that a server does not know (RFC 9110,
/// section 15.6.2).
pub const UNBROKEN: Rule = Rule {
    passes: |status| status == 501 || !matches!(status, 500..=599),
    expected: "",
    advice: |_| {
        "Answer 404 or 405, or a page. Browsers, monitors and load balancers send GET and HEAD to any \
         URL they know."
    },
};

/// Anything that lets the other checks judge the receiver: not the wrong place, not the wrong
/// sender.
pub const REACHED: Rule = Rule {
    passes: |status| !matches!(status, 300..=399 | 401 | 403..=405),
    expected: "",
    advice: |status| match status {
        300..=399 => REDIRECTED,
        401 | 403 => {
            "The receiver expects another sender: give its secret with --secret, and its signing key, \
             if it has one, with --signing-key."
        }
        _ => {
            "The path is probably another one. AVR's receivers listen on /events (avr-webhook) and \
             /webhooks (avr-app)."
        }
    },
};

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;

    fn statuses_that_pass(rule: Rule) -> Vec<u16> {
        let answer = |status| Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: hyper::header::HeaderMap::new(),
            body: bytes::Bytes::new(),
            connection: None,
        };
        (200..600).filter(|status| rule.judge(&answer(*status), "it").is_ok()).collect()
    }

    #[test]
    fn each_rule_passes_the_statuses_that_it_says() {
        let within = |ranges: &[std::ops::RangeInclusive<u16>]| -> Vec<u16> {
            ranges.iter().cloned().flatten().collect()
        };
        for (rule, expected) in [
            (ACCEPTED, within(&[200..=299])),
            (TOLERATED, within(&[200..=299, 400..=499])),
            (REFUSED_AS_BAD, within(&[400..=499])),
            (UNAUTHORIZED, within(&[401..=401])),
            (UNSIGNED, within(&[400..=401, 403..=403])),
            (UNBROKEN, within(&[200..=499, 501..=501])),
            (REACHED, within(&[200..=299, 400..=400, 402..=402, 406..=599])),
        ] {
            assert_eq!(statuses_that_pass(rule), expected);
        }
    }
}
