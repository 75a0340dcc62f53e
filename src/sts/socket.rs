//! The socket: one WebSocket to a speech-to-speech server (RFC 6455), be it over TLS.
//!
//! Invariant: sending never waits. While the server takes nothing, messages are dropped; what the
//! kernel buffers for the connection is all that is kept for it.

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

use super::MAX_MESSAGE;
use crate::text::innermost;
use crate::wire::tls_connector;

/// What is read from the socket at a time, in bytes: some frames of 20 ms, as calls are many.
const READ_BUFFER: usize = 2 * 1024;

/// What is written to the socket at a time, and the most that waits to be, in bytes.
const WRITE_BUFFER: usize = 1024;
const MAX_WRITE_BUFFER: usize = 512 * 1024;

/// Why a server could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConnectError(String);

/// What comes from a server.
#[derive(Debug)]
pub enum Heard {
    /// A message.
    Message(Utf8Bytes),
    /// It closed the connection, in good order or not.
    Closed,
    /// What it sent is no WebSocket, or over [`MAX_MESSAGE`].
    Broken(String),
}

/// Makes connections; what TLS needs is loaded with the first `wss`.
#[derive(Default)]
pub struct Connector {
    tls: OnceLock<Result<TlsConnector, String>>,
}

/// An open connection.
pub struct Socket {
    web: WebSocketStream<Either<TcpStream, TlsStream<TcpStream>>>,
    /// Something was written that is not flushed.
    dirty: bool,
}

impl Connector {
    /// Connects to a `ws` or `wss` URL; its user part becomes an `Authorization` header. Waits as long
    /// as the system does: the caller sets the deadline.
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
        let (web, _) = handshake.map_err(|error| ConnectError(handshake_fault(&error)))?;
        Ok(Socket { web, dirty: false })
    }

    async fn open(
        &self,
        url: &Url,
    ) -> Result<Either<TcpStream, TlsStream<TcpStream>>, ConnectError> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        let fault = |error: std::io::Error| ConnectError(innermost(&error));
        let tcp = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(fault)?;
        // A frame of 20 ms must not wait for the acknowledgement of the one before.
        tcp.set_nodelay(true).map_err(fault)?;
        if url.scheme() == "ws" {
            return Ok(Either::Left(tcp));
        }
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|error| ConnectError(error.to_string()))?;
        let tls = self.tls.get_or_init(tls_connector).as_ref();
        let tls = tls.map_err(|fault| ConnectError(fault.clone()))?;
        Ok(Either::Right(tls.connect(name, tcp).await.map_err(fault)?))
    }
}

impl Socket {
    /// Sends a message, or drops it where the server takes none; `false` then.
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

    /// The next that comes, while what was sent goes out. Cancel safe.
    pub async fn next(&mut self) -> Heard {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Heard> {
        if self.dirty {
            match self.web.poll_flush_unpin(context) {
                Poll::Ready(Ok(())) => self.dirty = false,
                Poll::Ready(Err(_)) => return Poll::Ready(Heard::Closed),
                Poll::Pending => {}
            }
        }
        loop {
            return Poll::Ready(match ready!(self.web.poll_next_unpin(context)) {
                Some(Ok(Message::Text(text))) => Heard::Message(text),
                // Answers to pings are sent by the library.
                Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Frame(_) | Message::Close(_))) | None => Heard::Closed,
                Some(Err(error)) => heard_fault(&error),
            });
        }
    }

    /// Says good-bye, as far as that goes without waiting, and closes.
    pub async fn close(mut self) {
        let close = poll_fn(|context| {
            // A server that is gone or takes nothing cannot be told.
            Poll::Ready(matches!(self.web.poll_close_unpin(context), Poll::Ready(Ok(()))))
        });
        close.await;
    }
}

fn request(url: &Url) -> Result<Request, ConnectError> {
    let mut plain = url.clone();
    plain.set_fragment(None);
    // Both fail only for URLs without a host, and a WebSocket's has one.
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

fn handshake_fault(error: &Error) -> String {
    match error {
        Error::Http(response) => {
            format!("it answered {} to the WebSocket handshake", response.status())
        }
        other => innermost(other),
    }
}

fn heard_fault(error: &Error) -> Heard {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            Heard::Broken(format!("a message of {size} bytes; at most {max_size} are read"))
        }
        // The connection just ended.
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_)
        | Error::Tls(_)
        | Error::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing,
        ) => Heard::Closed,
        other => Heard::Broken(innermost(other)),
    }
}
