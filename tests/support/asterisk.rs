//! An Asterisk on AudioSocket, or something worse: it sends what a test tells it to, one frame a write, and
//! notes what comes back.
//! <https://docs.asterisk.org/Configuration/Channel-Drivers/AudioSocket/>

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::capture::Capture;
use super::event::new_uuid;
use super::record::Record;

pub const HANGUP: u8 = 0x00;
pub const UUID: u8 = 0x01;
pub const DTMF: u8 = 0x03;
pub const AUDIO: u8 = 0x10;

/// How long one frame of audio lasts.
pub const BEAT: Duration = Duration::from_millis(20);
/// The bytes of one frame of audio at 8 kHz.
pub const FRAME: usize = 320;

#[derive(Clone, Debug)]
pub struct Frame {
    pub at: Instant,
    pub kind: u8,
    pub payload: Vec<u8>,
}

#[derive(Clone, Debug)]
pub enum Heard {
    Frame(Frame),
    /// A read ended inside a frame, after this many bytes of it.
    Part(usize),
    /// The end of the connection, in order or not.
    End(Instant),
}

/// One connection to callhook; dropping it hangs up.
pub struct Asterisk {
    write: OwnedWriteHalf,
    heard: Arc<Record<Heard>>,
    reader: JoinSet<()>,
}

impl Asterisk {
    /// Connects and says nothing.
    pub async fn connect(addr: SocketAddr) -> Asterisk {
        Asterisk::try_connect(addr).await.expect("AudioSocket accepts connections")
    }

    /// Connects and sends a new uuid.
    pub async fn dial(addr: SocketAddr) -> Asterisk {
        let mut asterisk = Asterisk::connect(addr).await;
        assert!(asterisk.uuid(&new_uuid()).await, "callhook takes a uuid");
        asterisk
    }

    /// Connects, if somebody listens, and says nothing.
    pub async fn try_connect(addr: SocketAddr) -> std::io::Result<Asterisk> {
        let (mut asterisk, read) = Asterisk::open(addr).await?;
        asterisk.reader.spawn(listen(read, Arc::clone(&asterisk.heard)));
        Ok(asterisk)
    }

    /// Connects and never reads.
    pub async fn connect_deaf(addr: SocketAddr) -> Asterisk {
        let opened = Asterisk::open(addr).await;
        let (mut asterisk, read) = opened.expect("AudioSocket accepts connections");
        asterisk.reader.spawn(async move {
            let _kept = read;
            std::future::pending::<()>().await;
        });
        asterisk
    }

    async fn open(addr: SocketAddr) -> std::io::Result<(Asterisk, OwnedReadHalf)> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        Ok((Asterisk { write, heard: Arc::default(), reader: JoinSet::new() }, read))
    }

    /// Sends bytes in one write; false if the peer has closed already.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.write.write_all(bytes).await.is_ok()
    }

    pub async fn frame(&mut self, kind: u8, payload: &[u8]) -> bool {
        self.send(&frame(kind, payload)).await
    }

    /// Sends the first frame of a call.
    pub async fn uuid(&mut self, uuid: &str) -> bool {
        let uuid = Uuid::parse_str(uuid).expect("a uuid");
        self.frame(UUID, uuid.as_bytes()).await
    }

    pub async fn digit(&mut self, digit: char) {
        let digit = u8::try_from(digit).expect("a digit is ASCII");
        assert!(self.frame(DTMF, &[digit]).await, "callhook takes a digit");
    }

    /// Sends the payloads as frames of this kind, one each 20 ms; stops if the peer has closed.
    pub async fn play(&mut self, kind: u8, payloads: impl IntoIterator<Item = &[u8]>) {
        let mut due = Instant::now();
        for payload in payloads {
            sleep_until(due).await;
            if !self.frame(kind, payload).await {
                return;
            }
            due += BEAT;
        }
    }

    /// Sends silence for the time of this many frames.
    pub async fn silence(&mut self, frames: usize) {
        self.play(AUDIO, std::iter::repeat_n(&[0; FRAME][..], frames)).await;
    }

    /// Sends the recording at its own pace, but does not end the connection.
    pub async fn replay(&mut self, capture: &Capture) {
        let start = Instant::now();
        for (after, bytes) in &capture.reads {
            sleep_until(start + *after).await;
            assert!(self.send(bytes).await, "callhook takes what Asterisk sent");
        }
        sleep_until(start + capture.end).await;
    }

    /// Ends the connection as `close()` does when all was read.
    pub async fn hang_up(mut self) {
        self.reader.shutdown().await;
    }

    /// Ends the connection as `close()` does when something was unread.
    pub async fn reset(mut self) {
        self.reader.shutdown().await;
        self.write.as_ref().set_zero_linger().expect("a TCP socket");
        self.write.forget();
    }

    /// What was heard so far, or in the end.
    pub fn ear(&self) -> Ear {
        Ear(Arc::clone(&self.heard))
    }
}

