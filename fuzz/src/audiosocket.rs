//! AudioSocket frames, and the audio in them: whatever comes, a frame is read as the protocol says or
//! refused, and audio comes out in whole samples.

use std::time::Duration;

use callhook::audiosocket::{BadFrame, Frame, read};
use callhook::bridge::AudioCodec;
use callhook::bridge::caller::CallerAudio;
use tokio::time::Instant;

const RATES: [u32; 9] = [8000, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000];

/// Checks a stream of frames.
pub fn check(input: &[u8]) {
    let mut audio = CallerAudio::new(AudioCodec::Auto);
    let (mut rest, mut now) = (input, Instant::now());
    loop {
        check_read(rest);
        let Ok(Some((frame, length))) = read(rest) else {
            return;
        };
        if let Frame::Audio { rate, samples } = frame {
            audio.hear(rate, samples, now, |pcm| {
                assert!(!pcm.is_empty() && pcm.len() % 2 == 0, "{} bytes", pcm.len());
                assert!(rate == 8000 || pcm.len() == 320, "20 ms at a time");
            });
        }
        now += Duration::from_millis(20);
        rest = &rest[length..];
    }
}

/// Reads the first frame by the table in the protocol, and compares.
fn check_read(bytes: &[u8]) {
    let found = read(bytes);
    let Some(kind) = bytes.first().copied() else {
        return assert_eq!(found, Ok(None));
    };
    let legal = matches!(kind, 0x00 | 0x01 | 0x03 | 0x10..=0x18);
    if !legal {
        return assert_eq!(found, Err(BadFrame::Kind(kind)));
    }
    let [_, high, low, ..] = *bytes else {
        return assert_eq!(found, Ok(None));
    };
    let length = usize::from(high) * 256 + usize::from(low);
    let expected = match kind {
        0x00 => 0,
        0x01 => 16,
        0x03 => 1,
        _ => length,
    };
    if length != expected {
        return assert_eq!(found, Err(BadFrame::Length { kind, length, expected }));
    }
    let Some(payload) = bytes.get(3..3 + length) else {
        return assert_eq!(found, Ok(None));
    };
    match found {
        Ok(Some((frame, taken))) => {
            assert_eq!(taken, 3 + length);
            match frame {
                Frame::HangUp => assert_eq!(kind, 0),
                Frame::Uuid(call) => assert_eq!(call.to_bytes(), payload),
                Frame::Digit(digit) => {
                    assert_eq!([digit as u8], payload);
                    assert!("0123456789*#ABCD".contains(digit));
                }
                Frame::Audio { rate, samples } => {
                    assert_eq!(samples, payload);
                    assert_eq!(Some(rate), RATES.get(usize::from(kind - 0x10)).copied());
                }
            }
        }
        Err(bad) => assert!(kind == 3 && bad == BadFrame::Digit(payload[0]), "{bad}"),
        Ok(None) => panic!("the frame is whole"),
    }
}
