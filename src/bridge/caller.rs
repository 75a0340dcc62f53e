//! The caller's audio: from whatever Asterisk sends to 16 bit little-endian mono at 8 kHz.
//!
//! Owns when the codec is detected ([`codec`](super::codec) owns how), what is held back until then, and
//! resampling. Sees neither a socket nor a clock.
//!
//! Invariants:
//! - Until the codec is known, frames are held; then all are passed on, in order.
//! - A codec that was detected from silence alone is detected again from the first sound.
//!
//! Limits: frames are held for [`HELD_TIME`], and at most [`HELD_FRAMES`] of them, of 64 KiB each at
//! most.

use std::time::Duration;

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction};
use tokio::time::Instant;

use super::codec::{Codec, Reading, tell};
use super::settings::AudioCodec;
use crate::audiosocket::{FRAME_AUDIO, RATE};

/// How long frames are held until the codec is detected.
pub const HELD_TIME: Duration = Duration::from_millis(200);

/// The most frames that are held: so many come in that time, at 20 ms each.
pub const HELD_FRAMES: usize = 10;

/// Samples in 20 ms at 8 kHz.
const FRAME_SAMPLES: usize = FRAME_AUDIO / 2;

/// The audio of one caller.
pub struct CallerAudio {
    ear: Ear,
    /// For a rate above 8 kHz, which few calls have.
    resampler: Option<Box<Resampler>>,
    told_wideband: bool,
    /// One frame, decoded; kept for its memory.
    pcm: Vec<u8>,
}

/// What is known of the frames of kind 0x10.
enum Ear {
    Sure(Codec),
    /// Detected from silence; these are the frames since.
    Unsure(Codec, HeldFrames),
    /// Nothing is passed on: not yet, or, where `told`, because it cannot be read.
    Deaf {
        told: bool,
        window: HeldFrames,
    },
}

impl CallerAudio {
    pub fn new(codec: AudioCodec) -> Self {
        let ear = match codec {
            AudioCodec::Auto => Ear::Deaf { told: false, window: HeldFrames::default() },
            AudioCodec::Fixed(codec) => Ear::Sure(codec),
        };
        Self { ear, resampler: None, told_wideband: false, pcm: Vec::new() }
    }

    /// Takes a frame of `rate` samples a second and passes on what can be, one frame at a time. Returns what
    /// is newly known of the codec, to be logged.
    pub fn hear(
        &mut self,
        rate: u32,
        frame: &[u8],
        now: Instant,
        mut pass_on: impl FnMut(&[u8]),
    ) -> Option<Reading> {
        if frame.is_empty() {
            return None;
        }
        if rate != RATE {
            self.resample(rate, frame, pass_on);
            let told = std::mem::replace(&mut self.told_wideband, true);
            return (!told).then_some(Reading::Wideband { rate });
        }
        match &mut self.ear {
            Ear::Sure(Codec::Slin) if frame.len().is_multiple_of(2) => pass_on(frame),
            Ear::Sure(codec) => decode(*codec, frame, &mut self.pcm, pass_on),
            Ear::Unsure(codec, window) => {
                let codec = *codec;
                let reading = window.add(frame, now);
                decode(codec, frame, &mut self.pcm, pass_on);
                if reading.is_some() {
                    window.frames.clear();
                }
                return reading.and_then(|reading| self.reconsider(codec, reading));
            }
            Ear::Deaf { told, window } => {
                let reading = window.add(frame, now)?;
                let (told, held) = (*told, std::mem::take(&mut window.frames));
                return self.settle(told, reading, &held, pass_on);
            }
        }
        None
    }

    fn settle(
        &mut self,
        told: bool,
        reading: Reading,
        held: &[Vec<u8>],
        mut pass_on: impl FnMut(&[u8]),
    ) -> Option<Reading> {
        let Reading::Audio { codec, certain } = reading else {
            self.ear = Ear::Deaf { told: true, window: HeldFrames::default() };
            return (!told).then_some(reading);
        };
        for frame in held {
            decode(codec, frame, &mut self.pcm, &mut pass_on);
        }
        self.ear =
            if certain { Ear::Sure(codec) } else { Ear::Unsure(codec, HeldFrames::default()) };
        Some(reading)
    }

    /// What the first sound after silence says.
    fn reconsider(&mut self, before: Codec, reading: Reading) -> Option<Reading> {
        match reading {
            Reading::Audio { certain: false, .. } | Reading::Wideband { .. } => None,
            Reading::Audio { codec, certain: true } => {
                self.ear = Ear::Sure(codec);
                (codec != before).then_some(reading)
            }
            Reading::Unreadable => {
                self.ear = Ear::Deaf { told: true, window: HeldFrames::default() };
                Some(reading)
            }
        }
    }

