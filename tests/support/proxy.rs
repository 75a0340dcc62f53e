//! An HTTP proxy on loopback that keeps the heads of what it was asked, and has a manner of the test's.
//!
//! It takes every host for this machine, so that a name that nobody else can resolve shows who resolves it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::record::Record;

#[derive(Clone)]
pub enum Manner {
    /// Does as it is asked, with this first line where it is asked for a tunnel.
    Usual(&'static str),
    /// The same, to whom has this `Proxy-Authorization`; else 407.
    Asks(String),
    /// Answers with these bytes, and closes.
    Says(Vec<u8>),
    /// Reads, and says nothing until the test lets it.
    Waits(Arc<Semaphore>),
    /// Begins to answer, and never ends its head.
    Endless,
}

/// Stops when dropped.
pub struct Proxy {
    pub port: u16,
    /// The heads of requests, each as it came.
    pub asked: Arc<Record<String>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub async fn start(manner: Manner) -> Proxy {
        Proxy::start_at((Ipv4Addr::LOCALHOST, 0), manner).await
    }

    pub async fn start_at(address: (Ipv4Addr, u16), manner: Manner) -> Proxy {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::<Record<String>>::default();
        let mut tasks = JoinSet::new();
        let record = Arc::clone(&asked);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, manner.clone(), Arc::clone(&record)));
            }
        });
        Proxy { port, asked, _tasks: tasks }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The heads of the first requests, once there are so many.
    pub async fn asked(&self, count: usize) -> Vec<String> {
        let enough = |heads: &[String]| (heads.len() >= count).then(|| heads.to_vec());
        self.asked.until(&format!("{count} requests to the proxy"), enough).await
    }
}

async fn serve(mut stream: TcpStream, manner: Manner, asked: Arc<Record<String>>) {
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
            return;
        }
    };
    let head = String::from_utf8(read[..end].to_vec()).expect("a head is plain text");
    asked.push(head.clone());
    let answer = match manner {
        Manner::Usual(line) => line,
        Manner::Asks(user) if head.contains(&format!("proxy-authorization: {user}\r\n")) => {
            "HTTP/1.1 200 Connection established"
        }
        Manner::Asks(_) => {
            let refusal =
                b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 4\r\n\r\nwho?";
            return say(&mut stream, refusal).await;
        }
        Manner::Says(bytes) => return say(&mut stream, &bytes).await,
        Manner::Waits(gate) => {
            gate.acquire().await.expect("a gate is never closed for good").forget();
            "HTTP/1.1 200 Connection established"
        }
        Manner::Endless => {
            let mut chunk = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
            while stream.write_all(&chunk).await.is_ok() {
                chunk = vec![b'x'; 1024];
            }
            return;
        }
    };
    pass_on(stream, &head, &read[end..], answer).await;
}

/// Closes so that what was said arrives.
async fn say(stream: &mut TcpStream, bytes: &[u8]) {
    // A client that is gone needs no answer.
    stream.write_all(bytes).await.ok();
    stream.shutdown().await.ok();
    while matches!(stream.read_buf(&mut Vec::new()).await, Ok(1..)) {}
}

async fn pass_on(mut stream: TcpStream, head: &str, rest: &[u8], answer: &str) {
    let target = head.split(' ').nth(1).expect("a target");
    let (place, path) = match target.strip_prefix("http://") {
        Some(absolute) => absolute.split_at(absolute.find('/').expect("a path")),
        None => (target, ""),
    };
    let port: u16 = place.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
    if path.is_empty() {
        let answer = format!("{answer}\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.expect("the client waits for it");
    } else {
        let own = |line: &&str| !line.starts_with("proxy-authorization:");
        let head = head.replacen(target, path, 1);
        let head: Vec<&str> = head.split("\r\n").filter(own).collect();
        let head = head.join("\r\n");
        server.write_all(head.as_bytes()).await.expect("the server listens");
        server.write_all(rest).await.expect("the server listens");
    }
    // Either may break it off.
    copy_bidirectional(&mut stream, &mut server).await.ok();
}
