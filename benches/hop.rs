//! What `scripts/load.sh` measures callhook against and with: no test, and no part of the program.
//!
//! - `hop receiver PORT [--hold]`: the fastest receiver there is. It reads each request whole and
//!   answers with one fixed routing decision, and a `GET` with how many it has answered so; with
//!   `--hold` it reads and never answers, so that every lane of the sender stays open.
//! - `hop hop PORT URL`: the barest hop. It takes a body in, posts it to `URL` over pooled
//!   connections, and hands the answer back. No queue, no order, no retry: what is left between its
//!   figures and callhook's is what callhook's own work costs.
//! - `hop crowd ADDRESS COUNT`: that many connections, one event of its own call on each, then
//!   idle until its stdin ends. It prints `ready`, and at the end how many are still open.
//! - `hop fill ADDRESS EVENTS CALLS`: hands over that many events of that many calls, in arrays of
//!   1000 over a few connections, and prints the milliseconds that it took.
//! - `hop batch ADDRESS TIMES`: hands over an array of 1000 events so many times, one after the
//!   other, and prints after how many milliseconds each was acknowledged, a line each.
//! - `hop cold ADDRESS SINCE`: asks `/health` until it answers 200, then prints the milliseconds
//!   that have gone by since `SINCE` (Unix time in seconds, with a fraction).
//! - `hop count ADDRESS`: how many requests the receiver there has answered.
//! - `hop port`: a port of the loopback interface that is free now.
//!
//! Everything stays on the loopback interface. Port 0 takes a free port; both servers say
//! `listening on port N` on stdout.
#![expect(
    clippy::disallowed_methods,
    reason = "a measuring tool has no drain: its connections may end with the process"
)]

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// What the receiver decides for every call; port 9 is "discard", nothing is ever sent there.
const DECISION: &[u8] = br#"{"sts_url":"ws://127.0.0.1:9/"}"#;

/// How many of a crowd's connections are being opened at one time: below the usual accept backlog,
/// so that none is dropped and tried again a second later.
const OPENING_AT_ONCE: usize = 100;

/// Events in an array: as many as `POST /events` takes.
const ARRAY: usize = 1000;

/// Room for the answer to an array, in bytes, so that it is read in few pieces.
const ANSWER: usize = 64 * 1024;

/// How many connections fill a queue.
const FILLING_AT_ONCE: usize = 4;

/// Events of a batch that are of one call: a relay's batch holds a few turns of many calls.
const EVENTS_A_CALL: usize = 10;

/// How long a crowd may take for one connection, an array for its acknowledgement, and a cold start
/// for its first 200.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at a port that is not open yet: short against the start-up times measured.
const COLD_PAUSE: Duration = Duration::from_micros(200);

const USAGE: &str = "usage: hop receiver PORT [--hold] | hop hop PORT URL | hop crowd ADDRESS COUNT \
                     | hop fill ADDRESS EVENTS CALLS | hop batch ADDRESS TIMES \
                     | hop cold ADDRESS SINCE | hop count ADDRESS | hop port\nscripts/load.sh runs all of them.";

