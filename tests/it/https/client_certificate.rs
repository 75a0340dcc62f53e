//! A receiver that asks for a certificate (mTLS): it is shown the one of the settings, the one that SIGHUP read last,
//! and what it says of none or another is told.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::files::renewed;
use crate::support::event::{bare, new_uuid};
use crate::support::receiver::Receiver;
use crate::support::service::{Service, run, serve};
use crate::support::tls::{self, Curtain, client_file};

/// A receiver behind TLS that asks for a certificate, and its URL.
async fn receiver() -> (Receiver, Curtain, String) {
    let receiver = Receiver::content().await;
    let inside = ([127, 0, 0, 1], receiver.port()).into();
    let curtain = Curtain::before(inside, tls::asking_acceptor()).await;
    let url = format!("https://localhost:{}/events", curtain.port);
    (receiver, curtain, url)
}

fn certificate(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(client_file(name)).expect("a certificate")
}

async fn send(service: &Service) {
    service.relay(bare(&new_uuid(), "call_started")).await;
}

async fn refused(vars: &[(&str, &str)]) -> Value {
    let (receiver, _curtain, url) = receiver().await;
    let trusted = [("SSL_CERT_FILE", tls::AUTHORITY)];
    let service = serve(&url, &[&trusted, vars].concat()).await;
    send(&service).await;
    let line = service.log_line(|line| line["message"] == "webhook delivery failed").await;
    assert_eq!(line["code"], "EPROTO", "{line}");
    assert!(receiver.so_far().is_empty());
    line
}

#[tokio::test]
async fn a_receiver_that_asks_is_shown_the_certificate() {
    let (receiver, curtain, url) = receiver().await;
    let (cert, key) = (client_file("client.pem"), client_file("client.key"));
    let vars = [
        ("SSL_CERT_FILE", tls::AUTHORITY),
        ("WEBHOOK_CLIENT_CERT", &cert),
        ("WEBHOOK_CLIENT_KEY", &key),
    ];
    let service = serve(&url, &vars).await;
    send(&service).await;
    receiver.seen(1).await;
    assert_eq!(curtain.shown.look(<[_]>::to_vec), [Some(certificate("client.pem"))]);
    let (code, listing, _) =
        run(&["config"], &[&vars[..], &[("WEBHOOK_URL", &url)]].concat()).await;
    assert_eq!(code, 0);
    assert!(
        listing.contains(&format!("WEBHOOK_CLIENT_KEY={key}")),
        "a path is no secret: {listing}"
    );
}

#[tokio::test]
async fn a_receiver_that_asks_in_vain_is_told_as_that_with_the_variable() {
    let line = refused(&[]).await;
    let error = line["error"].as_str().unwrap();
    assert!(error.contains("asks for a client certificate"), "{error}");
    assert!(error.contains("WEBHOOK_CLIENT_CERT"), "{error}");
}

#[tokio::test]
async fn a_certificate_that_the_receiver_refuses_is_told_and_an_expired_one_is_warned_of_at_start()
{
    let (cert, key) = (client_file("expired.pem"), client_file("client.key"));
    let vars = [("WEBHOOK_CLIENT_CERT", cert.as_str()), ("WEBHOOK_CLIENT_KEY", &key)];
    let line = refused(&vars).await;
    let error = line["error"].as_str().unwrap();
    assert!(
        error.contains("CertificateExpired") && error.contains("WEBHOOK_CLIENT_CERT"),
        "{error}"
    );
    for (name, told) in [
        ("expired.pem", "it expired on 2021-03-04T05:06:07Z"),
        ("not-yet-valid.pem", "it is not valid before 2100-01-01T00:00:00Z"),
    ] {
        let cert = client_file(name);
        let vars = [("WEBHOOK_CLIENT_CERT", cert.as_str()), ("WEBHOOK_CLIENT_KEY", &key)];
        let service = serve("https://localhost:1/", &vars).await;
        let warned = |line: &Value| line["message"].to_string().contains("WEBHOOK_CLIENT_CERT");
        let line = service.log_line(warned).await;
        assert_eq!(line["level"], "warn", "{line}");
        let text = line["message"].as_str().unwrap();
        assert!(text.contains(told) && text.contains(&cert), "{text}");
    }
}

#[tokio::test]
async fn a_certificate_of_the_first_version_of_x509_will_do() {
    let (cert, key) = (client_file("version-1.pem"), client_file("client.key"));
    let vars = [("WEBHOOK_CLIENT_CERT", cert.as_str()), ("WEBHOOK_CLIENT_KEY", &key)];
    serve("https://localhost:1/", &vars).await;
    let other = client_file("other.key");
    let vars = [("WEBHOOK_URL", "https://h/"), vars[0], ("WEBHOOK_CLIENT_KEY", &other)];
    let (code, _, said) = run(&["config"], &vars).await;
    assert!(code == 64 && said.contains("is not the key of the first certificate"), "{said}");
}

/// A certificate and key that can be changed.
struct Pair(TempDir);

impl Pair {
    fn of(cert: &str, key: &str) -> Pair {
        let pair = Pair(TempDir::new().expect("a temporary directory"));
        pair.put("cert", cert);
        pair.put("key", key);
        pair
    }

    fn put(&self, place: &str, name: &str) {
        std::fs::copy(client_file(name), self.path(place)).expect("it can be copied");
    }

    fn path(&self, place: &str) -> String {
        self.0.path().join(place).to_str().expect("a path of plain text").to_owned()
    }
}

#[tokio::test]
async fn sighup_reads_certificate_and_key_anew_together_and_new_connections_show_them() {
    let (receiver, curtain, url) = receiver().await;
    let pair = Pair::of("client.pem", "client.key");
    let (cert, key) = (pair.path("cert"), pair.path("key"));
    let vars = [
        ("SSL_CERT_FILE", tls::AUTHORITY),
        ("WEBHOOK_CLIENT_CERT", &cert),
        ("WEBHOOK_CLIENT_KEY", &key),
    ];
    let service = serve(&url, &vars).await;
    send(&service).await;
    receiver.seen(1).await;
    // A key that is not the certificate's: both stay.
    pair.put("key", "other.key");
    assert_eq!(renewed(&service, 1).await, "");
    let warned = |line: &Value| line["message"].to_string().contains("old value stays");
    let line = service.log_line(warned).await;
    assert!(line["level"] == "warn" && line["message"].to_string().contains("WEBHOOK_CLIENT_KEY"));
    send(&service).await;
    receiver.seen(2).await;
    pair.put("cert", "other.pem");
    assert_eq!(renewed(&service, 2).await, "WEBHOOK_CLIENT_CERT, WEBHOOK_CLIENT_KEY");
    send(&service).await;
    receiver.seen(3).await;
    let shown = curtain.shown.look(<[_]>::to_vec);
    let (first, last) = (certificate("client.pem"), certificate("other.pem"));
    assert_eq!((shown.first(), shown.last()), (Some(&Some(first)), Some(&Some(last))));
    std::fs::remove_file(pair.path("cert")).unwrap();
    assert_eq!(renewed(&service, 3).await, "");
    send(&service).await;
    receiver.seen(4).await;
    // An expired one is taken, with a warning.
    pair.put("cert", "expired.pem");
    pair.put("key", "client.key");
    assert_eq!(renewed(&service, 4).await, "WEBHOOK_CLIENT_CERT, WEBHOOK_CLIENT_KEY");
    service.log_line(|line| line["message"].to_string().contains("expired on 2021")).await;
}
