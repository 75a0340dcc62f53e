//! Socket: one WebSocket to an STS server ([RFC 6455](https://www.rfc-editor.org/rfc/rfc6455)), plain or
//! over TLS.
//!
//! Invariant: sending never waits. A server that does not read loses messages once the buffers for it,
//! here and in the kernel, are full.
//!
//! Limits: [`MAX_MESSAGE`] bytes a message, a longer one ends the connection; [`MAX_WRITE_BUFFER`].

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use url::Url;

use crate::text::innermost;
use crate::wire::basic::authorization;
use crate::wire::dial::{DialError, Dialer, Stream};
use crate::wire::tcp::TcpError;

/// The longest message, in bytes: almost four minutes of audio. Some servers send whole utterances.
const MAX_MESSAGE: usize = 5 * 1024 * 1024;

/// An override is given up after a second: by then each address of its name has to have been tried.
const WITHIN: Duration = Duration::from_secs(1);

/// Read at a time, in bytes: a few frames of 20 ms, since there are many calls.
const READ_BUFFER: usize = 2 * 1024;

/// Written at a time, and the most that waits to be, in bytes.
const WRITE_BUFFER: usize = 1024;
const MAX_WRITE_BUFFER: usize = 512 * 1024;

/// Why a server could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It may be different in a moment: a server that is being started, or is busy.
    #[error("{0}")]
    Passing(String),
    /// It will be the same in a moment: a name that does not resolve, TLS, or an answer of HTTP that refuses.
    #[error("{0}")]
    Lasting(String),
}

impl From<DialError> for ConnectError {
    fn from(error: DialError) -> Self {
        let text = innermost(&error);
        match error {
            DialError::Tcp(TcpError::Connect(_)) => Self::Passing(text),
            DialError::Tcp(TcpError::NotResolved { .. })
            | DialError::Tls(_)
            | DialError::Proxy(_) => Self::Lasting(text),
        }
    }
}

/// What comes from a server.
#[derive(Debug)]
pub enum Incoming {
    Message(Utf8Bytes),
    /// A message of so many bytes that is no text.
    Binary(usize),
    Closed(Close),
}

/// How a server ended the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Close {
    /// With a close frame, which need not have a code.
    Frame { code: Option<u16>, reason: String },
    /// Without one: the connection ended, or broke.
    NoFrame,
    /// The server broke the WebSocket protocol, or exceeded [`MAX_MESSAGE`].
    Broken(String),
}

impl Close {
    /// Whether the server meant to end the call: codes 1000 and 1001, or none (which is 1005 to those who
    /// read it).
    pub fn is_orderly(&self) -> bool {
        matches!(self, Self::Frame { code: None | Some(1000 | 1001), .. })
    }

    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Frame { code, .. } => *code,
            Self::NoFrame | Self::Broken(_) => None,
        }
    }

    /// What the server says of it, or what it did.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Frame { reason, .. } => Some(&**reason).filter(|reason| !reason.is_empty()),
            Self::NoFrame => Some("the connection ended without a close frame"),
            Self::Broken(error) => Some(error),
        }
    }
}

/// Makes connections. What TLS needs is loaded with the first `wss`.
#[derive(Default)]
pub struct Connector {
    dialer: Dialer,
}

/// An open connection.
pub struct Socket {
    web: WebSocketStream<Stream>,
    /// Something was written and not flushed yet.
    dirty: bool,
}

impl Connector {
    /// Connects to a `ws` or `wss` URL; its user part becomes an `Authorization` header. Sets no deadline:
    /// that is up to the caller.
    ///
    /// # Errors
    /// [`ConnectError`], with the innermost reason.
    pub async fn connect(&self, url: &str) -> Result<Socket, ConnectError> {
        let url = Url::parse(url).map_err(|error| ConnectError::Lasting(error.to_string()))?;
        let request = request(&url)?;
        let stream = self.dialer.destination(&url)?.dial(Instant::now() + WITHIN).await?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(MAX_WRITE_BUFFER)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let handshake = client_async_with_config(request, stream, Some(config)).await;
        let (web, _) = handshake.map_err(|error| handshake_error(&error))?;
        Ok(Socket { web, dirty: false })
    }
}

impl Socket {
    /// Sends a message; `false` if it is dropped, since the server does not read.
    pub async fn send(&mut self, message: String) -> bool {
        let mut message = Some(Message::text(message));
        poll_fn(|context| {
            // Ready or not: this never waits, but it must have a waker.
            let sent = match self.web.poll_ready_unpin(context) {
                Poll::Ready(Ok(())) => message.take().is_some_and(|message| {
                    self.dirty = true;
                    self.web.start_send_unpin(message).is_ok()
                }),
                Poll::Ready(Err(_)) | Poll::Pending => false,
            };
            Poll::Ready(sent)
        })
        .await
    }

    /// Waits for what comes next; what was sent goes out meanwhile. Cancel safe.
    pub async fn next(&mut self) -> Incoming {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        if self.dirty {
            match self.web.poll_flush_unpin(context) {
                Poll::Ready(Ok(())) => self.dirty = false,
                // What came before the connection broke is still to be read.
                Poll::Ready(Err(_)) => self.dirty = false,
                Poll::Pending => {}
            }
        }
        loop {
            return Poll::Ready(match ready!(self.web.poll_next_unpin(context)) {
                Some(Ok(Message::Text(text))) => Incoming::Message(text),
                Some(Ok(Message::Binary(bytes))) => Incoming::Binary(bytes.len()),
                // Pings are answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(frame))) => Incoming::Closed(closed_by(frame)),
                Some(Ok(Message::Frame(_))) | None => Incoming::Closed(Close::NoFrame),
                Some(Err(error)) => Incoming::Closed(broken_by(&error)),
            });
        }
    }

    /// Closes, with a close frame if one can be written without waiting.
    pub async fn close(mut self) {
        let close = poll_fn(|context| {
            // A server that is gone or does not read cannot be told.
            Poll::Ready(matches!(self.web.poll_close_unpin(context), Poll::Ready(Ok(()))))
        });
        close.await;
    }
}

fn request(url: &Url) -> Result<Request, ConnectError> {
    let mut plain = url.clone();
    plain.set_fragment(None);
    // Both fail only for URLs without a host, and a WebSocket URL has one.
    plain.set_username("").ok();
    plain.set_password(None).ok();
    let mut request = plain
        .as_str()
        .into_client_request()
        .map_err(|error| ConnectError::Lasting(innermost(&error)))?;
    if let Some(authorization) = authorization(url) {
        request.headers_mut().insert(AUTHORIZATION, authorization);
    }
    Ok(request)
}

fn handshake_error(error: &Error) -> ConnectError {
    let Error::Http(response) = error else { return ConnectError::Passing(innermost(error)) };
    let text = format!("it answered {} to the WebSocket handshake", response.status());
    match response.status().is_server_error() {
        true => ConnectError::Passing(text),
        false => ConnectError::Lasting(text),
    }
}

fn closed_by(frame: Option<CloseFrame>) -> Close {
    match frame {
        Some(CloseFrame { code, reason }) => {
            Close::Frame { code: Some(code.into()), reason: reason.to_string() }
        }
        None => Close::Frame { code: None, reason: String::new() },
    }
}

fn broken_by(error: &Error) -> Close {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            Close::Broken(format!("a message of {size} bytes; at most {max_size} are read"))
        }
        // The connection just ended.
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_)
        | Error::Tls(_)
        | Error::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing,
        ) => Close::NoFrame,
        other => Close::Broken(innermost(other)),
    }
}
