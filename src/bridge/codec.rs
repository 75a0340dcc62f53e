//! Codec: what is the audio that comes under kind 0x10?
//!
//! `Dial(AudioSocket/…)` passes on what the phone sends, be it µ-law, A-law or anything else, under
//! the kind of signed linear audio, and nothing names it. Owns how the three that can be read are
//! told apart and decoded. Pure.
//!
//! How: decoded the right way, speech and silence are smooth and mostly soft; decoded the wrong way,
//! they are loud noise. [`harshness`] measures that. Two hints help where it is close: phones' frames
//! usually take 20 ms, and bytes come as fast as they are played. G.722 is the one other codec with frames as
//! long as those of G.711. As G.711 it is noise, and no noise that a line has: its loudness jumps from sample
//! to sample, and is much more than that of the sound it codes.

use std::time::Duration;

use audio_codec_algorithms::{decode_alaw, decode_ulaw};
use strum::VariantArray as _;

use super::g722;

/// How samples at 8 kHz are coded, in the order of preference where nothing tells them apart. The names
/// are Asterisk's.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr, strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum Codec {
    /// Signed linear, 16 bit, little-endian.
    Slin,
    /// G.711 µ-law.
    Ulaw,
    /// G.711 A-law.
    Alaw,
}

impl Codec {
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Appends the frame's samples as 16 bit little-endian. An odd last byte is dropped.
    pub fn decode(self, frame: &[u8], pcm: &mut Vec<u8>) {
        match self {
            Self::Slin => pcm.extend(&frame[..frame.len() & !1]),
            Self::Ulaw => expand(frame, decode_ulaw, pcm),
            Self::Alaw => expand(frame, decode_alaw, pcm),
        }
    }

    fn samples(self, frame: &[u8]) -> Vec<f64> {
        let mut pcm = Vec::with_capacity(2 * frame.len());
        self.decode(frame, &mut pcm);
        let (samples, _) = pcm.as_chunks();
        samples.iter().map(|sample| f64::from(i16::from_le_bytes(*sample))).collect()
    }

    /// Whether a frame of so many bytes can be of this codec: whole samples, and for G.711 whole
    /// milliseconds. GSM's 33 bytes are neither.
    fn fits(self, bytes: usize) -> bool {
        match self {
            Self::Slin => bytes.is_multiple_of(2),
            Self::Ulaw | Self::Alaw => bytes.is_multiple_of(8),
        }
    }

    /// How unlikely the frames' length and pace make this codec.
    fn unlikeliness(self, frames: &[Vec<u8>], elapsed: Duration) -> f64 {
        let g711 = self != Self::Slin;
        let of_slin = are_of_slin(frames);
        let fast = are_fast(frames, elapsed);
        let against = usize::from(of_slin == g711) + usize::from(fast == g711);
        HINT * against as f64
    }
}

fn are_of_slin(frames: &[Vec<u8>]) -> bool {
    frames.iter().all(|frame| frame.len().is_multiple_of(320))
}

fn are_fast(frames: &[Vec<u8>], elapsed: Duration) -> bool {
    let after_first: usize = frames.iter().skip(1).map(Vec::len).sum();
    after_first as f64 > elapsed.as_secs_f64() * FAST
}

/// Appends a sample for each code. It makes room first: appending byte by byte was most of what a frame
/// of a phone costs.
fn expand(frame: &[u8], decode: impl Fn(u8) -> i16, pcm: &mut Vec<u8>) {
    let begin = pcm.len();
    pcm.resize(begin + 2 * frame.len(), 0);
    let (samples, _) = pcm[begin..].as_chunks_mut();
    for (sample, code) in samples.iter_mut().zip(frame) {
        *sample = decode(*code).to_le_bytes();
    }
}

/// What some frames in a row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// `certain` is false for silence and for noise, which say little.
    Audio { codec: Codec, certain: bool },
    /// Signed linear at a higher rate, which the frames' kind names.
    Wideband { rate: u32 },
    /// No codec that can be decoded.
    Unreadable,
}

/// Loudness (mean square) under which sound counts as silence: an amplitude of 100, where the widest
/// is 32,767.
const SOFT: f64 = 1e4;

/// Loudness from which noise is suspicious: an amplitude of 6000. Random bytes decode to 10,000 and
/// more, the noise in a call to much less.
const LOUD: f64 = 3.6e7;

/// Harshness from which audio counts as noise. Noise has 3, speech 1.0 to 1.6, DTMF 1.9.
const NOISY: f64 = 2.4;

