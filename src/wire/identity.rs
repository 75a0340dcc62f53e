//! Identity: the certificate that callhook shows to servers that ask for one (mTLS), with its key.
//!
//! Reads both from PEM, and says of each what is wrong with it and what to do about it. Leaves to the settings where
//! they stand, and when they are read anew.
//!
//! Invariants:
//! - The key is the certificate's.
//! - Nothing that is said quotes a file: one of them holds a key.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{Error as PemError, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{CertificateError, Error, InconsistentKeys};
use webpki::{EndEntityCert, KeyUsage};

/// callhook's own certificate first, then those between it and an authority.
pub type Chain = Vec<CertificateDer<'static>>;

#[derive(Clone)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// # Errors
    /// If the key is not that of the first certificate, or that one cannot be read.
    pub fn new(chain: Chain, key: Arc<dyn SigningKey>) -> Result<Self, String> {
        let identity = CertifiedKey::new(chain, key);
        let is_its_key = match identity.keys_match() {
            // Nobody can know, says rustls of some keys.
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => true,
            Err(Error::InconsistentKeys(_)) => false,
            Err(Error::InvalidCertificate(fault)) if is_old(&fault) => holds_key(&identity),
            Err(_) => return Err("the first certificate cannot be read; make it anew".to_owned()),
        };
        if !is_its_key {
            return Err("is not the key of the first certificate; name the two that were made together (`openssl \
                        pkey -in KEY -pubout` and `openssl x509 -in CERT -pubkey -noout` show the same)"
                .to_owned());
        }
        Ok(Self(Arc::new(identity)))
    }

    /// Why servers will not accept it now, if it is because of its dates.
    pub fn out_of_date(&self) -> Option<String> {
        self.0.cert.iter().find_map(out_of_date)
    }

    pub(super) fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.0)))
    }
}

/// The key must not be printed.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(***)")
    }
}

/// # Errors
/// What is wrong with the file, and what to do.
pub fn certificates(pem: &str) -> Result<Chain, String> {
    const EXPECTED: &str = "expected a certificate in PEM form (-----BEGIN CERTIFICATE-----; of DER, make it by \
                            `openssl x509 -inform DER -in FILE`, of PKCS #12 by `openssl pkcs12 -in FILE -nokeys`)";
    let kinds = kinds(pem).map_err(|fault| format!("{fault}; {EXPECTED}"))?;
    let chain: Result<Chain, PemError> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match chain {
        Ok(chain) if chain.is_empty() && kinds.iter().any(|kind| is_key(*kind)) => {
            Err("holds a private key and no certificate; that file belongs to the variable that ends in \
                 _CLIENT_KEY"
                .to_owned())
        }
        Ok(chain) if chain.is_empty() => Err(format!("holds no certificate; {EXPECTED}")),
        Ok(chain) => Ok(chain),
        Err(_) => Err(broken()),
    }
}

/// # Errors
/// As with [`certificates`].
pub fn private_key(pem: &str) -> Result<Arc<dyn SigningKey>, String> {
    const EXPECTED: &str = "expected a private key in PEM form (-----BEGIN PRIVATE KEY-----; of DER, make it by \
                            `openssl pkey -inform DER -in FILE`, of PKCS #12 by `openssl pkcs12 -in FILE -nocerts \
                            -noenc`)";
    // PKCS #8 says it in its label, the older forms in a line of their own.
    if pem.contains("ENCRYPTED") {
        return Err("is encrypted, and there is nobody to ask for its passphrase; write it anew without one \
                    (`openssl pkey -in FILE -out NEW`), readable for callhook alone"
            .to_owned());
    }
    let kinds = kinds(pem).map_err(|fault| format!("{fault}; {EXPECTED}"))?;
    let key = match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
        Ok(key) => key,
        Err(PemError::NoItemsFound) if kinds.contains(&SectionKind::Certificate) => {
            return Err("holds a certificate and no private key; that file belongs to the variable that ends in \
                        _CLIENT_CERT"
                .to_owned());
        }
        Err(PemError::NoItemsFound) => return Err(format!("holds no private key; {EXPECTED}")),
        Err(_) => return Err(broken()),
    };
    any_supported_type(&key).map_err(|_| {
        "holds a key that callhook cannot sign with; RSA (2048 to 4096 bits), ECDSA (P-256, P-384) and Ed25519 \
         can be used"
            .to_owned()
    })
}

/// What stands in it, if it is PEM.
fn kinds(pem: &str) -> Result<Vec<SectionKind>, String> {
    if !pem.contains("-----BEGIN ") {
        return Err("is not PEM".to_owned());
    }
    let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes());
    let kinds: Result<Vec<SectionKind>, PemError> =
        sections.map(|section| section.map(|(kind, _)| kind)).collect();
    kinds.map_err(|_| broken())
}

fn broken() -> String {
    "is PEM, but broken or cut off; copy it anew".to_owned()
}

fn is_key(kind: SectionKind) -> bool {
    matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey)
}

/// Of X.509's first version, as `openssl x509 -req` made them for long: servers take them, webpki does not read them.
fn is_old(fault: &CertificateError) -> bool {
    let CertificateError::Other(other) = fault else { return false };
    matches!(other.0.downcast_ref(), Some(webpki::Error::UnsupportedCertVersion))
}

/// Whether the public key stands in the certificate, byte for byte.
fn holds_key(identity: &CertifiedKey) -> bool {
    let (Some(key), Some(certificate)) = (identity.key.public_key(), identity.cert.first()) else {
        return false;
    };
    certificate.windows(key.len()).any(|bytes| bytes == key.as_ref())
}

/// Nobody is trusted here, so it always fails, but its dates are looked at before its issuer.
fn out_of_date(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let now = UnixTime::now();
    let verified =
        certificate.verify_for_usage(&[], &[], &[], now, KeyUsage::client_auth(), None, None);
    match verified.err()? {
        webpki::Error::CertExpired { not_after, .. } => {
            Some(format!("it expired on {}", shown(not_after)))
        }
        webpki::Error::CertNotValidYet { not_before, .. } => {
            Some(format!("it is not valid before {}", shown(not_before)))
        }
        _ => None,
    }
}

pub(super) fn shown(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    DateTime::from_timestamp(seconds, 0)
        .map_or_else(|| seconds.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}
