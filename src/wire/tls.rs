//! TLS: whom callhook trusts, and each fault in words: what is wrong, and what to do about it.
//!
//! Trusted are the system's certificate authorities, or in their place those in the file that `SSL_CERT_FILE`
//! names. A common name alone counts for nothing, as with every current client
//! ([RFC 9525](https://www.rfc-editor.org/rfc/rfc9525)).

use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio_rustls::TlsConnector;

use super::identity::{Identity, shown};

/// How to make a certificate that is accepted.
const MAKE_ANEW: &str = "make it anew with `openssl req -x509 … -addext basicConstraints=critical,CA:FALSE \
                         -addext subjectAltName=DNS:NAME`";

/// What failed of TLS, in words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{words}")]
pub struct Fault {
    words: String,
    /// Whether it is about the certificate that callhook shows, or does not have.
    pub of_identity: bool,
}

impl From<String> for Fault {
    fn from(words: String) -> Self {
        Self { words, of_identity: false }
    }
}

/// With what is shown to a server that asks for a certificate.
///
/// # Errors
/// If the trusted certificates cannot be loaded.
pub fn connector(identity: Option<&Identity>) -> Result<TlsConnector, Fault> {
    install_provider();
    let config = rustls::ClientConfig::builder().with_platform_verifier().map_err(|error| {
        format!(
            "{error}: install the system's ca-certificates, or name a file with certificates in PEM form in \
             SSL_CERT_FILE"
        )
    })?;
    let mut config = match identity {
        Some(identity) => config.with_client_cert_resolver(identity.resolver()),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

/// The first call sets it for the process; the error of later calls means nothing.
pub fn install_provider() {
    rustls::crypto::ring::default_provider().install_default().ok();
}

/// In words, if it was TLS that failed. An `io::Error` may wrap another error without reporting it as its
/// source.
pub fn fault(error: &io::Error) -> Option<Fault> {
    let carried = error.get_ref()?;
    match carried.downcast_ref::<io::Error>() {
        Some(inner) => fault(inner),
        None => carried.downcast_ref().map(|error| Fault {
            words: in_words(error),
            of_identity: matches!(error, Error::AlertReceived(alert) if is_of_identity(*alert)),
        }),
    }
}

fn in_words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(fault) => certificate_fault(fault),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "no TLS is spoken there; is the port right, or is it a plain http:// or ws:// URL?"
                .to_owned()
        }
        Error::AlertReceived(alert) => refusal(*alert),
        Error::PeerIncompatible(why) => {
            format!("it speaks neither TLS 1.2 nor 1.3 as callhook does ({why:?}); update it")
        }
        other => other.to_string(),
    }
}

/// What servers say of the certificate that a client shows, or does not show.
fn is_of_identity(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}

fn refusal(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "it asks for a client certificate, and callhook has none to show".to_owned()
        }
        AlertDescription::UnrecognisedName => {
            "it does not know the host name of the URL; use one of its own names".to_owned()
        }
        AlertDescription::ProtocolVersion => {
            "it speaks neither TLS 1.2 nor 1.3; update it".to_owned()
        }
        alert if is_of_identity(alert) => format!(
            "it does not accept the client certificate that callhook shows, or misses one ({alert:?}); its own log \
             may say why"
        ),
        other => format!("it refused the TLS handshake ({other:?}); its own log may say why"),
    }
}

fn certificate_fault(fault: &CertificateError) -> String {
    match fault {
        CertificateError::ExpiredContext { time, not_after } => format!(
            "its certificate expired on {}; renew it, or set this machine's clock, which says {}",
            shown(*not_after),
            shown(*time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "its certificate is not valid before {}; set this machine's clock, which says {}, or wait",
            shown(*not_before),
            shown(*time)
        ),
        CertificateError::UnknownIssuer => {
            "its certificate is signed by nobody whom this machine trusts, or it does not send the \
             certificates between; name a file with the authority's certificate, or its own self-signed one, \
             in SSL_CERT_FILE"
                .to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            wrong_name(&expected.to_str(), presented)
        }
        CertificateError::Revoked => "its certificate was revoked; replace it".to_owned(),
        CertificateError::BadEncoding => "its certificate cannot be read; replace it".to_owned(),
        CertificateError::BadSignature => {
            "its certificate is not signed by the authority that it names; was that one made anew? name a file \
             with the new authority's certificate in SSL_CERT_FILE"
                .to_owned()
        }
        CertificateError::Other(other) => match other.0.downcast_ref() {
            Some(webpki::Error::CaUsedAsEndEntity) => format!(
                "its certificate is an authority's (CA:TRUE), as `openssl req -x509` makes it by default, and \
                 not a server's; {MAKE_ANEW}, and name it in SSL_CERT_FILE"
            ),
            Some(webpki::Error::UnsupportedCertVersion) => {
                format!("its certificate is of an old version of X.509, without extensions; {MAKE_ANEW}")
            }
            Some(other) => format!("its certificate is not accepted ({other:?}); replace it"),
            None => format!("its certificate is not accepted ({}); replace it", other.0),
        },
        other => format!("its certificate is not accepted ({other}); replace it"),
    }
}

fn wrong_name(expected: &str, presented: &[String]) -> String {
    if presented.is_empty() {
        return format!(
            "its certificate names no host as subjectAltName (a common name alone does not count); \
             {MAKE_ANEW}, with {expected} for NAME"
        );
    }
    // webpki writes DnsName("h") and IpAddress(a).
    let names: Vec<&str> = presented
        .iter()
        .map(|name| name.split_once('(').map_or(name.as_str(), |(_, name)| name))
        .map(|name| name.trim_matches(['"', ')']))
        .collect();
    format!(
        "its certificate is for {}, not for {expected}; use one of its names in the URL, or a certificate \
         that has {expected} as subjectAltName",
        names.join(", ")
    )
}