/// What came from callhook on one connection; it outlives the connection.
#[derive(Clone)]
pub struct Ear(Arc<Record<Heard>>);

impl Ear {
    /// The frames so far, but for those of silence, which come while nothing is played.
    pub fn frames(&self) -> Vec<Frame> {
        self.0.look(frames_of)
    }

    /// When frames of silence came.
    pub fn silences(&self) -> Vec<Instant> {
        self.0.look(silences_of)
    }

    /// Waits for at least this many frames of silence; returns when they came.
    pub async fn silent_for(&self, count: usize) -> Vec<Instant> {
        let enough = |heard: &[Heard]| Some(silences_of(heard)).filter(|all| all.len() >= count);
        self.0.until(&format!("{count} frames of silence to Asterisk"), enough).await
    }

    /// The bytes of incomplete frames that a read ended with, if any did.
    pub fn parts(&self) -> Vec<usize> {
        let part = |heard: &Heard| if let Heard::Part(size) = heard { Some(*size) } else { None };
        self.0.look(|heard| heard.iter().filter_map(part).collect())
    }

    /// Waits for at least this many frames.
    pub async fn at_least(&self, count: usize) -> Vec<Frame> {
        let enough = |frames: &[Frame]| (frames.len() >= count).then(|| frames.to_vec());
        self.until(&format!("{count} frames to Asterisk"), enough).await
    }

    /// Waits until `look` finds something in the frames.
    pub async fn until<T>(&self, what: &str, look: impl Fn(&[Frame]) -> Option<T>) -> T {
        self.0.until(what, |heard| look(&frames_of(heard))).await
    }

    /// Waits until callhook has closed the connection; returns when it did.
    pub async fn closed(&self) -> Instant {
        let end = |heard: &Heard| if let Heard::End(at) = heard { Some(*at) } else { None };
        self.0.until("a close towards Asterisk", |heard| heard.iter().find_map(end)).await
    }

    /// Waits for the close, and expects a hang-up frame as the last thing before it.
    pub async fn hung_up(&self) -> Instant {
        let at = self.closed().await;
        let frames = self.frames();
        let last = frames.last().expect("a frame before the close");
        assert_eq!((last.kind, last.payload.len()), (HANGUP, 0), "the last frame");
        let hangups = frames.iter().filter(|frame| frame.kind == HANGUP).count();
        assert_eq!(hangups, 1, "one hang-up");
        at
    }
}

fn frames_of(heard: &[Heard]) -> Vec<Frame> {
    all_frames_of(heard).filter(|frame| !is_silence(frame)).cloned().collect()
}

fn silences_of(heard: &[Heard]) -> Vec<Instant> {
    all_frames_of(heard).filter(|frame| is_silence(frame)).map(|frame| frame.at).collect()
}

fn all_frames_of(heard: &[Heard]) -> impl Iterator<Item = &Frame> {
    heard
        .iter()
        .filter_map(|heard| if let Heard::Frame(frame) = heard { Some(frame) } else { None })
}

fn is_silence(frame: &Frame) -> bool {
    frame.kind == AUDIO && frame.payload == [0; FRAME]
}

pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a length of 16 bits");
    [&[kind], &length.to_be_bytes()[..], payload].concat()
}

/// Takes a whole frame off the front of the bytes.
pub fn take_frame(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let [kind, high, low, ..] = bytes[..] else { return None };
    let end = 3 + usize::from(u16::from_be_bytes([high, low]));
    if bytes.len() < end {
        return None;
    }
    let payload = bytes[3..end].to_vec();
    bytes.drain(..end);
    Some((kind, payload))
}

async fn listen(mut read: OwnedReadHalf, heard: Arc<Record<Heard>>) {
    // Room for many frames, so that a read takes all there is.
    let (mut chunk, mut buffer) = ([0; 16 * 1024], Vec::new());
    while let Ok(size @ 1..) = read.read(&mut chunk).await {
        buffer.extend_from_slice(&chunk[..size]);
        let at = Instant::now();
        while let Some((kind, payload)) = take_frame(&mut buffer) {
            heard.push(Heard::Frame(Frame { at, kind, payload }));
        }
        if !buffer.is_empty() {
            heard.push(Heard::Part(buffer.len()));
        }
    }
    heard.push(Heard::End(Instant::now()));
}
