//! A speech-to-speech server on loopback that notes what it is told and says what a test tells it to.
//!
//! It writes its frames by hand, so that a test may also break off in the middle of one.
//! <https://www.rfc-editor.org/rfc/rfc6455#section-5.2>

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Join, Sink, join, sink};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use super::record::Record;

/// How the server takes its connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Manner {
    /// Answers at once, listens, and answers a close with a close.
    Usual,
    /// Answers the handshake after this delay.
    Late(Duration),
    /// Takes the connection and never answers.
    Mute,
    /// Answers with 403.
    Refuses,
    /// Closes the connection unanswered.
    Drops,
    /// Answers the handshake and never reads again.
    Deaf,
    /// Does not answer a close.
    Clings,
}

#[derive(Clone, Debug)]
pub struct Heard {
    pub at: Instant,
    pub what: What,
}

#[derive(Clone, Debug)]
#[allow(dead_code, reason = "a text and bytes are shown where a test fails")]
pub enum What {
    /// The caller's audio, decoded.
    Audio(Vec<u8>),
    /// Any other message.
    Json(Value),
    /// A text that is not JSON, or audio with an invalid field.
    Text(String),
    Binary(Vec<u8>),
    /// A close frame.
    Close,
    /// The end of the connection, in order or not.
    End,
}

/// Stops when dropped.
pub struct Sts {
    /// `ws://127.0.0.1:PORT`
    pub url: String,
    book: Arc<Book>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Book {
    /// When TCP connections came.
    connections: Record<Instant>,
    /// The connections whose handshake was answered.
    sessions: Record<Session>,
    /// The sessions that said which call they are of, with its uuid.
    inits: Record<(String, Session)>,
}

impl Sts {
    pub async fn start(manner: Manner) -> Sts {
        Sts::start_each(&[manner]).await
    }

    /// Treats the first connection in the first manner and so on, the rest in the last.
    pub async fn start_each(manners: &[Manner]) -> Sts {
        Sts::start_at(Ipv4Addr::LOCALHOST, manners).await
    }

    /// The same at this address of the machine.
    pub async fn start_at(address: Ipv4Addr, manners: &[Manner]) -> Sts {
        let listener = TcpListener::bind((address, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let book = Arc::<Book>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, manners.to_vec(), Arc::clone(&book)));
        Sts { url: format!("ws://{address}"), book, _tasks: tasks }
    }

    /// Waits for the n-th session, counted from 0.
    pub async fn session(&self, n: usize) -> Session {
        let nth = |sessions: &[Session]| sessions.get(n).cloned();
        self.book.sessions.until(&format!("STS session {n}"), nth).await
    }

    /// Waits for the session that was told of this call.
    pub async fn session_of(&self, uuid: &str) -> Session {
        let told = |(told, session): &(String, Session)| (told == uuid).then(|| session.clone());
        let what = format!("an STS session of {uuid}");
        self.book.inits.until(&what, |inits| inits.iter().find_map(told)).await
    }

    /// How many sessions there were so far.
    pub fn sessions(&self) -> usize {
        self.book.sessions.look(<[_]>::len)
    }

    /// When TCP connections came so far, answered or not.
    pub fn connections(&self) -> Vec<Instant> {
        self.book.connections.look(<[_]>::to_vec)
    }

    pub async fn connected(&self, count: usize) {
        let what = format!("{count} connections to the STS server");
        self.book.connections.until(&what, |all| (all.len() >= count).then_some(())).await;
    }
}

/// One WebSocket; clones share it.
#[derive(Clone)]
pub struct Session {
    /// Path and query, as they were asked for.
    pub target: String,
    heard: Arc<Record<Heard>>,
    orders: mpsc::Sender<Order>,
}

enum Order {
    Bytes(Vec<u8>),
    Drop,
    Reset,
}

impl Session {
    /// Sends raw bytes; false when the connection is over.
    pub async fn raw(&self, bytes: Vec<u8>) -> bool {
        self.orders.send(Order::Bytes(bytes)).await.is_ok()
    }

    pub async fn text(&self, text: impl AsRef<[u8]>) -> bool {
        self.raw(frame(TEXT, text.as_ref())).await
    }

    pub async fn say(&self, message: Value) -> bool {
        self.text(message.to_string()).await
    }

    pub async fn binary(&self, bytes: &[u8]) -> bool {
        self.raw(frame(BINARY, bytes)).await
    }

    pub async fn audio(&self, pcm: &[u8]) -> bool {
        self.say(json!({ "type": "audio", "audio": STANDARD.encode(pcm) })).await
    }

