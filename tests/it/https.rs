//! A receiver behind https: whom callhook trusts, and what it says of somebody it does not.

mod client_certificate;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::support::event::{event, new_uuid};
use crate::support::receiver::Receiver;
use crate::support::service::{Service, run, serve};
use crate::support::tls;

/// A receiver that speaks TLS and answers one request; returns its port, and what it was sent.
async fn receiver() -> (u16, JoinHandle<String>) {
    receiver_with(tls::acceptor()).await
}

/// The same with this certificate.
async fn receiver_with(acceptor: TlsAcceptor) -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = async move {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = acceptor.accept(stream).await else { return String::new() };
        let mut request = Vec::new();
        while !request.ends_with(b"}}") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        stream.shutdown().await.unwrap();
        String::from_utf8(request).unwrap()
    };
    #[expect(clippy::disallowed_methods, reason = "the test awaits it")]
    (port, tokio::spawn(served))
}

/// Hands one event to a service whose receiver is at that port, and trusts that file.
async fn relay(port: u16, trusted: Option<&str>) -> Service {
    let url = format!("https://localhost:{port}/events");
    let vars: Vec<_> = trusted.map(|file| ("SSL_CERT_FILE", file)).into_iter().collect();
    let service = serve(&url, &vars).await;
    service.relay(event(&new_uuid(), "call_ended", json!({}))).await;
    service
}

#[tokio::test]
async fn an_authority_in_ssl_cert_file_is_trusted() {
    let (port, request) = receiver().await;
    let _service = relay(port, Some(tls::AUTHORITY)).await;
    let request = request.await.unwrap();
    assert!(request.starts_with("POST /events HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(r#""type":"call_ended""#), "{request}");
}

#[tokio::test]
async fn an_untrusted_certificate_is_eproto() {
    let (port, request) = receiver().await;
    let service = relay(port, None).await;
    let failed = |line: &Value| line["message"] == "webhook delivery failed";
    let line = service.log_line(failed).await;
    assert_eq!(line["code"], "EPROTO", "{line}");
    let error = line["error"].as_str().unwrap();
    assert!(error.contains("signed by nobody whom this machine trusts"), "{error}");
    assert!(error.contains("SSL_CERT_FILE"), "{error}");
    assert_eq!(line["status"], Value::Null);
    assert_eq!(request.await.unwrap(), "", "nothing was sent");
}

#[tokio::test]
async fn each_tls_fault_says_what_is_wrong_and_what_to_do() {
    for (certificate, words) in tls::FLAWS {
        let (port, _request) = receiver_with(tls::flawed_acceptor(certificate)).await;
        let service = relay(port, Some(tls::FLAWED_AUTHORITY)).await;
        let line = service.log_line(|line| line["message"] == "webhook delivery failed").await;
        assert_eq!(line["code"], "EPROTO", "{certificate}: {line}");
        let error = line["error"].as_str().unwrap();
        for word in words {
            assert!(error.contains(word), "{certificate}: {word:?} is missing in {error:?}");
        }
    }
}

#[tokio::test]
async fn a_self_signed_certificate_made_as_the_words_say_is_trusted() {
    let (port, request) = receiver_with(tls::flawed_acceptor("as-advised")).await;
    let _service = relay(port, Some(tls::FLAWED_AUTHORITY)).await;
    assert!(request.await.unwrap().starts_with("POST /events HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_receiver_that_speaks_no_tls_is_named_as_that() {
    let receiver = Receiver::content().await;
    let service = relay(receiver.port(), Some(tls::AUTHORITY)).await;
    let line = service.log_line(|line| line["message"] == "webhook delivery failed").await;
    assert_eq!(line["code"], "EPROTO", "{line}");
    assert!(line["error"].as_str().unwrap().contains("no TLS is spoken there"), "{line}");
}

#[tokio::test]
async fn a_start_without_trusted_certificates_says_where_they_come_from() {
    let vars = [
        ("WEBHOOK_URL", "https://localhost/events"),
        ("SSL_CERT_FILE", "/nowhere.pem"),
        ("JOURNAL_PATH", "none"),
    ];
    let (code, _, errors) = run(&["serve"], &vars).await;
    assert_ne!(code, 0, "{errors}");
    assert!(errors.contains("SSL_CERT_FILE") && errors.contains("PEM"), "{errors}");
}
