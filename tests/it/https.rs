//! A receiver behind https: whom callhook trusts, and what it says of somebody it does not.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::event::{event, new_uuid};
use crate::support::service::{Service, serve};
use crate::support::tls;

/// A receiver that speaks TLS and answers one request; returns its port, and what it was sent.
async fn receiver() -> (u16, tokio::task::JoinHandle<String>) {
    let acceptor = tls::acceptor();
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
    assert_eq!(line["status"], Value::Null);
    assert_eq!(request.await.unwrap(), "", "nothing was sent");
}