    pub async fn transcript(&self, role: &str, text: &str) -> bool {
        self.say(json!({ "type": "transcript", "role": role, "text": text })).await
    }

    pub async fn interruption(&self) -> bool {
        self.say(json!({ "type": "interruption" })).await
    }

    /// Sends a close frame.
    pub async fn close(&self) -> bool {
        self.close_with(Some(1000), "").await
    }

    /// Sends a close frame with this code, if any, and this reason.
    pub async fn close_with(&self, code: Option<u16>, reason: &str) -> bool {
        let code = code.map(|code| code.to_be_bytes().to_vec()).unwrap_or_default();
        self.raw(frame(CLOSE, &[&code, reason.as_bytes()].concat())).await
    }

    /// Closes the TCP connection without a word.
    pub async fn vanish(&self) {
        self.orders.send(Order::Drop).await.ok();
    }

    /// Resets the TCP connection.
    pub async fn reset(&self) {
        self.orders.send(Order::Reset).await.ok();
    }

    /// Waits until `look` finds something in what was heard.
    pub async fn until<T>(&self, what: &str, look: impl Fn(&[Heard]) -> Option<T>) -> T {
        self.heard.until(what, look).await
    }

    /// The messages of this type so far.
    pub fn messages(&self, kind: &str) -> Vec<Value> {
        self.heard.look(|heard| messages(heard, kind))
    }

    /// Waits for at least this many messages of this type; returns all there are.
    pub async fn message(&self, kind: &str, count: usize) -> Vec<Value> {
        let enough = |heard: &[Heard]| Some(messages(heard, kind)).filter(|all| all.len() >= count);
        self.until(&format!("{count} × {kind} to the STS server"), enough).await
    }

    pub fn inits(&self) -> Vec<Value> {
        self.messages("init")
    }

    /// Waits for the first message, which has to be `init`.
    pub async fn init(&self) -> Value {
        let first = self.until("a first message", |heard| heard.first().cloned()).await;
        match first.what {
            What::Json(message) if message["type"] == "init" => message,
            other => panic!("the first message is {other:?}"),
        }
    }

    /// The caller's audio so far.
    pub fn audio_so_far(&self) -> Vec<u8> {
        self.heard.look(audio).concat()
    }

    /// The caller's audio so far, message by message.
    pub fn audio_messages(&self) -> Vec<Vec<u8>> {
        self.heard.look(audio)
    }

    /// Waits for at least this many bytes of the caller's audio; returns all there are.
    pub async fn audio_of(&self, size: usize) -> Vec<u8> {
        let length = |heard: &Heard| if let What::Audio(pcm) = &heard.what { pcm.len() } else { 0 };
        let enough = |heard: &[Heard]| {
            let all: usize = heard.iter().map(length).sum();
            (all >= size).then(|| audio(heard).concat())
        };
        self.until(&format!("{size} bytes of audio to the STS server"), enough).await
    }

    /// Waits for a close frame or the end of the connection; returns when it came.
    pub async fn closed(&self) -> Instant {
        let over = |heard: &&Heard| matches!(heard.what, What::Close | What::End);
        let at = |heard: &[Heard]| heard.iter().find(over).map(|heard| heard.at);
        self.until("a close towards the STS server", at).await
    }