/// Harshness up to which sound is sure to be of the codec it was decoded with. Beyond are hissing letters and
/// noise, which are much alike in µ-law and A-law, and G.722, which has 1.9 to 3.5.
const SMOOTH: f64 = 2.0;

/// The crest up to which it is sure. Speech has 2.2 at most, but for single clicks.
const PEAKY: f64 = 2.4;

/// Samples in which the loudness of sound does not change much: 4 ms.
const MOMENT: usize = 32;

/// What a hint is worth. Two of them are worth less than the 0.8 or more between speech decoded the right
/// way and the wrong way, and more than what lies between two noises by chance.
const HINT: f64 = 0.35;

/// What ten times the power is worth.
const POWER: f64 = 0.1;

/// Bytes a second from which the pace is slin's: between the 8000 of G.711 and the 16,000 of slin.
const FAST: f64 = 11_300.0;

/// Tells what the frames are; `elapsed` is the time from the first to the last.
pub fn tell(frames: &[Vec<u8>], elapsed: Duration) -> Reading {
    let fits = |codec: &Codec| frames.iter().all(|frame| codec.fits(frame.len()));
    let candidates = Codec::VARIANTS.iter().copied().filter(fits).map(|codec| {
        let samples: Vec<f64> = frames.iter().flat_map(|frame| codec.samples(frame)).collect();
        let (harshness, power) = (harshness(&samples), loudness(&samples));
        let cost = harshness + POWER * (power + 1.0).log10() + codec.unlikeliness(frames, elapsed);
        (cost, codec, samples)
    });
    let best = candidates.min_by(|(one, ..), (other, ..)| one.total_cmp(other));
    let Some((_, codec, samples)) = best else { return Reading::Unreadable };
    let (harshness, power) = (harshness(&samples), loudness(&samples));
    let noise = power > LOUD && harshness > NOISY;
    let at_pace_of_slin =
        are_fast(frames, elapsed) && (codec == Codec::Slin || are_of_slin(frames));
    if noise || (power > SOFT && !at_pace_of_slin && is_g722(frames, &samples)) {
        return Reading::Unreadable;
    }
    let certain = power > SOFT && harshness < SMOOTH && crest(&samples) < PEAKY;
    Reading::Audio { codec, certain }
}

/// Whether frames that G.711 makes these samples of are G.722: peaky, and louder than what G.722 makes of them.
/// Noise on a line is neither: at a crest of 1.3 to 1.6 G.722 would make it four times as loud and more. The
/// boundary between the two was found with speech in six languages, music and noise, at three levels.
fn is_g722(frames: &[Vec<u8>], samples: &[f64]) -> bool {
    // In A-law, G.722's silence is a steady voltage.
    let samples = without_mean(samples);
    let louder = || {
        let coded = without_mean(&g722::low_band(&frames.concat()));
        (loudness(&coded) / loudness(&samples)).log10()
    };
    harshness(&samples) > SMOOTH && louder() < 0.75 * (crest(&samples) - 1.0)
}

fn without_mean(samples: &[f64]) -> Vec<f64> {
    let mean = samples.iter().sum::<f64>() / samples.len() as f64;
    samples.iter().map(|sample| sample - mean).collect()
}

/// How peaky sound is within each [`MOMENT`]: 1.2 for a tone, 1.3 to 1.6 for noise, up to 2.2 for speech.
fn crest(samples: &[f64]) -> f64 {
    let moments = || samples.chunks(MOMENT);
    let mean =
        |moment: &[f64]| moment.iter().map(|sample| sample.abs()).sum::<f64>() / MOMENT as f64;
    let square: f64 = moments().map(|moment| mean(moment).powi(2)).sum();
    moments().map(loudness).sum::<f64>() / square
}

fn loudness(samples: &[f64]) -> f64 {
    mean_square(samples.iter().copied(), samples.len())
}

/// The power of the changes from sample to sample, plus that of the sound itself, divided by that of the
/// sound: near 0 for silence, 1 for what changes slowly, 3 for noise.
fn harshness(samples: &[f64]) -> f64 {
    let power = loudness(samples);
    let changes = samples.windows(2).map(|pair| pair[1] - pair[0]);
    (mean_square(changes, samples.len()) + power) / (power + SOFT)
}

