//! AudioSocket's frames as they come from a socket: one byte of kind, two of length, the payload.

use anyhow::ensure;
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How many frames of 20 ms a second has.
pub const FRAMES_A_SECOND: usize = 50;

/// Bytes before the payload.
pub const HEADER: usize = 3;
/// The first frame of a call.
pub const UUID: u8 = 0x01;
/// 16-bit linear audio, 8 kHz.
pub const AUDIO: u8 = 0x10;

/// Room for three frames of 20 ms.
const ROOM: usize = 1024;

/// A stream of frames. It may be polled and dropped at any time without losing one.
pub struct Frames<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::with_capacity(ROOM) }
    }

    /// The next frame's kind and payload; none after the end of the stream.
    pub async fn next(&mut self) -> anyhow::Result<Option<(u8, Bytes)>> {
        loop {
            if let [kind, high, low, rest @ ..] = &*self.buffer {
                let (kind, length) = (*kind, usize::from(u16::from_be_bytes([*high, *low])));
                if rest.len() >= length {
                    self.buffer.advance(HEADER);
                    return Ok(Some((kind, self.buffer.split_to(length).freeze())));
                }
            }
            // More room than one frame takes: a read that does not fill it has read all there is,
            // and needs no second one to tell.
            self.buffer.reserve(ROOM / 2);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                ensure!(self.buffer.is_empty(), "the stream ended within a frame");
                return Ok(None);
            }
        }
    }
}
