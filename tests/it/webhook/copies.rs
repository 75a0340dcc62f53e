//! A further receiver gets a copy: the same event with the same id, and nothing of what is the main one's own.

use serde_json::Value;

use crate::support::event::{bare, new_uuid};
use crate::support::proxy::{Manner, Proxy};
use crate::support::receiver::{Receiver, free_port};
use crate::support::service::serve;
use crate::support::tls::{self, Curtain, client_file};

#[tokio::test]
async fn a_copy_comes_with_the_settings_of_its_receiver_and_none_of_the_main_ones_secrets() {
    let (main, crm) = (Receiver::content().await, Receiver::content().await);
    let vars = [
        ("WEBHOOK_SECRET", "hush-main"),
        ("WEBHOOK_SIGNING_KEY", "whsec_aHVzaA=="),
        ("WEBHOOK_HEADERS", r#"{"X-Main":"hush-main"}"#),
        ("RECEIVER_CRM_URL", &crm.url),
        ("RECEIVER_CRM_HEADERS", r#"{"X-Crm":"hush-crm"}"#),
        ("RECEIVER_CRM_EVENTS", "call_ended"),
    ];
    let service = serve(&main.url, &vars).await;
    let uuid = new_uuid();
    service.relay(bare(&uuid, "call_started")).await;
    service.relay(bare(&uuid, "call_ended")).await;
    let (main, crm) = (main.seen(2).await, crm.seen(1).await);
    assert_eq!((crm[0].kind(), &crm[0].raw), ("call_ended", &main[1].raw));
    assert_eq!(crm[0].header("webhook-id"), main[1].header("webhook-id"));
    let names = ["x-avr-webhook-secret", "webhook-signature", "x-main", "x-crm"];
    let of = |index: usize| names.map(|name| [&main[1], &crm[0]][index].header(name).is_some());
    assert_eq!((of(0), of(1)), ([true, true, true, false], [false, false, false, true]));
}

#[tokio::test]
async fn a_copy_goes_by_its_receivers_own_proxy_and_shows_its_own_certificate() {
    let (main, crm) = (Receiver::content().await, Receiver::content().await);
    let inside = ([127, 0, 0, 1], crm.port()).into();
    let curtain = Curtain::before(inside, tls::asking_acceptor()).await;
    let proxy = Proxy::start(Manner::Usual("HTTP/1.1 200 OK")).await;
    let (url, at) = (format!("https://localhost:{}/crm", curtain.port), proxy.url());
    let (cert, key) = (client_file("client.pem"), client_file("client.key"));
    let vars = [
        ("SSL_CERT_FILE", tls::AUTHORITY),
        ("RECEIVER_CRM_URL", &url),
        ("RECEIVER_CRM_PROXY", &at),
        ("RECEIVER_CRM_CLIENT_CERT", &cert),
        ("RECEIVER_CRM_CLIENT_KEY", &key),
    ];
    let service = serve(&main.url, &vars).await;
    service.relay(bare(&new_uuid(), "call_ended")).await;
    main.seen(1).await;
    crm.seen(1).await;
    assert_eq!(proxy.asked(1).await.len(), 1, "the main receiver is reached without it");
    assert!(curtain.shown.look(|shown| shown[0].is_some()));
}

#[tokio::test]
async fn a_copys_failure_names_its_receiver_and_its_own_settings() {
    let (main, crm) = (Receiver::content().await, Receiver::content().await);
    let inside = ([127, 0, 0, 1], crm.port()).into();
    let curtain = Curtain::before(inside, tls::asking_acceptor()).await;
    let url = format!("https://localhost:{}/crm", curtain.port);
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let vars = [
        ("SSL_CERT_FILE", tls::AUTHORITY),
        ("RECEIVER_CRM_URL", &url),
        ("RECEIVER_B_URL", "http://b.test/"),
        ("RECEIVER_B_PROXY", &nobody),
    ];
    let service = serve(&main.url, &vars).await;
    service.relay(bare(&new_uuid(), "call_ended")).await;
    for (receiver, code, told) in
        [("crm", "EPROTO", "RECEIVER_CRM_CLIENT_CERT"), ("b", "ERR_PROXY", "RECEIVER_B_PROXY")]
    {
        let failed = |line: &Value| {
            line["message"] == "webhook delivery failed" && line["receiver"] == receiver
        };
        let line = service.log_line(failed).await;
        assert_eq!(line["code"], code, "{line}");
        assert!(line["error"].as_str().unwrap().contains(told), "{line}");
    }
    main.seen(1).await;
}
