//! Advice: what is probably a mistake in the settings, but no error.

use std::collections::BTreeMap;

use super::further;
use super::layers::Layers;
use super::names::{self, FURTHER, variables};
use super::value::is_set;
use crate::delivery::WebhookSettings;
use crate::event::{EventFilter, EventType};
use crate::receiver::ReceiverName;
use crate::routing::destination::Destinations;
use crate::text::{misspelt, nearest};

/// Names that AVR's own set-ups use and that look like callhook's.
const OF_AVR: [&str; 4] = ["TTS_URL", "WEBHOOK_FORWARD_URL", "WEBHOOK_LOG_LEVEL", "WEBHOOK_PORT"];

/// Those of AVR Core that callhook does not do, with what each is for.
const NOT_DONE: [(&str, &str); 4] = [
    ("ASR_URL", "speech recognition"),
    ("LLM_URL", "language models"),
    ("TTS_URL", "speech synthesis"),
    ("AMBIENT_NOISE_", "background noise"),
];

/// Variables that are nearly a setting.
pub fn unknown_names(environment: &BTreeMap<String, String>, names: &[String]) -> Vec<String> {
    let names = variables(names);
    let meant = |name: &str| match name.starts_with("WEBHOOK_") {
        true => nearest(name, &names).map(str::to_owned),
        false => of_further(name, &names).or_else(|| misspelt(name, &names).map(str::to_owned)),
    };
    environment
        .keys()
        .filter(|name| !names.contains(name) && !OF_AVR.contains(&name.as_str()))
        // What names a receiver is one's setting, be it empty, or a fault that is told.
        .filter(|name| further::name_in(name).is_none())
        .filter_map(|name| {
            let meant = meant(name)?;
            Some(format!("{name} is not a setting and is ignored; did you mean {meant}?"))
        })
        .collect()
}

/// What of a further receiver's settings a name may be meant to be. Of one that is known already it is the nearest;
/// else it may be somebody else's.
fn of_further(name: &str, names: &[String]) -> Option<String> {
    let (prefix, rest) = name.split_once('_')?;
    let right = FURTHER.trim_end_matches('_');
    if prefix != right && misspelt(prefix, &[right]).is_none() {
        return None;
    }
    let receiver: ReceiverName = rest.split_once('_')?.0.parse().ok()?;
    let settings = variables(&names::of_receiver(&receiver));
    let corrected = format!("{FURTHER}{rest}");
    let meant = match names.contains(&settings[0]) {
        true => nearest(&corrected, &settings),
        false => misspelt(&corrected, &settings),
    };
    meant.map(str::to_owned)
}

/// Certificates that receivers will refuse.
pub fn out_of_date(webhooks: &[Option<WebhookSettings>], layers: &Layers) -> Vec<String> {
    let faults = webhooks.iter().flatten().filter_map(|webhook| {
        let fault = webhook.identity.as_ref()?.out_of_date()?;
        let name = webhook.name.variable("CLIENT_CERT");
        let path = layers.text(&name).unwrap_or_default();
        Some(format!(
            "{name}={path}: receivers will refuse this certificate, since {fault}; put a new one there and send SIGHUP"
        ))
    });
    faults.collect()
}

/// `variable` lists them.
pub fn unknown_events(variable: &str, events: &EventFilter) -> Vec<String> {
    let EventFilter::Only(kinds) = events else {
        return Vec::new();
    };
    let known: Vec<String> = EventType::KNOWN.iter().map(|kind| kind.name().to_owned()).collect();
    kinds
        .iter()
        .filter(|kind| matches!(kind, EventType::Other(_)))
        .map(|kind| {
            let nearest = nearest(kind.name(), &known).unwrap_or_default();
            format!("{variable} lists {kind}, which callhook itself never sends; did you mean {nearest}?")
        })
        .collect()
}

/// What a list of destinations allows that its author may not have meant.
pub fn odd_destinations(name: &str, destinations: &Destinations) -> Vec<String> {
    let odd = destinations.rules().iter().filter_map(|rule| {
        if rule.is_void() {
            return Some(format!(
                "{name} lists {rule}, which is never allowed: an extension of one letter is Asterisk's own"
            ));
        }
        rule.is_open().then(|| {
            format!(
                "{name} lists {rule}: callers can be sent to any extension of that context, and an agent dials what a \
                 caller talks it into; list extensions one by one unless all of them are harmless and cost nothing"
            )
        })
    });
    odd.collect()
}

/// Why callers may hear nothing.
pub fn missing_speech(environment: &BTreeMap<String, String>, has_sts: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if !has_sts {
        warnings.push(
            "STS_URL is not set: callers whom the receiver does not route hear silence, since callhook does no speech \
             recognition or synthesis of its own (as a relay of events alone it needs none)"
                .to_owned(),
        );
    }
    for (name, what) in NOT_DONE {
        let is_it = |given: &str| match name.ends_with('_') {
            true => given.starts_with(name),
            false => given == name,
        };
        let given: Vec<&str> = environment
            .iter()
            .filter(|(given, value)| is_it(given) && is_set(value))
            .map(|(given, _)| given.as_str())
            .collect();
        if !given.is_empty() {
            warnings.push(format!(
                "{} set, but callhook does no {what}: it bridges calls to the speech-to-speech server at STS_URL",
                given.join(", ")
            ));
        }
    }
    warnings
}
