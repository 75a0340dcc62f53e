//! TLS for a stand-in. The certificates in `certificates/` are for `localhost`, signed by an authority of
//! their own whose key was thrown away.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

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

fn acceptor_of(chain: &str, key: &str) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(chain).expect("a file of certificates");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions that the provider has").with_no_client_auth();
    let config = config.with_single_cert(chain, key).expect("the key is the certificate's");
    TlsAcceptor::from(Arc::new(config))
}
