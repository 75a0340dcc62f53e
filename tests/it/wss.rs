//! An STS server behind TLS: whom callhook trusts, and what becomes of a call to somebody it does not.
//!
//! The certificates in `certificates/` are for `localhost`, vouched for by an authority of their own
//! whose key was thrown away.

use std::sync::Arc;

use crate::support::receiver::{Receiver, Reply};
use crate::support::service::Service;
use crate::support::stage::{Stage, uuid};
use crate::support::sts::{Manner, Sts};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates");

fn acceptor() -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(format!("{CERTIFICATES}/localhost.pem")).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(format!("{CERTIFICATES}/localhost.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// TLS in front of the STS server; returns its port.
async fn curtain(sts: &Sts) -> (u16, JoinSet<()>) {
    let inside = sts.url.strip_prefix("ws://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = acceptor();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (outer, _) = listener.accept().await.unwrap();
            let (acceptor, inside) = (acceptor.clone(), inside.clone());
            connections.spawn(async move {
                // Whoever does not trust the certificate goes away here.
                let Ok(mut outer) = acceptor.accept(outer).await else { return };
                let mut inner = TcpStream::connect(inside).await.unwrap();
                copy_bidirectional(&mut outer, &mut inner).await.ok();
            });
        }
    });
    (port, tasks)
}

/// A service whose STS server is behind TLS, and which trusts that file.
async fn stage(trusted: Option<&str>) -> (Stage, JoinSet<()>) {
    let sts = Sts::start(Manner::Usual).await;
    let (port, curtain) = curtain(&sts).await;
    let receiver = Receiver::start(|_| Reply::ok()).await;
    let url = format!("wss://localhost:{port}/agent");
    let mut vars = vec![("WEBHOOK_URL", receiver.url.as_str()), ("STS_URL", url.as_str())];
    vars.extend(trusted.map(|file| ("SSL_CERT_FILE", file)));
    let service = Service::start(&vars).await;
    (Stage { receiver, sts, service }, curtain)
}

#[tokio::test]
async fn an_sts_server_whose_authority_is_in_ssl_cert_file_is_trusted() {
    let (stage, _curtain) = stage(Some(&format!("{CERTIFICATES}/authority.pem"))).await;
    let mut call = stage.call().await;
    assert_eq!(call.session.target, "/agent");
    call.asterisk.silence(15).await;
    call.session.audio_of(15 * 320).await;
    call.session.audio(&[4; 640]).await;
    assert_eq!(call.ear.at_least(2).await[1].payload, [4; 320]);
    call.asterisk.hang_up().await;
    stage.ended_by(&call.uuid, "hangup").await;
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_fails_the_call() {
    let (stage, _curtain) = stage(None).await;
    let uuid = uuid();
    let asterisk = stage.dial(&uuid).await;
    asterisk.ear().hung_up().await;
    stage.ended_by(&uuid, "sts_failed").await;
    assert_eq!(stage.sts.sessions(), 0, "nothing was said to it");
}