type Pool = Client<HttpConnector, Full<Bytes>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // So do `cargo test --benches` and `cargo bench` call it; there is nothing to run then.
    if matches!(*arguments, [] | ["--bench"]) {
        eprintln!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> anyhow::Result<()> {
    match *arguments {
        ["receiver", port] => serve(port, &Role::Receiver(Arc::default())),
        ["receiver", port, "--hold"] => serve(port, &Role::Hold),
        ["hop", port, url] => serve(port, &Role::hop(url.parse().context("URL")?)),
        ["crowd", address, count] => crowd(socket_address(address)?, number(count, "COUNT")?),
        ["fill", address, events, calls] => {
            fill(socket_address(address)?, number(events, "EVENTS")?, number(calls, "CALLS")?)
        }
        ["batch", address, times] => batch(socket_address(address)?, number(times, "TIMES")?),
        ["cold", address, since] => {
            cold(socket_address(address)?, since.parse().context("SINCE is Unix time in seconds")?)
        }
        ["count", address] => count(socket_address(address)?),
        ["port"] => free_port(),
        _ => bail!("{USAGE}"),
    }
}

fn socket_address(text: &str) -> anyhow::Result<SocketAddr> {
    text.parse().context("ADDRESS is an IP address and a port")
}

fn number(text: &str, name: &str) -> anyhow::Result<usize> {
    let number: usize = text.parse().with_context(|| format!("{name} is a number"))?;
    ensure!(number > 0, "{name} is above 0");
    Ok(number)
}

/// What one of the two servers does with a request whose body has been read.
#[derive(Clone)]
enum Role {
    /// Answer at once, and count.
    Receiver(Arc<AtomicUsize>),
    /// Never answer.
    Hold,
    /// Post the body to the URL, and answer what that answers.
    Hop(Arc<(Pool, Uri)>),
}

impl Role {
    fn hop(target: Uri) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let pool = Client::builder(TokioExecutor::new()).build(connector);
        Self::Hop(Arc::new((pool, target)))
    }
}

/// Serves on the loopback interface until the process is ended.
#[tokio::main]
async fn serve(port: &str, role: &Role) -> anyhow::Result<()> {
    let port: u16 = port.parse().context("PORT is a number up to 65535")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("listening on port {}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let role = role.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(role.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // A client that hangs up in the middle is no news here.
            drop(connection.await);
        });
    }
}

async fn answer(
    role: Role,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let asks = request.method() == Method::GET;
    let Ok(body) = request.into_body().collect().await else {
        return Ok(status(StatusCode::BAD_REQUEST));
    };
    match role {
        Role::Receiver(answered) if asks => {
            Ok(json(answered.load(Ordering::Relaxed).to_string().into()))
        }
        Role::Receiver(answered) => {
            answered.fetch_add(1, Ordering::Relaxed);
            Ok(json(Bytes::from_static(DECISION)))
        }
        Role::Hold => std::future::pending().await,
        Role::Hop(hop) => {
            let (pool, target) = &*hop;
            let forwarded = pass_on(pool, target.clone(), body.to_bytes()).await;
            Ok(forwarded.unwrap_or_else(|_| status(StatusCode::BAD_GATEWAY)))
        }
    }
}

async fn pass_on(pool: &Pool, target: Uri, body: Bytes) -> anyhow::Result<Response<Full<Bytes>>> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(target)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let response = pool.request(request).await?;
    let code = response.status();
    let mut passed = json(response.into_body().collect().await?.to_bytes());
    *passed.status_mut() = code;
    Ok(passed)
}

