//! What the servers of a measurement have in common: where they listen, and on which runtime.

use std::net::Ipv4Addr;
use std::num::NonZero;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

/// What a server says on stdout before its port.
pub const LISTENING: &str = "listening on port";

/// The runtime that callhook has (`runtime` in src/main.rs), for what it is compared with: on two
/// processors a scheduler that hands work over costs more than a second thread could do, and a bare hop
/// that paid for it would be easy to keep up with.
pub fn runtime_of_callhook() -> std::io::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    match processors / 2 {
        0 | 1 => Builder::new_current_thread().enable_all().build(),
        threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

/// Listens on the loopback interface and says where.
pub async fn listen() -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{LISTENING} {}", listener.local_addr()?.port());
    Ok(listener)
}

/// The next connection.
pub async fn accept(listener: &TcpListener) -> std::io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
