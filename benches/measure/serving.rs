//! What the servers of a measurement have in common: where they listen, and that they serve on.

use std::net::Ipv4Addr;

use tokio::net::{TcpListener, TcpStream};

/// What a server says on stdout before its port.
pub const LISTENING: &str = "listening on port";

/// Listens on the loopback interface, says where, and treats each connection in a task of its own, until
/// the process is ended.
pub async fn serve<T>(treat: impl Fn(TcpStream) -> T) -> anyhow::Result<()>
where
    T: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{LISTENING} {}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let treated = treat(stream);
        tokio::spawn(async move {
            // A peer that hangs up in the middle is told here, too.
            if let Err(error) = treated.await {
                eprintln!("a connection ended: {error:#}");
            }
        });
    }
}

/// The same on the runtime that callhook has, for what it is compared with: one that had another could
/// cost more, or have more of the machine.
pub fn serve_as_callhook<T>(treat: impl Fn(TcpStream) -> T + Send + 'static) -> anyhow::Result<()>
where
    T: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    // The socket is read where it is spawned, not on the thread that waits here.
    callhook::app::runtime()?.block_on(async { tokio::spawn(serve(treat)).await? })
}
