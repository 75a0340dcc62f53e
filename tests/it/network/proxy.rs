//! A proxy before the receiver: what it is asked, what it may see, and that its faults are told as its own.

use std::net::Ipv4Addr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::{ALIVE, Dead, Hosts, NAMES, both_orders};
use crate::support::event::{bare, new_uuid};
use crate::support::proxy::{Manner, Proxy};
use crate::support::receiver::{Receiver, Reply, closed_gate, free_port};
use crate::support::service::{Service, serve};
use crate::support::stage::Stage;
use crate::support::sts::{self, Sts};
use crate::support::tls::{self, Curtain};

const ESTABLISHED: &str = "HTTP/1.1 200 Connection established";

fn basic(pair: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(pair))
}

/// `http://joe:hush@…`, whose user the proxy wants.
fn with_user(proxy: &Proxy) -> String {
    proxy.url().replace("http://", "http://joe:hu%40sh@")
}

async fn send(service: &Service) {
    service.relay(bare(&new_uuid(), "call_started")).await;
}

async fn given_up(service: &Service) -> Value {
    service.log_line(|line| line["message"] == "webhook delivery failed").await
}

/// A receiver behind TLS.
async fn secure(receiver: &Receiver) -> (Curtain, String) {
    let inside = ([127, 0, 0, 1], receiver.port()).into();
    let curtain = Curtain::before(inside, tls::acceptor()).await;
    let url = format!("https://localhost:{}/events", curtain.port);
    (curtain, url)
}

async fn hidden(service: &mut Service) {
    service.terminate();
    service.wait().await;
    let log = service.whole_log().await;
    for secret in ["joe", "hu%40sh", "hu@sh", &BASE64_STANDARD.encode("joe:hu@sh")] {
        assert!(!log.contains(secret), "{secret} is shown in:\n{log}");
    }
}

#[tokio::test]
async fn an_https_receiver_is_reached_by_a_tunnel_in_which_nothing_is_seen() {
    let receiver = Receiver::content().await;
    let (_curtain, url) = secure(&receiver).await;
    let place = url.strip_prefix("https://").unwrap().strip_suffix("/events").unwrap();
    for line in [ESTABLISHED, "HTTP/1.0 200 OK"] {
        let proxy = Proxy::start(Manner::Usual(line)).await;
        let vars = [("SSL_CERT_FILE", tls::AUTHORITY), ("WEBHOOK_PROXY", &proxy.url())];
        let service = serve(&url, &vars).await;
        send(&service).await;
        let asked = proxy.asked(1).await;
        let expected = format!("CONNECT {place} HTTP/1.1\r\nhost: {place}\r\n\r\n");
        assert_eq!(asked, [expected]);
        receiver.until("the event", |seen| seen.last().map(|_| ())).await;
    }
}

#[tokio::test]
async fn a_proxy_that_asks_for_a_user_is_given_that_of_its_url_and_the_receiver_is_not() {
    let receiver = Receiver::start(|_| Reply::status(500).body("hu@sh hu%40sh")).await;
    let (_curtain, url) = secure(&receiver).await;
    let proxy = Proxy::start(Manner::Asks(basic("joe:hu@sh"))).await;
    let vars = [
        ("SSL_CERT_FILE", tls::AUTHORITY),
        ("WEBHOOK_PROXY", &with_user(&proxy)),
        ("LOG_LEVEL", "trace"),
    ];
    let mut service = serve(&url, &vars).await;
    send(&service).await;
    assert_eq!(receiver.seen(1).await[0].header("proxy-authorization"), None);
    assert_eq!(given_up(&service).await["status"], 500);
    hidden(&mut service).await;
}

#[tokio::test]
async fn an_http_receiver_is_asked_for_with_its_whole_url_and_the_proxy_resolves_its_name() {
    let receiver = Receiver::content().await;
    let plain = Proxy::start(Manner::Usual(ESTABLISHED)).await;
    let url = format!("http://ann:hush@receiver.test:{}/events?a=b#c", receiver.port());
    let service = serve(&url, &[("WEBHOOK_PROXY", &plain.url())]).await;
    send(&service).await;
    let head = plain.asked(1).await.remove(0);
    let first = format!("POST http://receiver.test:{}/events?a=b HTTP/1.1\r\n", receiver.port());
    assert!(head.starts_with(&first), "{head}");
    assert!(head.contains(&format!("\r\nhost: receiver.test:{}\r\n", receiver.port())), "{head}");
    assert!(!head.contains("proxy-authorization"), "{head}");
    assert_eq!(receiver.seen(1).await[0].header("authorization"), Some(&*basic("ann:hush")));
}

