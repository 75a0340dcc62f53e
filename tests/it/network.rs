//! Names, addresses and connections, for receivers and STS servers alike: a name with an address that drops
//! packets, a name that moves, and connections that break.
//!
//! The resolver is the child's own `/etc/hosts`, in a mount namespace of its own, which needs user namespaces.

mod connections;
mod proxy;

use std::net::Ipv4Addr;

use tempfile::NamedTempFile;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::event::{bare, new_uuid};
use crate::support::receiver::{Receiver, Reply};
use crate::support::service::Service;
use crate::support::stage::Stage;
use crate::support::sts::{Manner, Sts};

/// Addresses of this machine that no other test listens at, and which the resolver leaves in the order that is
/// written: they are equally far from 127.0.0.1.
const ALIVE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const DEAD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// What the child takes for `/etc/hosts`; may be written anew while it runs.
struct Hosts(NamedTempFile);

impl Hosts {
    /// `None` if mount namespaces are not permitted here.
    async fn of(lines: &[(Ipv4Addr, &str)]) -> Option<Hosts> {
        let hosts = Hosts(NamedTempFile::new().expect("a temporary file"));
        hosts.write(lines);
        let launcher = hosts.launcher();
        let mut probe = tokio::process::Command::new(launcher[0]);
        let probe = probe.args(&launcher[1..]).arg("true").output().await;
        if probe.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(hosts);
        }
        println!("no /etc/hosts of one's own is permitted here, so this was not tried: {probe:?}");
        None
    }

    fn write(&self, lines: &[(Ipv4Addr, &str)]) {
        let lines = lines.iter().map(|(address, name)| format!("{address} {name}\n"));
        std::fs::write(self.0.path(), lines.collect::<String>()).expect("it can be written");
    }

    fn launcher(&self) -> Vec<&str> {
        let mount = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
        let path = self.0.path().to_str().expect("a path of plain text");
        vec!["unshare", "-Urm", "sh", "-c", mount, path]
    }

    async fn service(&self, vars: &[(&str, &str)]) -> Service {
        Service::start_under(&self.launcher(), vars).await
    }
}

/// A listener at [`DEAD`] that lets connections hang, as if packets were dropped: nothing accepts, and its
/// queue is full.
struct Dead {
    _listener: TcpListener,
    _filling: TcpStream,
}

impl Dead {
    async fn at(port: u16) -> Dead {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((DEAD, port).into()).expect("a free port");
        let listener = socket.listen(0).expect("it listens");
        let filling = TcpStream::connect((DEAD, port)).await.expect("the one that fits");
        Dead { _listener: listener, _filling: filling }
    }
}

/// Two names with the same two addresses, one in each order.
const NAMES: [&str; 2] = ["first.test", "second.test"];

fn both_orders() -> [(Ipv4Addr, &'static str); 4] {
    [(DEAD, NAMES[0]), (ALIVE, NAMES[0]), (ALIVE, NAMES[1]), (DEAD, NAMES[1])]
}

#[tokio::test]
async fn a_receiver_whose_first_address_drops_packets_is_reached_at_the_second() {
    let Some(hosts) = Hosts::of(&both_orders()).await else { return };
    let receiver = Receiver::start_at((ALIVE, 0), |_| Reply::ok()).await;
    let _dead = Dead::at(receiver.port()).await;
    for (n, name) in NAMES.into_iter().enumerate() {
        let url = format!("http://{name}:{}/events", receiver.port());
        let vars = [("WEBHOOK_URL", url.as_str()), ("WEBHOOK_TIMEOUT", "10000")];
        let service = hosts.service(&vars).await;
        service.relay(bare(&new_uuid(), "call_started")).await;
        let seen = receiver.seen(n + 1).await;
        assert_eq!(seen[n].header("x-avr-webhook-attempt"), Some("1"), "{name}");
    }
}

#[tokio::test]
async fn addresses_are_tried_within_a_timeout_however_short() {
    let Some(hosts) = Hosts::of(&both_orders()).await else { return };
    let receiver = Receiver::start_at((ALIVE, 0), |_| Reply::ok()).await;
    let _dead = Dead::at(receiver.port()).await;
    for (n, name) in NAMES.into_iter().enumerate() {
        let url = format!("http://{name}:{}/events", receiver.port());
        // Enough on loopback, though not always on a busy machine.
        let patient = [("WEBHOOK_TIMEOUT", "240"), ("WEBHOOK_RETRY", "100")];
        let usual = [("WEBHOOK_URL", url.as_str()), ("WEBHOOK_BACKOFF", "1")];
        let service = hosts.service(&[usual, patient].concat()).await;
        service.relay(bare(&new_uuid(), "call_started")).await;
        receiver.seen(n + 1).await;
    }
}

#[tokio::test]
async fn an_sts_server_whose_first_address_drops_packets_is_reached_at_the_second() {
    let Some(hosts) = Hosts::of(&both_orders()).await else { return };
    let sts = Sts::start_at(ALIVE, &[Manner::Usual]).await;
    let port: u16 = sts.url.rsplit(':').next().unwrap().parse().unwrap();
    let _dead = Dead::at(port).await;
    let mut stage = Stage::of(Receiver::content().await, sts, &[]).await;
    for name in NAMES {
        let url = format!("ws://{name}:{port}");
        let vars = [("WEBHOOK_URL", stage.receiver.url.as_str()), ("STS_URL", url.as_str())];
        stage.service = hosts.service(&vars).await;
        // Within the 5 s that one is waited for.
        let call = stage.call().await;
        call.asterisk.hang_up().await;
        stage.ended_by(&call.uuid, "hangup").await;
    }
}

#[tokio::test]
async fn each_new_connection_goes_where_the_name_is_by_then() {
    let Some(hosts) = Hosts::of(&[(Ipv4Addr::LOCALHOST, "receiver.test")]).await else { return };
    // A connection for each request.
    let closing = |_: &_| Reply::ok().header("connection", "close");
    let before = Receiver::start(closing).await;
    let after = Receiver::start_at((ALIVE, before.port()), closing).await;
    let url = format!("http://receiver.test:{}/events", before.port());
    let service = hosts.service(&[("WEBHOOK_URL", &url)]).await;
    let uuid = new_uuid();
    service.relay(bare(&uuid, "call_started")).await;
    before.seen(1).await;
    hosts.write(&[(ALIVE, "receiver.test")]);
    service.relay(bare(&uuid, "call_ended")).await;
    assert_eq!(after.seen(1).await[0].kind(), "call_ended");
    assert_eq!(before.so_far().len(), 1);
}
