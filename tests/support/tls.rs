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
const CHAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/localhost.pem");
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/localhost.key");

pub fn acceptor() -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(CHAIN).expect("a file of certificates");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(KEY).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions that the provider has").with_no_client_auth();
    let config = config.with_single_cert(chain, key).expect("the key is the certificate's");
    TlsAcceptor::from(Arc::new(config))
}
