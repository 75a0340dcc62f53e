//! Listener: the address of a port, and the accept loop that all ports share.
//!
//! Owns how connections are accepted and limited; knows nothing of the protocols spoken on them.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

/// Accepting fails mostly for want of file descriptors; trying again at once would only burn CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// An address or a name; IPv6 with or without brackets.
    pub host: String,
    /// 0 = any free port.
    pub port: u16,
}

impl ListenAddress {
    /// `host:port` to connect to from the same machine: loopback where the host is the "any" address.
    pub fn reachable(&self) -> String {
        let host = match self.host.trim_matches(['[', ']']).parse() {
            Ok(IpAddr::V4(ip)) if ip.is_unspecified() => "127.0.0.1".to_owned(),
            Ok(IpAddr::V6(ip)) if ip.is_unspecified() => "[::1]".to_owned(),
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            Ok(IpAddr::V4(_)) | Err(_) => self.host.clone(),
        };
        format!("{host}:{}", self.port)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Accepts connections until `stop`, then waits for the open ones to end. At most `most` are open at a time;
/// any further one is closed at once.
pub async fn accept<F>(
    listener: TcpListener,
    most: usize,
    stop: CancellationToken,
    serve: impl Fn(TcpStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(most));
    let connections = TaskTracker::new();
    let mut full = false;
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Some(stream) = taken(accepted).await else {
            continue;
        };
        let was_full = full;
        let permit = Arc::clone(&permits).try_acquire_owned().ok();
        full = permit.is_none();
        let Some(permit) = permit else {
            if !was_full {
                warn!(limit = most, "too many connections; new ones are closed at once");
            }
            continue;
        };
        let connection = serve(stream);
        connections.spawn(async move {
            connection.await;
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn taken(accepted: io::Result<(TcpStream, SocketAddr)>) -> Option<TcpStream> {
    match accepted {
        Ok((stream, _)) => {
            // Otherwise small answers wait for the peer's delayed acknowledgement. If it fails, the socket
            // is already broken, and the first read says so.
            stream.set_nodelay(true).ok();
            Some(stream)
        }
        Err(error) => {
            warn!(%error, "a connection could not be accepted");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}
