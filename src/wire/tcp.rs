//! TCP: a connection to a host and port.
//!
//! Owns name resolution by the system, and the race of a name's addresses
//! ([RFC 8305](https://www.rfc-editor.org/rfc/rfc8305)). Sets no deadline: that is up to the caller, who says until
//! when it will wait, so that every address gets its turn in time.
//!
//! Invariant: each connection resolves the name anew.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use url::{Host, Url};

/// How long an address has before the next is tried beside it: the delay that RFC 8305, section 5 recommends.
const HEAD_START: Duration = Duration::from_millis(250);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    #[error("getaddrinfo ENOTFOUND {host}: {cause}")]
    NotResolved { host: String, cause: io::Error },
    /// That of the address that failed last.
    #[error(transparent)]
    Connect(io::Error),
}

/// A host and port; shown as `host:port`.
#[derive(Clone, Debug)]
pub struct Place {
    pub host: Host,
    pub port: u16,
}

impl Place {
    /// Where a URL with a host leads to.
    pub fn of(url: &Url) -> Self {
        let host = url.host().map_or(Host::Domain(String::new()), |host| host.to_owned());
        Self { host, port: url.port_or_known_default().unwrap_or_default() }
    }

    /// # Errors
    /// [`TcpError`].
    pub async fn connect(&self, until: Instant) -> Result<TcpStream, TcpError> {
        let addresses = self.addresses().await?;
        let within = until.saturating_duration_since(Instant::now());
        let tcp = race(addresses, within).await.map_err(TcpError::Connect)?;
        // What is written must not wait for the acknowledgement of what was written before.
        tcp.set_nodelay(true).map_err(TcpError::Connect)?;
        Ok(tcp)
    }

    /// By the system's resolver; `/etc/hosts` and the order of RFC 6724 are its affair.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, TcpError> {
        let name = match &self.host {
            Host::Domain(name) => name,
            Host::Ipv4(address) => return Ok(vec![(*address, self.port).into()]),
            Host::Ipv6(address) => return Ok(vec![(*address, self.port).into()]),
        };
        let found = tokio::net::lookup_host((name.as_str(), self.port)).await;
        let not_resolved = |cause| TcpError::NotResolved { host: name.clone(), cause };
        found.map(Vec::from_iter).map_err(not_resolved)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Connects to the address that answers first. The next one is tried when the one before has failed, or has
/// had its [`HEAD_START`]: less where there would not be time for all.
async fn race(addresses: Vec<SocketAddr>, within: Duration) -> io::Result<TcpStream> {
    let shares = u32::try_from(addresses.len()).unwrap_or(u32::MAX).saturating_add(1);
    let head_start = HEAD_START.min(within / shares);
    let mut waiting = alternating(addresses).into_iter();
    let mut tried = FuturesUnordered::new();
    let mut failed = io::Error::new(io::ErrorKind::HostUnreachable, "the name has no address");
    loop {
        match waiting.next() {
            Some(address) => tried.push(TcpStream::connect(address)),
            None if tried.is_empty() => return Err(failed),
            None => {}
        }
        tokio::select! {
            Some(connected) = tried.next() => match connected {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            },
            () = sleep(head_start), if !waiting.as_slice().is_empty() => {}
        }
    }
}

/// IPv6 and IPv4 in turn, beginning with the family that the resolver put first (RFC 8305, section 4).
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_v4_first = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == is_v4_first);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let pairs = std::iter::from_fn(|| match (first.next(), second.next()) {
        (None, None) => None,
        pair => Some(pair),
    });
    pairs.flat_map(|(one, other)| one.into_iter().chain(other)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::Instant;

    const LONG: Duration = Duration::from_secs(60);

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_alternate_and_the_resolvers_first_choice_stays_first() {
        let given = ["[::1]:1", "[::2]:1", "127.0.0.1:1", "[::3]:1", "127.0.0.2:1"].map(address);
        let expected = ["[::1]:1", "127.0.0.1:1", "[::2]:1", "127.0.0.2:1", "[::3]:1"].map(address);
        assert_eq!(alternating(given.to_vec()), expected);
        assert_eq!(alternating(expected[1..].to_vec())[0], expected[1]);
        assert!(alternating(Vec::new()).is_empty());
    }

    #[tokio::test]
    async fn an_address_that_refuses_costs_no_time_and_the_last_error_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        // Nobody listens on the discard port.
        let refusing = address("127.0.0.1:9");
        let begun = Instant::now();
        let stream = race(vec![refusing; 50].into_iter().chain([alive]).collect(), LONG * 60).await;
        assert_eq!(stream.unwrap().peer_addr().unwrap(), alive);
        assert!(begun.elapsed() < HEAD_START * 50, "{:?}", begun.elapsed());
        let error = race(vec![refusing, refusing], LONG).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = race(Vec::new(), LONG).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
    }

    #[tokio::test]
    async fn an_address_that_drops_packets_has_a_head_start_and_no_more() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(address("127.0.0.1:0")).unwrap();
        let full = socket.listen(0).unwrap();
        let dead = full.local_addr().unwrap();
        let _filling = TcpStream::connect(dead).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let begun = Instant::now();
        let stream = race(vec![dead, alive], LONG).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
        assert!(begun.elapsed() >= HEAD_START, "{:?}", begun.elapsed());
    }
}
