//! Socket: one WebSocket to an STS server ([RFC 6455](https://www.rfc-editor.org/rfc/rfc6455)), plain or
//! over TLS.
//!
//! Invariant: sending never waits. A server that does not read loses messages once the buffers for it,
//! here and in the kernel, are full.
//!
//! Limits: [`MAX_MESSAGE`] bytes a message, a longer one ends the connection; [`MAX_WRITE_BUFFER`].

use std::future::poll_fn;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};

use base64_simd::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tokio_util::either::Either;
use url::Url;

use crate::text::innermost;
use crate::wire::tls_connector;

/// The longest message, in bytes: almost four minutes of audio. Some servers send whole utterances.
const MAX_MESSAGE: usize = 5 * 1024 * 1024;

/// Read at a time, in bytes: a few frames of 20 ms, since there are many calls.
const READ_BUFFER: usize = 2 * 1024;

/// Written at a time, and the most that waits to be, in bytes.
const WRITE_BUFFER: usize = 1024;
const MAX_WRITE_BUFFER: usize = 512 * 1024;

/// Why a server could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConnectError(String);

/// What comes from a server.
#[derive(Debug)]
pub enum Incoming {
    Message(Utf8Bytes),
    /// The connection is over, closed in good order or not.
    Closed,
    /// The server broke the WebSocket protocol, or exceeded [`MAX_MESSAGE`].
    Broken(String),
}

/// Makes connections. What TLS needs is loaded with the first `wss`.
#[derive(Default)]
pub struct Connector {
    tls: OnceLock<Result<TlsConnector, String>>,
}

/// An open connection.
pub struct Socket {
    web: WebSocketStream<Either<TcpStream, TlsStream<TcpStream>>>,
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
        let url = Url::parse(url).map_err(|error| ConnectError(error.to_string()))?;
        let request = request(&url)?;
        let stream = self.open(&url).await?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(MAX_WRITE_BUFFER)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let handshake = client_async_with_config(request, stream, Some(config)).await;
        let (web, _) = handshake.map_err(|error| ConnectError(handshake_error(&error)))?;
        Ok(Socket { web, dirty: false })
    }

    async fn open(
        &self,
        url: &Url,
    ) -> Result<Either<TcpStream, TlsStream<TcpStream>>, ConnectError> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        let failed = |error: std::io::Error| ConnectError(innermost(&error));
        let tcp =
            TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(failed)?;
        // A frame of 20 ms must not wait for the acknowledgement of the one before.
        tcp.set_nodelay(true).map_err(failed)?;
        if url.scheme() == "ws" {
            return Ok(Either::Left(tcp));
        }
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|error| ConnectError(error.to_string()))?;
        let tls = self.tls.get_or_init(tls_connector).as_ref();
        let tls = tls.map_err(|error| ConnectError(error.clone()))?;
        Ok(Either::Right(tls.connect(name, tcp).await.map_err(failed)?))
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
                Poll::Ready(Err(_)) => return Poll::Ready(Incoming::Closed),
                Poll::Pending => {}
            }
        }
        loop {
            return Poll::Ready(match ready!(self.web.poll_next_unpin(context)) {
                Some(Ok(Message::Text(text))) => Incoming::Message(text),
                // Pings are answered by the library.
                Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Frame(_) | Message::Close(_))) | None => Incoming::Closed,
                Some(Err(error)) => incoming_error(&error),
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
    let mut request =
        plain.as_str().into_client_request().map_err(|error| ConnectError(innermost(&error)))?;
    if !url.username().is_empty() || url.password().is_some() {
        let user: Vec<u8> = percent_decode_str(url.username()).collect();
        let password: Vec<u8> = percent_decode_str(url.password().unwrap_or_default()).collect();
        let given = [user, vec![b':'], password].concat();
        let value = format!("Basic {}", STANDARD.encode_to_string(given));
        let mut value = HeaderValue::try_from(value).expect("base64 is visible ASCII");
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    Ok(request)
}

fn handshake_error(error: &Error) -> String {
    match error {
        Error::Http(response) => {
            format!("it answered {} to the WebSocket handshake", response.status())
        }
        other => innermost(other),
    }
}

fn incoming_error(error: &Error) -> Incoming {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            Incoming::Broken(format!("a message of {size} bytes; at most {max_size} are read"))
        }
        // The connection just ended.
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_)
        | Error::Tls(_)
        | Error::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing,
        ) => Incoming::Closed,
        other => Incoming::Broken(innermost(other)),
    }
}