    fn resample(&mut self, rate: u32, frame: &[u8], pass_on: impl FnMut(&[u8])) {
        let resampler = match &mut self.resampler {
            Some(resampler) if resampler.rate == rate => resampler,
            other => other.insert(Box::new(Resampler::new(rate))),
        };
        resampler.hear(frame, pass_on);
    }
}

fn decode(codec: Codec, frame: &[u8], pcm: &mut Vec<u8>, mut pass_on: impl FnMut(&[u8])) {
    pcm.clear();
    codec.decode(frame, pcm);
    if !pcm.is_empty() {
        pass_on(pcm);
    }
}

/// The frames that the codec is detected from.
#[derive(Default)]
struct HeldFrames {
    since: Option<Instant>,
    frames: Vec<Vec<u8>>,
}

impl HeldFrames {
    /// Adds a frame; says what all of them are once there are enough.
    fn add(&mut self, frame: &[u8], now: Instant) -> Option<Reading> {
        let since = *self.since.get_or_insert(now);
        self.frames.push(frame.to_vec());
        if self.frames.len() < HELD_FRAMES && now.duration_since(since) < HELD_TIME {
            return None;
        }
        self.since = None;
        Some(tell(&self.frames, now.duration_since(since)))
    }
}

/// From a higher rate to 8 kHz, 20 ms at a time.
struct Resampler {
    rate: u32,
    fft: Fft<f32>,
    input: Vec<f32>,
    output: [f32; FRAME_SAMPLES],
}

impl Resampler {
    fn new(rate: u32) -> Self {
        let (from, to) = (rate as usize, RATE as usize);
        let window = WindowFunction::BlackmanHarris2;
        let fft = Fft::new_custom(from, to, from / 50, 1, 1, window, FixedSync::Both)
            .expect("each of AudioSocket's rates has a whole number of samples in 20 ms");
        Self { rate, fft, input: Vec::new(), output: [0.0; FRAME_SAMPLES] }
    }

