//! TLS for a stand-in. The certificates in `certificates/` are for `localhost`, signed by an authority of
//! their own whose key was thrown away; so are those in `client/`, for callhook.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::record::Record;

/// For `SSL_CERT_FILE`: trusts the authority alone.
pub const AUTHORITY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/authority.pem");
/// Trusts the authority of the certificates in `flawed/`, and the self-signed one among them.
pub const FLAWED_AUTHORITY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/flawed/trusted.pem");
/// Of the certificates in `flawed/`: what people have to be told about each.
pub const FLAWS: [(&str, &[&str]); 5] = [
    ("self-signed", &["CA:TRUE", "openssl req -x509", "CA:FALSE", "SSL_CERT_FILE"]),
    ("common-name", &["subjectAltName", "common name", "localhost"]),
    ("elsewhere", &["receiver.example, *.example.org, 192.0.2.7, not for localhost"]),
    ("expired", &["expired on 2021-03-04T05:06:07Z", "renew"]),
    ("not-yet-valid", &["not valid before 2100-01-01T00:00:00Z", "clock"]),
];
const CHAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/localhost.pem");
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/localhost.key");

pub fn acceptor() -> TlsAcceptor {
    acceptor_of(CHAIN, KEY)
}

/// With one of the certificates that are wrong in one way each (`flawed/`).
pub fn flawed_acceptor(certificate: &str) -> TlsAcceptor {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/flawed");
    acceptor_of(&format!("{directory}/{certificate}.pem"), &format!("{directory}/flawed.key"))
}

/// Asks for a certificate that the authority in `client/` signed.
pub fn asking_acceptor() -> TlsAcceptor {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(client_file("authority.pem"));
    roots.add(authority.expect("a certificate")).expect("an authority's");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    acceptor_with(CHAIN, KEY, Some(verifier.expect("a verifier")))
}

/// The path of one of callhook's own certificates or keys.
pub fn client_file(name: &str) -> String {
    format!("{}/tests/certificates/client/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn acceptor_of(chain: &str, key: &str) -> TlsAcceptor {
    acceptor_with(chain, key, None)
}

fn acceptor_with(
    chain: &str,
    key: &str,
    clients: Option<Arc<dyn rustls::server::danger::ClientCertVerifier>>,
) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(chain).expect("a file of certificates");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions that the provider has");
    let config = match clients {
        Some(verifier) => config.with_client_cert_verifier(verifier),
        None => config.with_no_client_auth(),
    };
    let config = config.with_single_cert(chain, key).expect("the key is the certificate's");
    TlsAcceptor::from(Arc::new(config))
}

/// TLS before a stand-in that speaks none; ends when dropped.
pub struct Curtain {
    pub port: u16,
    /// Of each connection that was let through: the certificate that was shown, if any.
    pub shown: Arc<Record<Option<CertificateDer<'static>>>>,
    _tasks: JoinSet<()>,
}

impl Curtain {
    pub async fn before(inside: SocketAddr, acceptor: TlsAcceptor) -> Curtain {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shown = Arc::<Record<Option<CertificateDer<'static>>>>::default();
        let mut tasks = JoinSet::new();
        let record = Arc::clone(&shown);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((outer, _)) = listener.accept().await {
                connections.spawn(draw(outer, acceptor.clone(), inside, Arc::clone(&record)));
            }
        });
        Curtain { port, shown, _tasks: tasks }
    }
}

async fn draw(
    outer: TcpStream,
    acceptor: TlsAcceptor,
    inside: SocketAddr,
    shown: Arc<Record<Option<CertificateDer<'static>>>>,
) {
    let mut outer = match acceptor.accept(outer).into_fallible().await {
        Ok(outer) => outer,
        // Closing on what was not read would lose the alert that says why.
        Err((_, mut refused)) => {
            while matches!(refused.read_buf(&mut Vec::new()).await, Ok(1..)) {}
            return;
        }
    };
    let certificates = outer.get_ref().1.peer_certificates();
    shown.push(certificates.and_then(|chain| Some(chain.first()?.clone().into_owned())));
    let mut inner = TcpStream::connect(inside).await.expect("the stand-in listens");
    // Either may break it off.
    copy_bidirectional(&mut outer, &mut inner).await.ok();
}
