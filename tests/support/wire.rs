//! One TCP connection to the front, byte for byte: sends what it is given and reads whole HTTP/1.1
//! responses, so that a test may break the protocol as it likes.

use std::net::SocketAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::record::LIMIT;

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    /// The body as JSON; panics showing it if it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header of plain text"))
    }

    /// The text of `{"error":"…"}`; panics on any other body.
    pub fn error(&self) -> String {
        let json = self.json();
        let fields = json.as_object().expect("an error is an object");
        assert_eq!(fields.len(), 1, "an error has one field: {self:?}");
        json["error"].as_str().expect("an error is text").to_owned()
    }

    /// Expects a 503 that says why, and when to try again.
    pub fn assert_full(&self) {
        assert_eq!(self.status, 503, "{self:?}");
        assert!(!self.error().is_empty());
        let wait = self.header("retry-after").expect("Retry-After");
        assert!(wait.parse::<u64>().is_ok_and(|seconds| seconds > 0), "{wait:?}");
    }
}

/// A connection and what came on it that no response has taken yet.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    pub async fn open(addr: SocketAddr) -> Wire {
        Wire::try_open(addr).await.expect("the service accepts connections")
    }

    /// A connection, if somebody listens.
    pub async fn try_open(addr: SocketAddr) -> std::io::Result<Wire> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Wire { stream, buffer: Vec::new() })
    }

    /// Its own end, as the peer sees it.
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().expect("an open connection has an address")
    }

    /// Sends bytes; false if the peer has closed already.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Closes the sending half.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.expect("the sending half closes");
    }

    /// The next whole response, or None if the peer closed before one was complete.
    pub async fn answer(&mut self) -> Option<Answer> {
        self.next_response().await.map(|bytes| decode(&bytes))
    }

    /// What came that no response has taken yet.
    pub fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// Waits for more; false at the end of the stream.
    pub async fn more(&mut self) -> bool {
        self.receive().await
    }

    /// The bytes of the next whole response; what there is of it if the peer closes before its end.
    pub async fn response_bytes(&mut self) -> Vec<u8> {
        match self.next_response().await {
            Some(bytes) => bytes,
            None => std::mem::take(&mut self.buffer),
        }
    }

    /// Reads to the end of the stream and returns what came.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.receive().await {}
        std::mem::take(&mut self.buffer)
    }

    async fn next_response(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = response_end(&self.buffer) {
                return Some(self.buffer.drain(..end).collect());
            }
            if !self.receive().await {
                return None;
            }
        }
    }

    /// Waits for more bytes; false at the end of the stream, be it orderly or a reset.
    async fn receive(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        let read = timeout(LIMIT, self.stream.read(&mut chunk)).await;
        match read.unwrap_or_else(|_| panic!("no byte and no close for {LIMIT:?}")) {
            Ok(0) | Err(_) => false,
            Ok(size) => {
                self.buffer.extend_from_slice(&chunk[..size]);
                true
            }
        }
    }
}

/// A request with the headers every request needs; `headers` come after them.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    request_to("callhook.test", method, path, headers, body)
}

/// The same to a server of this name.
pub fn request_to(
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    if method != "GET" || !body.is_empty() {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    (text + "\r\n" + body).into_bytes()
}

/// Reads one response that is known to be whole.
pub fn decode(bytes: &[u8]) -> Answer {
    let head_end = head_end(bytes).expect("a response has a head");
    let head = String::from_utf8(bytes[..head_end].to_vec()).expect("a head is plain text");
    let mut lines = head.split("\r\n");
    let status_line = lines.next().expect("a head has a first line");
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let mut headers = HeaderMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').expect("a header line has a colon");
        let name = HeaderName::try_from(name).expect("a legal header name");
        headers.append(name, HeaderValue::try_from(value.trim()).expect("a legal header value"));
    }
    let body = &bytes[head_end..];
    let body =
        if is_chunked(&head) { unchunk(body).expect("whole chunks").0 } else { body.to_vec() };
    Answer {
        status: status.unwrap_or_else(|| panic!("a status in {status_line:?}")),
        headers,
        body: String::from_utf8(body).expect("a body is UTF-8"),
    }
}

/// Where the first response in the buffer ends, if all of it is there.
/// <https://www.rfc-editor.org/rfc/rfc9112#name-message-body-length>
fn response_end(buffer: &[u8]) -> Option<usize> {
    let start = head_end(buffer)?;
    let head = String::from_utf8_lossy(&buffer[..start]).to_ascii_lowercase();
    let end = if is_chunked(&head) {
        start + unchunk(&buffer[start..])?.1
    } else {
        let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length:"));
        start + length.map_or(0, |text| text.trim().parse().expect("a number of bytes"))
    };
    (end <= buffer.len()).then_some(end)
}

fn head_end(buffer: &[u8]) -> Option<usize> {
    buffer.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn is_chunked(head: &str) -> bool {
    head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked")
}

/// The content of a chunked body and its length on the wire, if its last chunk is there.
fn unchunk(wire: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut content, mut at) = (Vec::new(), 0);
    loop {
        let line = wire[at..].windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&wire[at..at + line]).expect("a chunk size is text");
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk size is hexadecimal");
        at += line + 2;
        content.extend_from_slice(wire.get(at..at + size)?);
        at += size + 2;
        if at > wire.len() {
            return None;
        }
        if size == 0 {
            return Some((content, at));
        }
    }
}
