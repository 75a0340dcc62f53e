//! A receiver behind https: whom callhook trusts, and what it says of somebody it does not.
//!
//! The certificates in `certificates/` are for `localhost`, vouched for by an authority of their own
//! whose key was thrown away.

use std::sync::Arc;

use crate::support::service::Service;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates");

/// A receiver that speaks TLS and answers one request; returns its port, and what it was sent.
async fn receiver() -> (u16, tokio::task::JoinHandle<String>) {
    let chain = CertificateDer::pem_file_iter(format!("{CERTIFICATES}/localhost.pem")).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(format!("{CERTIFICATES}/localhost.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
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
    let mut vars = vec![("WEBHOOK_URL", url.as_str())];
    vars.extend(trusted.map(|file| ("SSL_CERT_FILE", file)));
    let service = Service::start(&vars).await;
    let event = json!({"uuid": Uuid::new_v4().to_string(), "type": "call_ended", "payload": {}});
    assert_eq!(service.post("/events", event.to_string()).await.status, 202);
    service
}

#[tokio::test]
async fn an_authority_in_ssl_cert_file_is_trusted() {
    let (port, request) = receiver().await;
    let _service = relay(port, Some(&format!("{CERTIFICATES}/authority.pem"))).await;
    let request = request.await.unwrap();
    assert!(request.starts_with("POST /events HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(r#""type":"call_ended""#), "{request}");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_eproto() {
    let (port, request) = receiver().await;
    let service = relay(port, None).await;
    let failed = |line: &Value| line["message"] == "webhook delivery failed";
    let line = service.log_line(failed).await;
    assert_eq!(line["code"], "EPROTO", "{line}");
    assert_eq!(line["status"], Value::Null);
    assert_eq!(request.await.unwrap(), "", "nothing was sent");
}
