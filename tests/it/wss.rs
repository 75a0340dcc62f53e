//! An STS server behind TLS: whom callhook trusts, and what becomes of a call to somebody it does not.

use crate::support::event::new_uuid;
use crate::support::receiver::Receiver;
use crate::support::service::Service;
use crate::support::stage::Stage;
use crate::support::sts::{Manner, Sts};
use crate::support::tls::{self, Curtain};
use tokio_rustls::TlsAcceptor;

/// A service whose STS server is behind TLS, and which trusts that file.
async fn stage(trusted: Option<&str>) -> (Stage, Curtain) {
    stage_with(tls::acceptor(), trusted).await
}

/// The same with this certificate.
async fn stage_with(acceptor: TlsAcceptor, trusted: Option<&str>) -> (Stage, Curtain) {
    let sts = Sts::start(Manner::Usual).await;
    let inside = sts.url.strip_prefix("ws://").unwrap().parse().unwrap();
    let curtain = Curtain::before(inside, acceptor).await;
    let receiver = Receiver::content().await;
    let url = format!("wss://localhost:{}/agent", curtain.port);
    let mut vars = vec![("WEBHOOK_URL", receiver.url.as_str()), ("STS_URL", url.as_str())];
    vars.extend(trusted.map(|file| ("SSL_CERT_FILE", file)));
    let service = Service::start(&vars).await;
    (Stage { receiver, sts, service }, curtain)
}

#[tokio::test]
async fn an_sts_server_whose_authority_is_in_ssl_cert_file_is_trusted() {
    let (stage, _curtain) = stage(Some(tls::AUTHORITY)).await;
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
async fn an_untrusted_certificate_fails_the_call() {
    let (stage, _curtain) = stage(None).await;
    let uuid = new_uuid();
    let asterisk = stage.dial(&uuid).await;
    asterisk.ear().hung_up().await;
    stage.ended_by(&uuid, "sts_failed").await;
    assert_eq!(stage.sts.sessions(), 0, "nothing was said to it");
}

#[tokio::test]
async fn each_tls_fault_is_in_the_log_in_the_words_that_a_receivers_is() {
    for (certificate, words) in tls::FLAWS {
        let acceptor = tls::flawed_acceptor(certificate);
        let (stage, _curtain) = stage_with(acceptor, Some(tls::FLAWED_AUTHORITY)).await;
        let _asterisk = stage.dial(&new_uuid()).await;
        let failed = "speech-to-speech server cannot be reached";
        let line = stage.service.log_line(|line| line["message"] == failed).await;
        let error = line["error"].as_str().unwrap();
        for word in words {
            assert!(error.contains(word), "{certificate}: {word:?} is missing in {error:?}");
        }
    }
}
