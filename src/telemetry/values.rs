//! The values of each label.

use crate::bridge::life::Reason;
use crate::event::EventType;
use crate::label::Label;
use crate::queue::Refused;
use crate::routing::NoDecision;

/// An event's type; all that callhook does not know by name are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(usize);

impl From<&EventType> for Kind {
    fn from(kind: &EventType) -> Self {
        let known = EventType::KNOWN.iter().position(|known| known == kind);
        Self(known.unwrap_or(EventType::KNOWN.len()))
    }
}

impl Label for Kind {
    fn all() -> Vec<Self> {
        (0..=EventType::KNOWN.len()).map(Self).collect()
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        const KNOWN: [EventType; 7] = EventType::KNOWN;
        vec![("type", KNOWN.get(self.0).map_or("other", |kind| kind.name()))]
    }
}

/// Why an event was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `QUEUE_LIMIT` is reached, or would be.
    Full,
    /// The journal cannot be written.
    Disk,
    /// callhook is stopping.
    Stopping,
    /// Too many events of one bridged call wait for the journal.
    Backlog,
}

impl From<&Refused> for Refusal {
    fn from(refused: &Refused) -> Self {
        match refused {
            Refused::Full { .. } | Refused::TooMany { .. } => Self::Full,
            Refused::Disk(_) => Self::Disk,
            Refused::Draining => Self::Stopping,
        }
    }
}

impl Label for Refusal {
    fn all() -> Vec<Self> {
        vec![Self::Full, Self::Disk, Self::Stopping, Self::Backlog]
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        let reason = match self {
            Self::Full => "full",
            Self::Disk => "disk",
            Self::Stopping => "stopping",
            Self::Backlog => "backlog",
        };
        vec![("reason", reason)]
    }
}

/// How an attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempted {
    /// A 2xx came back.
    Delivered,
    /// Anything else.
    Failed,
}

impl Label for Attempted {
    fn all() -> Vec<Self> {
        vec![Self::Delivered, Self::Failed]
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        let outcome = match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        };
        vec![("outcome", outcome)]
    }
}

impl Label for Reason {
    fn all() -> Vec<Self> {
        Self::ALL.to_vec()
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![("reason", self.name())]
    }
}

/// What somebody who waited for a decision was answered: a decision, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed(pub Option<NoDecision>);

impl Label for Routed {
    fn all() -> Vec<Self> {
        let without = NoDecision::ALL.into_iter().map(Some);
        std::iter::once(None).chain(without).map(Self).collect()
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![("outcome", self.0.map_or("decided", NoDecision::name))]
    }
}

/// A request to the front, and the class of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    route: &'static str,
    status: &'static str,
}

impl Answered {
    /// The front's paths; any other is `other`, as clients make them up.
    const ROUTES: [&'static str; 5] = ["/call", "/events", "/health", "/ready", "other"];

    /// The classes of statuses that are answered; none is informational or a redirect.
    const STATUSES: [&'static str; 3] = ["2xx", "4xx", "5xx"];

    /// The route of a path.
    pub fn route_of(path: &str) -> &'static str {
        let known = Self::ROUTES.into_iter().find(|route| *route == path);
        known.unwrap_or("other")
    }

    /// A request for this route, answered with this status.
    pub fn new(route: &'static str, status: u16) -> Self {
        let [fine, refused, failed] = Self::STATUSES;
        let status = match status {
            ..400 => fine,
            400..500 => refused,
            500.. => failed,
        };
        Self { route, status }
    }
}

impl Label for Answered {
    fn all() -> Vec<Self> {
        let each = |route| Self::STATUSES.map(|status| Self { route, status });
        Self::ROUTES.into_iter().flat_map(each).collect()
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![("route", self.route), ("status", self.status)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_is_not_known_is_one_value() {
        let shown = |kind: EventType| Kind::from(&kind).pairs();
        assert_eq!(shown(EventType::DtmfDigit), [("type", "dtmf_digit")]);
        assert_eq!(shown(EventType::Error), [("type", "error")]);
        for name in ["tool", "other", "call_id_4711"] {
            assert_eq!(shown(name.parse().unwrap()), [("type", "other")]);
        }
        assert_eq!(Kind::all().len(), 8);
    }

    #[test]
    fn a_path_that_clients_make_up_is_one_value() {
        let all = Answered::all();
        for (path, status, expected) in [
            ("/call", 200, [("route", "/call"), ("status", "2xx")]),
            ("/events", 202, [("route", "/events"), ("status", "2xx")]),
            ("/events", 503, [("route", "/events"), ("status", "5xx")]),
            ("/wp-login.php", 404, [("route", "other"), ("status", "4xx")]),
        ] {
            let answered = Answered::new(Answered::route_of(path), status);
            assert!(all.contains(&answered));
            assert_eq!(answered.pairs(), expected);
        }
    }
}
