//! AudioSocket: the frames on the wire between Asterisk and callhook.
//!
//! Owns the layout: kind (1 byte), length (2 bytes, big-endian), payload
//! (<https://docs.asterisk.org/Configuration/Channel-Drivers/AudioSocket/>, and `res_audiosocket.c`
//! of Asterisk 22). Pure: sees neither a socket nor a call, and does not know what the audio is.
//!
//! Invariants:
//! - Whatever bytes come, the answer is a frame, "more is needed", or [`BadFrame`]; never a panic.
//! - A frame that is sent is one slice, header and payload together: Asterisk ends a call whose payload
//!   comes more than 5 ms after its header.
//!
//! Limit: a length is 16 bits, so a frame is at most [`MAX_FRAME`] bytes, and every length is legal.

use std::time::Duration;

use crate::event::CallId;

/// Bytes of kind and length.
pub const HEADER: usize = 3;

/// The longest frame, in bytes.
pub const MAX_FRAME: usize = HEADER + u16::MAX as usize;

/// Samples a second of what is played to Asterisk, and of what speech-to-speech servers take.
pub const RATE: u32 = 8000;

/// How long a frame of audio lasts that is played.
pub const FRAME_TIME: Duration = Duration::from_millis(20);

/// Bytes of audio in a frame that is played: 20 ms of 16 bit at 8 kHz.
pub const FRAME_AUDIO: usize = 320;

/// The frame that ends a call.
pub const HANG_UP: [u8; HEADER] = [KIND_HANG_UP, 0, 0];

const KIND_HANG_UP: u8 = 0x00;
const KIND_UUID: u8 = 0x01;
const KIND_DIGIT: u8 = 0x03;
const KIND_AUDIO: u8 = 0x10;

/// Samples a second of the audio kinds from 0x10 on.
const RATES: [u32; 9] = [RATE, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000];

/// One frame from Asterisk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The call is over. Asterisk itself just closes the connection.
    HangUp,
    /// Which call this is; the first frame, and only it.
    Uuid(CallId),
    /// A key was released: one of `0-9*#A-D`.
    Digit(char),
    /// 16 bit little-endian mono at `rate` samples a second; at 8000 it may be the phone's own codec.
    Audio { rate: u32, samples: &'a [u8] },
}

/// Bytes that are no frame that Asterisk may send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    #[error("kind 0x{0:02x} is not one that Asterisk sends")]
    Kind(u8),
    #[error("a frame of kind 0x{kind:02x} has {length} bytes, expected {expected}")]
    Length { kind: u8, length: usize, expected: usize },
    #[error("digit 0x{0:02x} is not one of 0-9 * # A-D")]
    Digit(u8),
}

