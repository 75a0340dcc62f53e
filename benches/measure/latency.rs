//! The time that a call's announcement takes to the receiver: from the instant at which `POST /call` is
//! written to the instant at which the receiver has read the request that it leads to.
//!
//! Both ends are threads of this process, so that both instants are of one clock, and each waits in a
//! read, as nothing is quicker to notice a byte. One call at a time, so what arrives is of the call that
//! was announced last; its uuid is looked at all the same.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use uuid::Uuid;

use crate::receiver::{DECISION, json};
use crate::wire;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest time that is told from longer ones, in nanoseconds.
const LONGEST: u64 = 10_000_000_000;
/// Calls before those that count.
const WARM_UP: u32 = 200;
/// Room for a request or an answer, in bytes.
const ROOM: usize = 4096;

/// A receiver that notes when each request is there.
pub struct Ends {
    pub receiver: SocketAddr,
    arrivals: Receiver<Arrival>,
}

struct Arrival {
    at: Instant,
    body: Vec<u8>,
}

/// Microseconds.
#[derive(Clone, Copy)]
pub struct Found {
    pub p50: f64,
    pub p99: f64,
}

impl Ends {
    /// Starts to receive.
    pub fn open() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let receiver = listener.local_addr()?;
        let (noting, arrivals) = sync_channel(1);
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let noting = noting.clone();
                std::thread::spawn(move || {
                    // A sender that closes its connection is no news here.
                    drop(receive(stream, &noting));
                });
            }
        });
        Ok(Self { receiver, arrivals })
    }

    /// Announces calls, one after the other, with a pause between.
    pub fn announce(
        &self,
        address: SocketAddr,
        calls: u32,
        pause: Duration,
    ) -> anyhow::Result<Found> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut nanos = Histogram::<u32>::new_with_max(LONGEST, 3)?;
        for number in 0..WARM_UP + calls {
            let uuid = Uuid::new_v4().to_string();
            let body = format!(r#"{{"uuid":"{uuid}","payload":{{"from":"2000","to":"5001"}}}}"#);
            let request = wire::post(address, "/call", &body);
            let begun = Instant::now();
            stream.write_all(&request)?;
            let (_, answer) = read(&mut stream)?;
            ensure!(answer.starts_with(b"HTTP/1.1 200 "), "a call was not answered 200");
            let arrival = self.arrivals.recv_timeout(PATIENCE).context("it did not arrive")?;
            let of_it = arrival.body.windows(uuid.len()).any(|text| text == uuid.as_bytes());
            ensure!(of_it, "another call arrived than the one that was announced");
            if number >= WARM_UP {
                nanos.saturating_record(u64::try_from((arrival.at - begun).as_nanos())?);
            }
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
        }
        let micros = |share| nanos.value_at_quantile(share) as f64 / 1000.0;
        Ok(Found { p50: micros(0.5), p99: micros(0.99) })
    }
}

fn receive(mut stream: TcpStream, noting: &SyncSender<Arrival>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let decision = json(DECISION);
    loop {
        let (at, body) = read(&mut stream)?;
        noting.send(Arrival { at, body })?;
        stream.write_all(&decision)?;
    }
}

/// A whole message, and when the last of it had been read.
fn read(stream: &mut TcpStream) -> anyhow::Result<(Instant, Vec<u8>)> {
    let mut message = Vec::with_capacity(ROOM);
    let mut room = [0; ROOM];
    loop {
        let length = stream.read(&mut room)?;
        let at = Instant::now();
        ensure!(length > 0, "the connection was closed");
        message.extend_from_slice(&room[..length]);
        if wire::body_of(&message)?.is_some_and(|body| body.end <= message.len()) {
            return Ok((at, message));
        }
    }
}