    fn hear(&mut self, frame: &[u8], mut pass_on: impl FnMut(&[u8])) {
        let (samples, _) = frame.as_chunks();
        self.input.extend(samples.iter().map(|sample| f32::from(i16::from_le_bytes(*sample))));
        let chunk = self.fft.input_frames_next();
        let whole = self.input.len() / chunk * chunk;
        for part in self.input[..whole].chunks_exact(chunk) {
            let input = InterleavedSlice::new(part, 1, chunk).expect("it has that length");
            let mut output = InterleavedSlice::new_mut(&mut self.output, 1, FRAME_SAMPLES)
                .expect("it has that length");
            self.fft
                .process_into_buffer(&input, &mut output, None)
                .expect("20 ms go in, and 20 ms come out");
            let mut pcm = [0; FRAME_AUDIO];
            for (to, sample) in pcm.as_chunks_mut().0.iter_mut().zip(self.output) {
                // A cast of a float saturates.
                *to = (sample.round() as i16).to_le_bytes();
            }
            pass_on(&pcm);
        }
        self.input.drain(..whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    fn tone(rate: u32, samples: usize, from: usize) -> Vec<u8> {
        let at = |n: usize| (8000.0 * (TAU * 440.0 * n as f64 / f64::from(rate)).sin()) as i16;
        (from..from + samples).flat_map(|n| at(n).to_le_bytes()).collect()
    }

    const SLIN: Reading = Reading::Audio { codec: Codec::Slin, certain: true };

    /// Feeds frames 20 ms apart; returns what was passed on, and what was found out.
    fn feed<'a>(
        audio: &mut CallerAudio,
        frames: impl IntoIterator<Item = (u32, &'a [u8])>,
    ) -> (Vec<Vec<u8>>, Vec<Reading>) {
        let (mut passed, mut found, mut now) = (Vec::new(), Vec::new(), Instant::now());
        for (rate, frame) in frames {
            found.extend(audio.hear(rate, frame, now, |pcm| passed.push(pcm.to_vec())));
            now += Duration::from_millis(20);
        }
        (passed, found)
    }

    #[tokio::test]
    async fn frames_are_held_until_the_codec_is_told_and_none_is_lost() {
        let frames: Vec<Vec<u8>> = (0..20).map(|n| tone(RATE, 160, 160 * n)).collect();
        let mut audio = CallerAudio::new(AudioCodec::Auto);
        let frame = |n: usize| (RATE, frames[n].as_slice());
        assert_eq!(feed(&mut audio, (0..9).map(frame)), (vec![], vec![]));
        let (passed, found) = feed(&mut audio, (9..20).map(frame));
        assert_eq!(found, [SLIN]);
        assert_eq!(passed, frames);
    }

    #[tokio::test]
    async fn slow_frames_are_told_after_200_ms() {
        let mut audio = CallerAudio::new(AudioCodec::Auto);
        let frame = tone(RATE, 320, 0);
        let begun = Instant::now();
        assert_eq!(audio.hear(RATE, &frame, begun, |_| unreachable!()), None);
        let mut passed = 0;
        let found = audio.hear(RATE, &frame, begun + HELD_TIME, |_| passed += 1);
        assert_eq!((found, passed), (Some(SLIN), 2));
    }

    #[tokio::test]
    async fn what_was_told_from_silence_is_told_again_from_sound() {
        // µ-law's silence in frames of 40 ms is as long as 20 ms of slin, which is silence too.
        let silence = [0xff; 320];
        let (tone, _): (Vec<_>, ()) = (tone(RATE, 320, 0), ());
        let sound: Vec<u8> = tone
            .as_chunks()
            .0
            .iter()
            .map(|sample| audio_codec_algorithms::encode_ulaw(i16::from_le_bytes(*sample)))
            .collect();
        let mut audio = CallerAudio::new(AudioCodec::Auto);
        let (_, found) = feed(&mut audio, [(RATE, &silence[..]); 10]);
        let (_, found_later) = feed(&mut audio, [(RATE, sound.as_slice()); 10]);
        assert_eq!(found.len(), 1);
        assert_eq!(found_later, [Reading::Audio { codec: Codec::Ulaw, certain: true }]);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_said_once_and_not_passed_on_until_it_can() {
        let mut audio = CallerAudio::new(AudioCodec::Auto);
        let gsm = [0xd5; 33];
        let (passed, found) = feed(&mut audio, [(RATE, &gsm[..]); 40]);
        assert_eq!((passed, found), (vec![], vec![Reading::Unreadable]));
        let frame = tone(RATE, 160, 0);
        let (passed, found) = feed(&mut audio, [(RATE, frame.as_slice()); 10]);
        assert_eq!((passed.len(), found), (10, vec![SLIN]));
    }

    #[tokio::test]
    async fn a_fixed_codec_is_decoded_from_the_first_frame() {
        for (codec, bytes) in [(Codec::Slin, 320), (Codec::Ulaw, 640), (Codec::Alaw, 640)] {
            let mut audio = CallerAudio::new(AudioCodec::Fixed(codec));
            let (passed, found) = feed(&mut audio, [(RATE, &[0xd5; 320][..])]);
            assert_eq!((passed[0].len(), found), (bytes, vec![]), "{codec:?}");
        }
    }

    #[tokio::test]
    async fn higher_rates_come_out_at_8_khz_in_frames_of_20_ms() {
        for rate in [12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000] {
            let samples = rate as usize / 50;
            let frames: Vec<Vec<u8>> = (0..50).map(|n| tone(rate, samples, n * samples)).collect();
            let mut audio = CallerAudio::new(AudioCodec::Auto);
            let (passed, found) =
                feed(&mut audio, frames.iter().map(|frame| (rate, frame.as_slice())));
            assert_eq!(found, [Reading::Wideband { rate }]);
            assert_eq!(passed.len(), 50, "{rate}");
            let pcm: Vec<i16> =
                passed.concat().as_chunks().0.iter().map(|two| i16::from_le_bytes(*two)).collect();
            let crossings = pcm[800..].windows(2).filter(|two| two[0] < 0 && two[1] >= 0).count();
            // 0.9 s of 440 Hz.
            assert!((394..=398).contains(&crossings), "{rate}: {crossings}");
            let loudest = pcm[800..].iter().map(|sample| sample.unsigned_abs()).max();
            assert!((7800..8200).contains(&loudest.unwrap()), "{rate}: {loudest:?}");
        }
    }

    #[tokio::test]
    async fn frames_of_an_odd_length_lose_no_whole_sample() {
        let second = tone(16_000, 16_000, 0);
        let mut audio = CallerAudio::new(AudioCodec::Auto);
        let (passed, _) = feed(&mut audio, second.chunks(1000).map(|frame| (16_000, frame)));
        assert_eq!(passed.len(), 50);
    }
}