fn mean_square(values: impl Iterator<Item = f64>, count: usize) -> f64 {
    values.map(|value| value * value).sum::<f64>() / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use audio_codec_algorithms::{encode_alaw, encode_ulaw};
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};
    use std::f64::consts::TAU;

    /// 200 ms.
    const SAMPLES: usize = 1600;

    fn tone(hertz: f64, amplitude: f64) -> Vec<i16> {
        let at = |n: usize| (amplitude * (TAU * hertz * n as f64 / 8000.0).sin()) as i16;
        (0..SAMPLES).map(at).collect()
    }

    fn noise(seed: u64, amplitude: i16) -> Vec<i16> {
        let mut random = StdRng::seed_from_u64(seed);
        (0..SAMPLES).map(|_| random.random_range(-amplitude..=amplitude)).collect()
    }

    fn sum(one: &[i16], other: &[i16]) -> Vec<i16> {
        one.iter().zip(other).map(|(a, b)| a.saturating_add(*b)).collect()
    }

    fn coded(codec: Codec, samples: &[i16], milliseconds: usize) -> Vec<Vec<u8>> {
        let frames = samples.chunks(8 * milliseconds);
        let code = |frame: &[i16]| match codec {
            Codec::Slin => frame.iter().flat_map(|sample| sample.to_le_bytes()).collect(),
            Codec::Ulaw => frame.iter().map(|sample| encode_ulaw(*sample)).collect(),
            Codec::Alaw => frame.iter().map(|sample| encode_alaw(*sample)).collect(),
        };
        frames.map(code).collect()
    }

    /// Tells frames that came at the pace of their audio.
    fn tell_paced(frames: &[Vec<u8>], milliseconds: usize) -> Reading {
        tell(frames, Duration::from_millis(((frames.len() - 1) * milliseconds) as u64))
    }

    #[test]
    fn sound_is_told_at_the_frame_lengths_that_phones_use() {
        let sounds = [
            ("a soft tone", tone(440.0, 300.0)),
            ("a loud tone", tone(440.0, 20_000.0)),
            ("the loudest tone", tone(1000.0, 32_000.0)),
            ("a key", sum(&tone(941.0, 9000.0), &tone(1477.0, 9000.0))),
            ("a tone in noise", sum(&tone(200.0, 2000.0), &noise(1, 500))),
        ];
        for (name, samples) in &sounds {
            for codec in Codec::VARIANTS.iter().copied() {
                for milliseconds in [10, 20, 40] {
                    let reading = tell_paced(&coded(codec, samples, milliseconds), milliseconds);
                    let expected = Reading::Audio { codec, certain: true };
                    assert_eq!(reading, expected, "{name}, {codec:?}, {milliseconds} ms");
                }
            }
        }
    }

    #[test]
    fn sound_at_20_ms_is_told_also_when_it_comes_in_a_burst() {
        for codec in Codec::VARIANTS.iter().copied() {
            let frames = coded(codec, &tone(440.0, 8000.0), 20);
            let expected = Reading::Audio { codec, certain: true };
            assert_eq!(tell(&frames, Duration::from_millis(5)), expected, "{codec:?}");
        }
    }

    #[test]
    fn silence_is_told_at_20_ms_though_not_for_certain() {
        for amplitude in [0, 3, 30] {
            for codec in Codec::VARIANTS.iter().copied() {
                let reading = tell_paced(&coded(codec, &noise(2, amplitude), 20), 20);
                let expected = Reading::Audio { codec, certain: false };
                assert_eq!(reading, expected, "noise of {amplitude}, {codec:?}");
            }
        }
    }

    #[test]
    fn a_noisy_line_is_no_unreadable_codec() {
        for codec in [Codec::Slin, Codec::Ulaw] {
            let reading = tell_paced(&coded(codec, &noise(3, 3500), 20), 20);
            // µ-law and A-law make much the same of noise.
            assert_eq!(reading, Reading::Audio { codec, certain: false }, "{codec:?}");
        }
    }

    #[test]
    fn bytes_at_random_are_unreadable() {
        for bytes in [33, 160, 320] {
            let mut random = StdRng::seed_from_u64(4);
            let frames: Vec<Vec<u8>> =
                (0..10).map(|_| (0..bytes).map(|_| random.random()).collect()).collect();
            assert_eq!(tell_paced(&frames, 20), Reading::Unreadable, "{bytes} bytes");
        }
    }

    #[test]
    fn g711_reads_back_within_its_own_steps() {
        for (codec, step) in [(Codec::Ulaw, 1100.0), (Codec::Alaw, 1100.0), (Codec::Slin, 0.0)] {
            let samples = tone(440.0, 20_000.0);
            let decoded: Vec<f64> =
                coded(codec, &samples, 20).iter().flat_map(|frame| codec.samples(frame)).collect();
            let widest = samples.iter().zip(&decoded).map(|(a, b)| (f64::from(*a) - b).abs());
            assert!(widest.fold(0.0, f64::max) <= step, "{codec:?}");
        }
    }
}
