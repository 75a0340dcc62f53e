//! HTTP/1.1 as the two ends of a measurement need it: messages whose body has a `Content-Length`, one
//! at a time. It knows nothing of chunks, pipelining or upgrades, and says so where one comes.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Room for a read, in bytes: more than most messages take, since a read that does not fill its room
/// has read all there is, and needs no second one to tell.
const ROOM: usize = 8 * 1024;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// How much of the buffer the message took that was handed out last.
    taken: usize,
}

/// A request or an answer, whole.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    head: &'a [u8],
    pub body: &'a [u8],
}

impl Message<'_> {
    /// Of an answer: the three digits.
    pub fn status(&self) -> &[u8] {
        self.head.get(9..12).unwrap_or_default()
    }

    /// Of a request: the path, if its method is GET.
    pub fn asks_for(&self) -> Option<&str> {
        let path = self.head.strip_prefix(b"GET ")?.split(|&byte| byte == b' ').next()?;
        std::str::from_utf8(path).ok()
    }

    /// The first line, for somebody to read.
    pub fn first_line(&self) -> String {
        let line = self.head.split(|&byte| byte == b'\r').next().unwrap_or_default();
        String::from_utf8_lossy(line).into_owned()
    }
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::with_capacity(ROOM), taken: 0 }
    }

    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::new(stream))
    }

    pub async fn send(&mut self, message: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(message).await
    }

    /// The next message; none after the end.
    pub async fn next(&mut self) -> anyhow::Result<Option<Message<'_>>> {
        self.buffer.drain(..std::mem::take(&mut self.taken));
        let body = loop {
            if let Some(body) = body_of(&self.buffer)?
                && body.end <= self.buffer.len()
            {
                break body;
            }
            self.buffer.reserve(ROOM / 2);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                ensure!(self.buffer.is_empty(), "the connection ended within a message");
                return Ok(None);
            }
        };
        self.taken = body.end;
        Ok(Some(Message { head: &self.buffer[..body.start], body: &self.buffer[body] }))
    }

    /// Sends a request and waits for what it is answered.
    pub async fn ask(&mut self, request: &[u8]) -> anyhow::Result<Message<'_>> {
        self.ask_within(request, PATIENCE).await
    }

    /// The same, with another limit than usual.
    pub async fn ask_within(
        &mut self,
        request: &[u8],
        patience: Duration,
    ) -> anyhow::Result<Message<'_>> {
        self.send(request).await?;
        let answer = tokio::time::timeout(patience, self.next()).await;
        answer
            .with_context(|| format!("no answer within {patience:?}"))??
            .context("the connection was closed instead of an answer")
    }
}

/// Where the body stands of the message that begins here; none while its head is not all there.
pub fn body_of(bytes: &[u8]) -> anyhow::Result<Option<Range<usize>>> {
    const LENGTH: &[u8] = b"content-length:";
    const CHUNKED: &[u8] = b"transfer-encoding:";
    let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else { return Ok(None) };
    let is = |line: &[u8], name: &[u8]| {
        line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
    };
    let mut length = 0;
    for line in bytes[..end].split(|&byte| byte == b'\n') {
        ensure!(
            !is(line, CHUNKED),
            "a message without Content-Length, which is not understood here"
        );
        if is(line, LENGTH) {
            let digits = std::str::from_utf8(&line[LENGTH.len()..])?.trim();
            length = digits.parse().with_context(|| format!("Content-Length: {digits:?}"))?;
        }
    }
    let start = end + 4;
    Ok(Some(start..start + length))
}

/// A POST of JSON.
pub fn post(address: SocketAddr, path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A GET.
pub fn get(address: SocketAddr, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes()
}
