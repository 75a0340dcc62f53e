//! From an error of the wire to a [`Failure`], in the words that AVR's operators know.

use std::error::Error as _;
use std::io;
use std::iter::successors;
use std::time::Duration;

use super::settings::WebhookSettings;
use crate::attempt::{Failure, FailureCode};
use crate::text::innermost;
use crate::wire::connections::AskError;
use crate::wire::dial::DialError;
use crate::wire::proxy::{ProxyError, ProxyFault};
use crate::wire::tcp::TcpError;
use crate::wire::tls;

/// For a request that failed before the head of an answer was read.
pub fn of_request(error: &AskError, settings: &WebhookSettings, took: Duration) -> Failure {
    let (code, error) = match error {
        AskError::Dial(DialError::Tcp(error)) => of_tcp(error, &settings.host_and_port()),
        AskError::Dial(DialError::Tls(fault)) => of_tls(fault, settings),
        AskError::Dial(DialError::Proxy(error)) => return of_proxy(error, settings, took),
        AskError::Http(error) => of_http(error, settings),
    };
    Failure::unanswered(code, error, took)
}

/// For a request that the proxy did not let through.
pub fn of_proxy(error: &ProxyError, settings: &WebhookSettings, took: Duration) -> Failure {
    let place = error.place.to_string();
    let words = match &error.fault {
        ProxyFault::Tcp(error) => of_tcp(error, &place).1,
        fault => fault.to_string(),
    };
    let error = format!("proxy {place} ({}): {words}", settings.name.variable("PROXY"));
    Failure::unanswered(FailureCode::Proxy, error, took)
}

fn of_tcp(error: &TcpError, address: &str) -> (FailureCode, String) {
    match error {
        TcpError::NotResolved { host, .. } => {
            (FailureCode::NotFound, format!("getaddrinfo ENOTFOUND {host}"))
        }
        TcpError::Connect(error) => classify_io(error, address).unwrap_or_else(|| {
            (FailureCode::ConnectionReset, format!("connect failed ({})", innermost(error)))
        }),
    }
}

fn of_tls(fault: &tls::Fault, settings: &WebhookSettings) -> (FailureCode, String) {
    let hint = match fault.of_identity {
        true => format!("; {} sets it", settings.name.variable("CLIENT_CERT")),
        false => String::new(),
    };
    let error = format!("write EPROTO {}: {fault}{hint}", settings.host_and_port());
    (FailureCode::Tls, error)
}

fn of_http(error: &hyper::Error, settings: &WebhookSettings) -> (FailureCode, String) {
    let address = settings.host_and_port();
    let io = successors(error.source(), |&cause| cause.source())
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    let mut known = io.filter_map(|error| match tls::fault(error) {
        Some(fault) => Some(of_tls(&fault, settings)),
        None => classify_io(error, &address),
    });
    if let Some(known) = known.next() {
        known
    } else if error.is_parse() {
        (FailureCode::BadResponse, format!("answer is not HTTP: {error}"))
    } else {
        // Such as hyper's "connection closed before message completed".
        (FailureCode::ConnectionReset, format!("socket hang up ({})", innermost(error)))
    }
}

/// An `io::Error` may wrap another error without reporting it as its source.
fn classify_io(error: &io::Error, address: &str) -> Option<(FailureCode, String)> {
    if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>()) {
        return classify_io(inner, address);
    }
    let (code, verb) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (FailureCode::ConnectionRefused, "connect"),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => (FailureCode::ConnectionReset, "read"),
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown => (FailureCode::HostUnreachable, "connect"),
        io::ErrorKind::TimedOut => (FailureCode::Timeout, "connect"),
        _ => return None,
    };
    Some((code, format!("{verb} {} {address}", code.name())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tcp::Place;
    use rustls::{AlertDescription, Error};

    #[test]
    fn a_fault_names_the_setting_of_the_receiver_that_it_is_about() {
        let settings = WebhookSettings {
            name: "crm".parse().unwrap(),
            ..WebhookSettings::to("https://h/".parse().unwrap(), Duration::ZERO)
        };
        let told = |error: DialError| of_request(&error.into(), &settings, Duration::ZERO).error;
        let alert = Error::AlertReceived(AlertDescription::CertificateRequired);
        let fault = tls::fault(&io::Error::other(alert)).unwrap();
        let error = told(fault.into());
        assert!(error.starts_with("write EPROTO h:443: it asks for a client cert"), "{error}");
        assert!(error.ends_with("; RECEIVER_CRM_CLIENT_CERT sets it"), "{error}");
        let place = Place::of(&"http://p:3128".parse().unwrap());
        let error = told(ProxyError { place, fault: ProxyFault::AsksForUser }.into());
        assert!(error.starts_with("proxy p:3128 (RECEIVER_CRM_PROXY): it asks for"), "{error}");
    }
}
