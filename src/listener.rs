//! Listener: where a port is, and the accept loop that every port shares.
//!
//! Owns how connections are taken and counted; knows nothing of what is spoken on them.

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

/// How long accepting rests when the system has no more file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A host and port to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// An address or a name.
    pub host: String,
    /// 0 = any free one.
    pub port: u16,
}

impl ListenAddress {
    /// `host:port` to connect to from the same machine: "any address" is none.
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

/// Takes connections until `stop`, at most so many at a time: one more is closed at once. Then waits for
/// those that are left.
pub async fn accept<F>(
    listener: TcpListener,
    most: usize,
    stop: CancellationToken,
    serve: impl Fn(TcpStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(most));
    let connections = TaskTracker::new();
    let mut full = false;
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Some(stream) = taken(accepted).await else {
            continue;
        };
        let was_full = full;
        let place = Arc::clone(&places).try_acquire_owned().ok();
        full = place.is_none();
        let Some(place) = place else {
            if !was_full {
                warn!(limit = most, "too many connections; new ones are closed at once");
            }
            continue;
        };
        let connection = serve(stream);
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn taken(accepted: io::Result<(TcpStream, SocketAddr)>) -> Option<TcpStream> {
    match accepted {
        Ok((stream, _)) => {
            // Without it small answers wait for the peer's delayed acknowledgement. A socket that
            // refuses is on its way down, which the first read will tell.
            stream.set_nodelay(true).ok();
            Some(stream)
        }
        Err(error) => {
            warn!(%error, "a connection could not be accepted");
            sleep(ACCEPT_REST).await;
            None
        }
    }
}
