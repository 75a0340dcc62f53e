//! A receiver that takes every request and is no good: it answers nothing, or ten bytes a second.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::parts::receivers::Sickness;
use crate::receiver::json;
use crate::serving;
use crate::wire::Wire;

const SECOND: Duration = Duration::from_secs(1);

/// Serves until the process is ended.
#[tokio::main(flavor = "current_thread")]
pub async fn serve(sickness: Sickness) -> anyhow::Result<()> {
    serving::serve(move |stream| receive(stream, sickness)).await
}

async fn receive(stream: TcpStream, sickness: Sickness) -> anyhow::Result<()> {
    match sickness {
        Sickness::Hangs | Sickness::Dead => hang(stream).await,
        Sickness::Trickles => trickle(Wire::new(stream)).await,
    }
}

async fn hang(mut stream: TcpStream) -> anyhow::Result<()> {
    let mut room = [0; 4096];
    while stream.read(&mut room).await? > 0 {}
    Ok(())
}

async fn trickle(mut wire: Wire) -> anyhow::Result<()> {
    let answer = json(r#"{"status":"ok"}"#);
    while wire.next().await?.is_some() {
        for ten in answer.chunks(10) {
            tokio::time::sleep(SECOND).await;
            wire.send(ten).await?;
        }
    }
    Ok(())
}