/// Reads the first frame, and how many bytes it takes; `None` if more bytes are needed.
///
/// # Errors
/// [`BadFrame`], as soon as the header shows it.
pub fn read(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, BadFrame> {
    let Some((&[kind, high, low], rest)) = bytes.split_first_chunk::<HEADER>() else {
        // A bad kind is refused at once: two more bytes may never come.
        return bytes.first().map_or(Ok(None), |kind| known(*kind).map(|()| None));
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    known(kind)?;
    check_length(kind, length)?;
    let Some(payload) = rest.get(..length) else {
        return Ok(None);
    };
    Ok(Some((frame(kind, payload)?, HEADER + length)))
}

/// A frame of 20 ms at 8 kHz.
pub fn audio_frame(samples: &[u8; FRAME_AUDIO]) -> [u8; HEADER + FRAME_AUDIO] {
    let mut frame = [0; HEADER + FRAME_AUDIO];
    frame[0] = KIND_AUDIO;
    frame[1..HEADER].copy_from_slice(&(FRAME_AUDIO as u16).to_be_bytes());
    frame[HEADER..].copy_from_slice(samples);
    frame
}

fn known(kind: u8) -> Result<(), BadFrame> {
    match (kind, rate_of(kind)) {
        (KIND_HANG_UP | KIND_UUID | KIND_DIGIT, _) | (_, Some(_)) => Ok(()),
        // Among them 0xff, an error, which Asterisk never sends.
        (_, None) => Err(BadFrame::Kind(kind)),
    }
}

fn rate_of(kind: u8) -> Option<u32> {
    RATES.get(usize::from(kind.checked_sub(KIND_AUDIO)?)).copied()
}

fn check_length(kind: u8, length: usize) -> Result<(), BadFrame> {
    let expected = match kind {
        KIND_HANG_UP => 0,
        KIND_UUID => 16,
        KIND_DIGIT => 1,
        _ => return Ok(()),
    };
    if length == expected { Ok(()) } else { Err(BadFrame::Length { kind, length, expected }) }
}

fn frame(kind: u8, payload: &[u8]) -> Result<Frame<'_>, BadFrame> {
    match (kind, payload) {
        (KIND_HANG_UP, _) => Ok(Frame::HangUp),
        (KIND_UUID, _) => {
            let bytes = payload.try_into().expect("the length of a UUID was checked");
            Ok(Frame::Uuid(CallId::from_bytes(bytes)))
        }
        (KIND_DIGIT, &[digit @ (b'0'..=b'9' | b'*' | b'#' | b'A'..=b'D')]) => {
            Ok(Frame::Digit(char::from(digit)))
        }
        (KIND_DIGIT, digit) => Err(BadFrame::Digit(digit[0])),
        _ => {
            let rate = rate_of(kind).ok_or(BadFrame::Kind(kind))?;
            Ok(Frame::Audio { rate, samples: payload })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = [7; 16];

    fn wire(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn every_kind_that_asterisk_sends_is_read() {
        let rates = [8000, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000];
        let mut frames = vec![
            (wire(0x00, b""), Frame::HangUp),
            (wire(0x01, &ID), Frame::Uuid(CallId::from_bytes(ID))),
        ];
        for digit in "0123456789*#ABCD".chars() {
            frames.push((wire(0x03, &[digit as u8]), Frame::Digit(digit)));
        }
        for (kind, rate) in (0x10..).zip(rates) {
            frames.push((wire(kind, b"abc"), Frame::Audio { rate, samples: b"abc" }));
            frames.push((wire(kind, b""), Frame::Audio { rate, samples: b"" }));
        }
        for (bytes, frame) in frames {
            assert_eq!(read(&bytes), Ok(Some((frame, bytes.len()))));
            let more = [bytes.as_slice(), &[0xff]].concat();
            assert_eq!(read(&more), Ok(Some((frame, bytes.len()))), "what follows is left alone");
        }
    }

    #[test]
    fn a_frame_is_read_once_it_is_whole_and_not_a_byte_before() {
        for bytes in [wire(0x01, &ID), wire(0x03, b"#"), wire(0x10, &[1; 320])] {
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), Ok(None), "{cut} of {} bytes", bytes.len());
            }
        }
    }

    #[test]
    fn the_longest_frame_there_can_be_is_read() {
        let samples = vec![1; 65_535];
        let bytes = wire(0x10, &samples);
        assert_eq!(bytes.len(), MAX_FRAME);
        let frame = Frame::Audio { rate: RATE, samples: &samples };
        assert_eq!(read(&bytes), Ok(Some((frame, MAX_FRAME))));
    }

    #[test]
    fn what_asterisk_never_sends_is_refused_at_its_first_byte() {
        for kind in (0x00..=0xff).filter(|kind| !matches!(kind, 0 | 1 | 3 | 0x10..=0x18)) {
            assert_eq!(read(&[kind]), Err(BadFrame::Kind(kind)));
            assert_eq!(read(&wire(kind, b"x")), Err(BadFrame::Kind(kind)));
        }
    }

    #[test]
    fn a_length_that_is_not_the_kinds_is_refused() {
        for (kind, payload, expected) in
            [(0x00, &[0_u8; 1][..], 0), (0x01, &ID[1..], 16), (0x03, b"", 1), (0x03, b"12", 1)]
        {
            let bad = BadFrame::Length { kind, length: payload.len(), expected };
            assert_eq!(read(&wire(kind, payload)[..3]), Err(bad));
        }
    }

    #[test]
    fn a_key_that_no_phone_has_is_refused() {
        for digit in [b'E', b'a', b' ', 0, 0xff] {
            assert_eq!(read(&wire(0x03, &[digit])), Err(BadFrame::Digit(digit)));
        }
    }

    #[test]
    fn a_frame_that_is_played_reads_back_as_it_was() {
        let samples = std::array::from_fn(|at| at as u8);
        let frame = audio_frame(&samples);
        let expected = Frame::Audio { rate: RATE, samples: &samples };
        assert_eq!(read(&frame), Ok(Some((expected, HEADER + FRAME_AUDIO))));
    }
}