#[tokio::test]
async fn a_user_is_sent_with_each_request_for_an_http_receiver_and_masked() {
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let asking = Proxy::start(Manner::Asks(basic("joe:hu@sh"))).await;
    let vars = [("WEBHOOK_PROXY", &*with_user(&asking)), ("LOG_LEVEL", "trace")];
    let mut service = serve(&receiver.url, &vars).await;
    send(&service).await;
    let head = asking.asked(1).await.remove(0);
    assert!(head.contains(&format!("\r\nproxy-authorization: {}\r\n", basic("joe:hu@sh"))));
    given_up(&service).await;
    let uuid = receiver.seen(1).await[0].uuid().to_owned();
    let shown = service.ask_admin("GET", &format!("/api/calls/{uuid}"), &[]).await;
    assert!(shown.body.contains("proxy-authorization"), "{shown:?}");
    assert!(!shown.body.contains(&BASE64_STANDARD.encode("joe:hu@sh")), "{shown:?}");
    hidden(&mut service).await;
}

/// What is told of an event to a receiver behind this proxy, after one retry.
async fn told(url: &str, proxy: &str) -> String {
    let vars = [
        ("SSL_CERT_FILE", tls::AUTHORITY),
        ("WEBHOOK_PROXY", proxy),
        ("WEBHOOK_TIMEOUT", "600"),
        ("WEBHOOK_RETRY", "1"),
        ("WEBHOOK_BACKOFF", "1"),
    ];
    let service = serve(url, &vars).await;
    send(&service).await;
    let line = given_up(&service).await;
    assert_eq!((&line["code"], &line["status"]), (&"ERR_PROXY".into(), &Value::Null), "{line}");
    assert_eq!((&line["attempt"], &line["attempts"]), (&2.into(), &2.into()), "it is retried");
    let error = line["error"].as_str().expect("a text").to_owned();
    let place = proxy.rsplit(['@', '/']).next().unwrap();
    assert!(error.contains(place) && error.contains("WEBHOOK_PROXY"), "{error}");
    assert!(!error.contains("hush"), "{error}");
    error
}

#[tokio::test]
async fn what_a_proxy_says_instead_of_a_tunnel_is_told_as_its_own() {
    let url = "https://receiver.test/events";
    for (said, words) in [
        (
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
            "refuses CONNECT receiver.test:443 (403",
        ),
        ("HTTP/1.1 503 Busy\r\nretry-after: 9\r\ncontent-length: 100\r\n\r\nx", "(503"),
        ("HTTP/1.1 407 Who\r\n\r\nyou", "asks for a user and password (407)"),
        ("HTTP/1.1 302 Found\r\nlocation: http://login/\r\n\r\n", "(302"),
        ("", "not answered as HTTP proxies do"),
        ("SSH-2.0-OpenSSH\r\n", "not answered as HTTP proxies do"),
        ("HTTP/1.1 200 OK\r\n\r\nhello", "before the server could speak"),
    ] {
        let proxy = Proxy::start(Manner::Says(said.into())).await;
        let error = told(url, &proxy.url()).await;
        assert!(error.contains(words), "{said:?}: {error}");
    }
    let huge = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(64 * 1024));
    for manner in [Manner::Says(huge.into()), Manner::Endless] {
        let proxy = Proxy::start(manner).await;
        let error = told(url, &proxy.url()).await;
        assert!(error.contains("not answered as HTTP proxies do"), "{error}");
    }
    let asking = Proxy::start(Manner::Asks("Basic other".into())).await;
    let error = told(url, &asking.url().replace("http://", "http://joe:hush@")).await;
    assert!(error.contains("does not accept the user and password"), "{error}");
}

#[tokio::test]
async fn a_proxy_that_is_not_reached_or_silent_is_told_as_that() {
    let waiting = Proxy::start(Manner::Waits(closed_gate())).await;
    let error = told("https://receiver.test/events", &waiting.url()).await;
    assert!(error.contains("no answer to CONNECT receiver.test:443 in time"), "{error}");
    let nobody = format!("http://joe:hush@127.0.0.1:{}", free_port());
    for url in ["https://receiver.test/events", "http://receiver.test/events"] {
        assert!(told(url, &nobody).await.contains("connect ECONNREFUSED 127.0.0.1:"), "{url}");
        let error = told(url, "http://joe:hush@proxy.invalid:3128").await;
        assert!(error.contains("getaddrinfo ENOTFOUND proxy.invalid"), "{error}");
    }
}