fn json(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn status(code: StatusCode) -> Response<Full<Bytes>> {
    let mut response = json(Bytes::new());
    *response.status_mut() = code;
    response
}

/// Opens `count` connections, puts one call on each, and keeps them until stdin ends.
#[tokio::main]
async fn crowd(address: SocketAddr, count: usize) -> anyhow::Result<()> {
    let opening = Arc::new(Semaphore::new(OPENING_AT_ONCE));
    let open = Arc::new(AtomicUsize::new(0));
    let mut joining = tokio::task::JoinSet::new();
    for number in 0..count {
        let opening = Arc::clone(&opening);
        joining.spawn(async move {
            let _place = opening.acquire_owned().await?;
            tokio::time::timeout(PATIENCE, join(address, number)).await?
        });
    }
    while let Some(joined) = joining.join_next().await {
        let mut stream = joined??;
        let open = Arc::clone(&open);
        open.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            // Nothing is asked any more, so whatever comes now, an end or a byte, is its end.
            drop(stream.read_u8().await);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
    println!("ready");
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    println!("still open: {}", open.load(Ordering::Relaxed));
    Ok(())
}

/// One connection with the first event of a call of its own, answered.
async fn join(address: SocketAddr, number: usize) -> anyhow::Result<TcpStream> {
    let body = format!(
        r#"{{"uuid":"c0ffee00-0000-4000-8000-{number:012x}","type":"call_started","payload":{{}}}}"#
    );
    let mut stream = TcpStream::connect(address).await?;
    hand_over(&mut stream, &post(address, &body)).await?;
    Ok(stream)
}

/// Fills the queue, each connection with every so manieth array.
#[tokio::main]
async fn fill(address: SocketAddr, events: usize, calls: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut filling = tokio::task::JoinSet::new();
    for first in 0..FILLING_AT_ONCE {
        filling.spawn(async move {
            let mut stream = open(address).await?;
            for from in (first * ARRAY..events).step_by(FILLING_AT_ONCE * ARRAY) {
                let body = array(from..events.min(from + ARRAY), |number| number % calls);
                acknowledged(&mut stream, &post(address, &body)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(filled) = filling.join_next().await {
        filled??;
    }
    println!("{:.0}", begun.elapsed().as_secs_f64() * 1000.0);
    Ok(())
}

/// Measures how long an array takes to be acknowledged, on one connection. Each is of calls of its
/// own, so that nothing of one stands in the lane of the next.
#[tokio::main(flavor = "current_thread")]
async fn batch(address: SocketAddr, times: usize) -> anyhow::Result<()> {
    let mut stream = open(address).await?;
    for time in 0..times {
        let from = time * ARRAY;
        let body = array(from..from + ARRAY, |number| number / EVENTS_A_CALL);
        let request = post(address, &body);
        println!("{:.2}", acknowledged(&mut stream, &request).await?.as_secs_f64() * 1000.0);
    }
    Ok(())
}

/// The JSON of these events, each of the call that `call_of` says.
fn array(numbers: Range<usize>, call_of: impl Fn(usize) -> usize) -> String {
    let event = |number| {
        let call = call_of(number);
        format!(
            r#"{{"uuid":"c0ffee00-0000-4000-8000-{call:012x}","type":"transcription","timestamp":"2026-11-23T20:00:00.000Z","payload":{{"role":"user","text":"This is sentence {number} of the caller."}}}}"#
        )
    };
    let events: Vec<String> = numbers.map(event).collect();
    format!("[{}]", events.join(","))
}

async fn open(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn post(address: SocketAddr, body: &str) -> String {
    format!(
        "POST /events HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// How long it took until the events were taken.
async fn acknowledged(stream: &mut TcpStream, request: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    tokio::time::timeout(PATIENCE, hand_over(stream, request)).await??;
    Ok(begun.elapsed())
}

/// Sends a request with events and waits until they are taken.
async fn hand_over(stream: &mut TcpStream, request: &str) -> anyhow::Result<()> {
    stream.write_all(request.as_bytes()).await?;
    let head = read_answer(stream).await?;
    ensure!(head.starts_with("HTTP/1.1 202 "), "events were not taken: {head}");
    Ok(())
}

/// Reads one answer whole, and gives its head. Its body has a `Content-Length`, as callhook's have.
async fn read_answer(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut answer = Vec::with_capacity(ANSWER);
    loop {
        ensure!(
            stream.read_buf(&mut answer).await? > 0,
            "the connection ended before the answer did"
        );
        let text = String::from_utf8_lossy(&answer).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .context("an answer without Content-Length")?;
        if body.len() >= length.1.trim().parse::<usize>()? {
            return Ok(head.to_owned());
        }
    }
}

/// Asks for `/health` until it is there, without any runtime, whose own start would be measured too.
fn cold(address: SocketAddr, since: f64) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !healthy(address) {
        ensure!(begun.elapsed() < PATIENCE, "no 200 from /health within {PATIENCE:?}");
        std::thread::sleep(COLD_PAUSE);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    println!("{:.1}", (now - since) * 1000.0);
    Ok(())
}

fn healthy(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(start == *b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// Prints what a `GET` is answered.
fn count(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    println!("{body}");
    Ok(())
}

fn free_port() -> anyhow::Result<()> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?.port());
    Ok(())
}
