//! What a caller says: a tone that anybody takes for 16-bit linear audio, in whose lowest bits each
//! frame carries its number.

use std::f64::consts::TAU;

use super::frames::{AUDIO, HEADER};

/// A frame in bytes, with its header.
pub const FRAME: usize = HEADER + PAYLOAD;
/// 20 ms of audio in bytes.
const PAYLOAD: usize = 2 * SAMPLES;

/// Samples in 20 ms.
const SAMPLES: usize = 160;
const SAMPLE_RATE: f64 = 8000.0;

/// 300 Hz have six whole waves in 20 ms, so that all frames of a call are the same but for their
/// numbers and follow each other smoothly.
const TONE: f64 = 300.0;
const AMPLITUDE: f64 = 6000.0;

/// The frames of one call.
#[derive(Clone)]
pub struct Voice {
    /// A frame whose samples all have a lowest bit of 0.
    blank: [u8; FRAME],
}

impl Voice {
    /// A voice of its own for each call: they differ by where in the wave their frames begin.
    pub fn of(call: u32) -> Self {
        // The golden ratio spreads any count of calls evenly over the wave.
        let phase = TAU * (f64::from(call) * 0.618_033_988_75).fract();
        let mut blank = [0; FRAME];
        blank[0] = AUDIO;
        #[expect(clippy::cast_possible_truncation, reason = "320")]
        blank[1..HEADER].copy_from_slice(&(PAYLOAD as u16).to_be_bytes());
        for (index, sample) in (0_u32..).zip(blank[HEADER..].chunks_exact_mut(2)) {
            let angle = phase + TAU * TONE * f64::from(index) / SAMPLE_RATE;
            #[expect(clippy::cast_possible_truncation, reason = "6000 at most")]
            let value = (AMPLITUDE * angle.sin()) as i16 & !1;
            sample.copy_from_slice(&value.to_le_bytes());
        }
        Self { blank }
    }

    /// The frame with that number. Its 32 bits stand five times, in the lowest bits of 160 samples.
    pub fn frame(&self, number: u32) -> [u8; FRAME] {
        let mut frame = self.blank;
        for (index, low) in frame[HEADER..].iter_mut().step_by(2).enumerate() {
            *low |= bit(number, index);
        }
        frame
    }

    /// The number that a frame's payload carries; none if a single bit is not as it was sent.
    pub fn number(&self, payload: &[u8]) -> Option<u32> {
        let low_bits = payload.iter().step_by(2).take(32).rev();
        let number = low_bits.fold(0, |number, low| number << 1 | u32::from(low & 1));
        (payload == &self.frame(number)[HEADER..]).then_some(number)
    }
}

fn bit(number: u32, index: usize) -> u8 {
    u8::from(number >> (index % 32) & 1 == 1)
}