#[tokio::test]
async fn a_407_to_a_request_in_the_clear_is_the_proxys_and_one_in_the_tunnel_the_receivers() {
    let asking = Proxy::start(Manner::Asks("Basic other".into())).await;
    let error = told("http://receiver.test/events", &asking.url()).await;
    assert!(error.contains("asks for a user and password (407)"), "{error}");
    let receiver = Receiver::start(|_| Reply::status(407)).await;
    let (_curtain, url) = secure(&receiver).await;
    let proxy = Proxy::start(Manner::Usual(ESTABLISHED)).await;
    let vars = [("SSL_CERT_FILE", tls::AUTHORITY), ("WEBHOOK_PROXY", &proxy.url())];
    let service = serve(&url, &vars).await;
    send(&service).await;
    let line = given_up(&service).await;
    assert_eq!(
        (&line["code"], &line["status"]),
        (&"ERR_BAD_REQUEST".into(), &407.into()),
        "{line}"
    );
}

#[tokio::test]
async fn a_proxy_that_is_slow_but_in_time_will_do() {
    let receiver = Receiver::content().await;
    let (_curtain, url) = secure(&receiver).await;
    let gate = closed_gate();
    let proxy = Proxy::start(Manner::Waits(gate.clone())).await;
    let vars = [
        ("SSL_CERT_FILE", tls::AUTHORITY),
        ("WEBHOOK_PROXY", &proxy.url()),
        ("WEBHOOK_TIMEOUT", "20000"),
    ];
    let service = serve(&url, &vars).await;
    send(&service).await;
    proxy.asked(1).await;
    assert!(receiver.so_far().is_empty());
    gate.add_permits(1);
    assert_eq!(receiver.seen(1).await[0].header("x-avr-webhook-attempt"), Some("1"));
}

#[tokio::test]
async fn while_the_proxy_is_away_the_receiver_counts_as_down_and_no_event_is_given_up() {
    let receiver = Receiver::content().await;
    let port = free_port();
    let proxy = format!("http://127.0.0.1:{port}");
    let vars = [("WEBHOOK_PROXY", proxy.as_str()), ("WEBHOOK_BREAKER", "1")];
    let service = serve(&receiver.url, &vars).await;
    send(&service).await;
    given_up(&service).await;
    send(&service).await;
    service.log_line(|line| line["message"].to_string().contains("down")).await;
    let _proxy = Proxy::start_at((Ipv4Addr::LOCALHOST, port), Manner::Usual(ESTABLISHED)).await;
    receiver.seen(1).await;
}

#[tokio::test]
async fn other_programs_proxies_are_not_obeyed() {
    let receiver = Receiver::content().await;
    let proxy = Proxy::start(Manner::Usual(ESTABLISHED)).await;
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"];
    let url = proxy.url();
    let service = serve(&receiver.url, &names.map(|name| (name, url.as_str()))).await;
    send(&service).await;
    receiver.seen(1).await;
    assert!(proxy.asked.look(<[_]>::is_empty));
}

#[tokio::test]
async fn an_sts_server_is_never_reached_by_the_proxy() {
    let proxy = Proxy::start(Manner::Usual(ESTABLISHED)).await;
    let sts = Sts::start(sts::Manner::Usual).await;
    let url = proxy.url();
    let stage = Stage::of(Receiver::content().await, sts, &[("WEBHOOK_PROXY", &url)]).await;
    let call = stage.call().await;
    call.asterisk.hang_up().await;
    stage.ended_by(&call.uuid, "hangup").await;
    let asked = proxy.asked(1).await;
    assert!(asked.iter().all(|head| head.starts_with("POST http://127.0.0.1:")), "{asked:?}");
}

#[tokio::test]
async fn a_proxy_whose_first_address_drops_packets_is_reached_at_the_second() {
    let Some(hosts) = Hosts::of(&both_orders()).await else { return };
    let receiver = Receiver::content().await;
    let proxy = Proxy::start_at((ALIVE, 0), Manner::Usual(ESTABLISHED)).await;
    let _dead = Dead::at(proxy.port).await;
    for (n, name) in NAMES.into_iter().enumerate() {
        let url = format!("http://{name}:{}", proxy.port);
        let vars = [
            ("WEBHOOK_URL", receiver.url.as_str()),
            ("WEBHOOK_PROXY", &url),
            ("WEBHOOK_TIMEOUT", "10000"),
        ];
        let service = hosts.service(&vars).await;
        send(&service).await;
        let seen = receiver.seen(n + 1).await;
        assert_eq!(seen[n].header("x-avr-webhook-attempt"), Some("1"), "{name}");
    }
}
