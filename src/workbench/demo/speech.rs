//! Speech: a voice of our own making, for a demo that needs no recording.
//!
//! A buzz with three formants, in syllables: enough for ears and codecs to take it for speech.

use std::f64::consts::TAU;

use crate::audiosocket::RATE;

/// Syllables a second, about as people speak.
const SYLLABLES: f64 = 4.0;

/// Frequencies that a vowel like "a" is strong at, in Hz, and how strong.
const FORMANTS: [(f64, f64); 3] = [(700.0, 1.0), (1220.0, 0.5), (2600.0, 0.2)];

/// How wide a formant is, in Hz.
const WIDTH: f64 = 150.0;

/// The loudest that it gets: a quarter of what 16 bit hold.
const LOUDEST: f64 = 8000.0;

/// A voice of that pitch (in Hz), as 16 bit little-endian at 8 kHz.
pub fn speech(milliseconds: u32, pitch: f64) -> Vec<u8> {
    let overtones: Vec<(f64, f64)> = (1..)
        .map(|n| f64::from(n) * pitch)
        .take_while(|hertz| *hertz < 3400.0)
        .map(|hertz| (hertz, strength(hertz)))
        .collect();
    let total: f64 = overtones.iter().map(|(_, strength)| strength).sum();
    let sample = |at: u32| {
        let seconds = f64::from(at) / f64::from(RATE);
        let buzz: f64 = overtones
            .iter()
            .map(|(hertz, strength)| strength * (TAU * hertz * seconds).sin())
            .sum();
        let syllable = (TAU * SYLLABLES * seconds / 2.0).sin().abs();
        // A cast of a float saturates.
        (LOUDEST * buzz / total * syllable) as i16
    };
    (0..milliseconds * RATE / 1000).flat_map(|at| sample(at).to_le_bytes()).collect()
}

fn strength(hertz: f64) -> f64 {
    let near =
        |(center, strength): (f64, f64)| strength / (1.0 + ((hertz - center) / WIDTH).powi(2));
    FORMANTS.into_iter().map(near).sum()
}

pub fn is_voice(pcm: &[u8]) -> bool {
    pcm.as_chunks().0.iter().any(|sample| i16::from_le_bytes(*sample).unsigned_abs() > 500)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_lasts_as_long_as_it_should_and_is_a_voice() {
        let voice = speech(1000, 140.0);
        assert_eq!(voice.len(), 16_000);
        assert!(is_voice(&voice));
        assert!(!is_voice(&[0; 320]));
    }
}
