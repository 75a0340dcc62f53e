//! Real speech and music, in what phones speak: which is taken for which. `tests/speech/make.sh` has how the
//! recordings were made.

use std::path::Path;
use std::time::Duration;

use callhook::bridge::AudioCodec;
use callhook::bridge::caller::CallerAudio;
use callhook::bridge::codec::{Codec, Reading};
use tokio::time::Instant;

use super::caller::is_warned_about;
use crate::support::sound::{bytes_of, companded, expanded, from_alaw, from_ulaw, samples_of};

const LEVELS: [i32; 3] = [0, 15, 30];
/// Frames of 20 ms in the 3 s before somebody speaks.
const QUIET: usize = 150;

fn recording(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/speech").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The samples, softer by so many decibels.
fn at_level(samples: &[i16], below: i32) -> Vec<i16> {
    let factor = 10.0_f64.powf(f64::from(-below) / 20.0);
    samples.iter().map(|sample| (f64::from(*sample) * factor).round() as i16).collect()
}

/// What came of a call: what was said of its codec, and the audio that was passed on.
fn heard(wire: &[u8], frame: usize) -> (Vec<Reading>, Vec<u8>) {
    let (mut audio, mut now) = (CallerAudio::new(AudioCodec::Auto), Instant::now());
    let (mut readings, mut passed) = (Vec::new(), Vec::new());
    for frame in wire.chunks_exact(frame) {
        readings.extend(audio.hear(8000, frame, now, |pcm| passed.extend_from_slice(pcm)));
        now += Duration::from_millis(20);
    }
    (readings, passed)
}

/// Sound that is understood: every reading is this codec, and all of it is passed on as it was meant.
fn is_read(case: &str, codec: Codec, wire: &[u8], frame: usize, pcm: &[u8]) {
    let (readings, passed) = heard(wire, frame);
    let right =
        |reading: &Reading| matches!(reading, Reading::Audio { codec: read, .. } if *read == codec);
    assert!(!readings.is_empty() && readings.iter().all(right), "{case}: {readings:?}");
    let whole = pcm.len() / 320 * 320;
    assert!(passed == pcm[..whole], "{case}: {} of {whole} bytes, or others", passed.len());
}

/// Sound that nobody can read: said once, and not a byte passed on.
fn is_not_read(case: &str, wire: &[u8], frame: usize) {
    let (readings, passed) = heard(wire, frame);
    assert_eq!((readings, passed.len()), (vec![Reading::Unreadable], 0), "{case}");
}

#[test]
fn no_codec_is_taken_for_another() {
    for sound in ["speech", "music"] {
        let loudest = samples_of(&recording(&format!("{sound}.slin")));
        for below in LEVELS {
            let samples = at_level(&loudest, below);
            for quiet in [0, QUIET] {
                let samples = [vec![0; quiet * 160], samples.clone()].concat();
                let case = |codec: &str| format!("{sound} at -{below} dB as {codec} after {quiet}");
                let pcm = bytes_of(&samples);
                is_read(&case("slin"), Codec::Slin, &pcm, 320, &pcm);
                for (codec, law) in
                    [(Codec::Ulaw, from_ulaw as fn(u8) -> i16), (Codec::Alaw, from_alaw)]
                {
                    let codes = companded(&samples, law);
                    is_read(&case(codec.name()), codec, &codes, 160, &expanded(&codes, law));
                }
                for (codec, frame) in [("g722", 160), ("gsm", 33)] {
                    let silence = recording(&format!("silence.{codec}")).repeat(3);
                    let before = &silence[..(quiet * frame).min(silence.len())];
                    let wire = [before, &recording(&format!("{sound}-{below}.{codec}"))].concat();
                    is_not_read(&case(codec), &wire, frame);
                }
            }
        }
    }
}

#[tokio::test]
async fn speech_in_g722_is_warned_about_and_not_sent_on() {
    is_warned_about(&recording("speech-0.g722"), 160).await;
}