    /// Waits for the end of the connection; returns when it came.
    pub async fn gone(&self) -> Instant {
        let over = |heard: &&Heard| matches!(heard.what, What::End);
        let at = |heard: &[Heard]| heard.iter().find(over).map(|heard| heard.at);
        self.until("the end of the STS connection", at).await
    }
}

fn messages(heard: &[Heard], kind: &str) -> Vec<Value> {
    let of_kind = |heard: &Heard| match &heard.what {
        What::Json(message) if message["type"] == kind => Some(message.clone()),
        _ => None,
    };
    heard.iter().filter_map(of_kind).collect()
}

fn audio(heard: &[Heard]) -> Vec<Vec<u8>> {
    let pcm = |heard: &Heard| match &heard.what {
        What::Audio(pcm) => Some(pcm.clone()),
        _ => None,
    };
    heard.iter().filter_map(pcm).collect()
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PONG: u8 = 10;

/// A whole frame from a server, which does not mask.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        size @ 0..126 => frame.push(size as u8),
        size @ 126..=0xffff => {
            frame.push(126);
            frame.extend((size as u16).to_be_bytes());
        }
        size => {
            frame.push(127);
            frame.extend((size as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// Owns the connections, so that they end with it.
async fn accept(listener: TcpListener, manners: Vec<Manner>, book: Arc<Book>) {
    let mut running = JoinSet::new();
    let mut count = 0;
    while let Ok((stream, _)) = listener.accept().await {
        let manner = manners[count.min(manners.len() - 1)];
        count += 1;
        book.connections.push(Instant::now());
        running.spawn(treat(stream, manner, Arc::clone(&book)));
        while running.try_join_next().is_some() {}
    }
}

async fn treat(mut stream: TcpStream, manner: Manner, book: Arc<Book>) {
    stream.set_nodelay(true).expect("a TCP socket");
    match manner {
        Manner::Drops => return,
        Manner::Mute => {
            let _kept = stream;
            return std::future::pending().await;
        }
        Manner::Refuses => {
            let asked = stream.read(&mut [0; 4096]).await.unwrap_or(0);
            assert_ne!(asked, 0, "a request");
            let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).await.ok();
            stream.shutdown().await.ok();
            return;
        }
        Manner::Late(delay) => sleep(delay).await,
        Manner::Usual | Manner::Deaf | Manner::Clings => {}
    }
    let mut target = String::new();
    #[expect(clippy::result_large_err, reason = "the signature is the crate's")]
    let note = |request: &Request, response: Response| {
        target = request.uri().to_string();
        Ok(response)
    };
    let Ok(socket) = accept_hdr_async(stream, note).await else { return };
    let (read, write) = socket.into_inner().into_split();
    let (orders, inbox) = mpsc::channel(16);
    let session = Session { target, heard: Arc::default(), orders };
    book.sessions.push(session.clone());
    tokio::select! {
        () = listen(read, manner, &session, &book) => {}
        () = obey(write, inbox) => {}
    }
    session.heard.push(Heard { at: Instant::now(), what: What::End });
}

async fn listen(read: OwnedReadHalf, manner: Manner, session: &Session, book: &Book) {
    if manner == Manner::Deaf {
        let _kept = read;
        return std::future::pending().await;
    }
    let both: Join<OwnedReadHalf, Sink> = join(read, sink());
    let mut messages = WebSocketStream::from_raw_socket(both, Role::Server, None).await;
    while let Some(Ok(message)) = messages.next().await {
        let at = Instant::now();
        let what = match message {
            Message::Text(text) => read_text(&text),
            Message::Binary(bytes) => What::Binary(bytes.to_vec()),
            Message::Close(_) => What::Close,
            Message::Ping(bytes) => {
                session.raw(frame(PONG, &bytes)).await;
                continue;
            }
            Message::Pong(_) | Message::Frame(_) => continue,
        };
        if let What::Json(message) = &what
            && message["type"] == "init"
        {
            let uuid = message["uuid"].as_str().unwrap_or_default().to_owned();
            book.inits.push((uuid, session.clone()));
        }
        let last = matches!(what, What::Close);
        session.heard.push(Heard { at, what });
        if last {
            break;
        }
    }
    if manner != Manner::Clings {
        session.raw(frame(CLOSE, &[])).await;
        session.vanish().await;
    }
    // The writer ends the connection, or the client does: then nothing is left to read.
    let mut rest = [0; 1024];
    while let Ok(1..) = messages.get_mut().reader_mut().read(&mut rest).await {}
}

fn read_text(text: &str) -> What {
    let Ok(message) = serde_json::from_str::<Value>(text) else {
        return What::Text(text.to_owned());
    };
    if message["type"] != "audio" {
        return What::Json(message);
    }
    let audio = message["audio"].as_str().and_then(|text| STANDARD.decode(text).ok());
    let whole = message.as_object().is_some_and(|fields| fields.len() == 2);
    audio.filter(|_| whole).map_or_else(|| What::Text(text.to_owned()), What::Audio)
}

async fn obey(mut write: OwnedWriteHalf, mut inbox: mpsc::Receiver<Order>) {
    let mut closing = false;
    while let Some(order) = inbox.recv().await {
        let sent = match order {
            // A close is said once, be it the first word of it or the answer.
            Order::Bytes(bytes) if bytes[0] == 0x80 | CLOSE && closing => continue,
            Order::Bytes(bytes) => {
                closing |= bytes[0] == 0x80 | CLOSE;
                write.write_all(&bytes).await
            }
            Order::Drop => return,
            Order::Reset => {
                write.as_ref().set_zero_linger().expect("a TCP socket");
                return write.forget();
            }
        };
        if sent.is_err() {
            // The reader tells when the connection is over.
            return std::future::pending().await;
        }
    }
}
