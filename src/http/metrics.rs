//! What the front counts and measures.

use prometheus_client::registry::Registry;

use crate::label::{Each, Label};
use crate::queue::metrics::RoutingMetrics;

#[derive(Debug, Default)]
pub struct HttpMetrics {
    pub requests: Each<Answered>,
    /// The queue's own, shared with it: what callers are answered.
    pub routing: RoutingMetrics,
}

impl HttpMetrics {
    /// Registers all but `routing`, which the queue registers.
    pub fn register(&self, to: &mut Registry) {
        let (name, help) = ("http_requests", "Requests to the front that were answered");
        to.register(name, help, self.requests.clone());
    }
}

/// A label: the route of a request to the front, and the class of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    route: &'static str,
    status: &'static str,
}

impl Answered {
    /// Any other path is `other`: clients make them up, and each label value lives as long as the process.
    const ROUTES: [&'static str; 12] = [
        Self::CALL,
        Self::STANDING,
        Self::NEXT,
        Self::EVENTS,
        "/hangup",
        "/transfer",
        "/variables",
        "/originate",
        "/setvar",
        "/health",
        "/ready",
        "other",
    ];
    pub const CALL: &'static str = "/call";
    pub const EVENTS: &'static str = "/events";
    pub const NEXT: &'static str = "/call/{uuid}/next";
    const STANDING: &'static str = "/call/{uuid}";

    /// Whether its errors are an agent's to read.
    pub fn is_agents(route: &str) -> bool {
        matches!(route, "/hangup" | "/transfer" | "/variables" | "/originate" | "/setvar")
    }

    /// The front never answers 1xx or 3xx.
    const STATUSES: [&'static str; 3] = ["2xx", "4xx", "5xx"];

    pub fn route_of(path: &str) -> &'static str {
        if let Some(call) = path.strip_prefix("/call/") {
            return if call.ends_with("/next") { Self::NEXT } else { Self::STANDING };
        }
        let known = Self::ROUTES.into_iter().find(|route| *route == path);
        known.unwrap_or("other")
    }

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
    fn a_path_that_clients_make_up_is_one_value() {
        let all = Answered::all();
        for (path, status, expected) in [
            ("/call", 200, [("route", "/call"), ("status", "2xx")]),
            ("/events", 202, [("route", "/events"), ("status", "2xx")]),
            ("/events", 503, [("route", "/events"), ("status", "5xx")]),
            ("/call/7f9c1f3e", 404, [("route", "/call/{uuid}"), ("status", "4xx")]),
            ("/call/7f9c1f3e/next", 200, [("route", "/call/{uuid}/next"), ("status", "2xx")]),
            ("/hangup", 429, [("route", "/hangup"), ("status", "4xx")]),
            ("/originate", 501, [("route", "/originate"), ("status", "5xx")]),
            ("/calls", 404, [("route", "other"), ("status", "4xx")]),
            ("/wp-login.php", 404, [("route", "other"), ("status", "4xx")]),
        ] {
            let answered = Answered::new(Answered::route_of(path), status);
            assert!(all.contains(&answered));
            assert_eq!(answered.pairs(), expected);
        }
    }
}
