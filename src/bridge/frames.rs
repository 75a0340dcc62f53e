//! Frames: what one Asterisk sends, cut into frames.
//!
//! Limit: the buffer holds one frame at most, and what was read with it.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::timeout;

use crate::audiosocket::{self, BadFrame, Frame, MAX_FRAME};
use crate::event::CallId;

/// Room for what usually comes at a time, in bytes: a few frames of 20 ms, since there are many calls.
const USUAL: usize = 2 * 1024;

/// Why a connection brings no call.
#[derive(Debug, thiserror::Error)]
pub enum NoCall {
    #[error("it was closed before it said which call it is; a dialplan must Answer() first")]
    Closed,
    #[error("it did not say in time which call it is; only Asterisk belongs on this port")]
    Late,
    #[error("its first frame is not a UUID; only Asterisk belongs on this port")]
    OtherFrame,
    #[error("{0}; only Asterisk belongs on this port")]
    BadFrame(#[from] BadFrame),
}

/// The half of the connection that Asterisk writes to.
pub struct FrameReader {
    stream: OwnedReadHalf,
    buffer: Vec<u8>,
    /// Where the next frame begins.
    start: usize,
    gone: bool,
}

impl FrameReader {
    pub fn new(stream: OwnedReadHalf) -> Self {
        Self { stream, buffer: Vec::with_capacity(USUAL), start: 0, gone: false }
    }

    /// The first frame, which says which call this is.
    pub async fn uuid(&mut self) -> Result<CallId, NoCall> {
        loop {
            match self.next()? {
                Some(Frame::Uuid(call)) => return Ok(call),
                Some(_) => return Err(NoCall::OtherFrame),
                None => {}
            }
            if !self.fill().await {
                return Err(NoCall::Closed);
            }
        }
    }

    /// The next frame, if all of it has come.
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, BadFrame> {
        let Some((frame, length)) = audiosocket::read(&self.buffer[self.start..])? else {
            return Ok(None);
        };
        self.start += length;
        Ok(Some(frame))
    }

    /// Waits for more bytes; `false` once no more will come. Cancel safe.
    pub async fn fill(&mut self) -> bool {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > 4 * USUAL {
            self.buffer = Vec::with_capacity(USUAL);
        }
        if self.buffer.len() == self.buffer.capacity() {
            self.buffer.reserve(MAX_FRAME - self.buffer.len());
        }
        let room = self.buffer.capacity() - self.buffer.len();
        let mut stream = (&mut self.stream).take(room as u64);
        // A caller who hangs up is the end of the stream, or a reset where audio was unread.
        let read: io::Result<usize> = stream.read_buf(&mut self.buffer).await;
        self.gone = !matches!(read, Ok(1..));
        !self.gone
    }

    /// Whether no more bytes will come.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Reads on until Asterisk closes, for `time` at most: closing with bytes unread resets the connection,
    /// and what was sent last may be lost.
    pub async fn close(mut self, time: Duration) {
        let ending = async {
            while !self.gone {
                self.buffer.clear();
                self.start = 0;
                self.fill().await;
            }
        };
        // Whoever goes on sending has had the time to read.
        timeout(time, ending).await.ok();
    }
}
