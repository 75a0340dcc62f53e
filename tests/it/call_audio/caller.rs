//! From Asterisk to the STS server: whatever the phone speaks arrives as PCM of 8 kHz.

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::support::asterisk::AUDIO;
use crate::support::sound::{
    RATE, bytes_of, companded, expanded, from_alaw, from_ulaw, loudness, pitch, samples_of, tone,
    voice,
};
use crate::support::stage::{Call, Stage};

type Law = fn(u8) -> i16;

/// The lines that say which codec the call has.
fn detected(stage: &Stage, uuid: &str) -> Vec<String> {
    let lines = stage.service.log_so_far().into_iter();
    let detected = lines.filter(|line| line["message"] == "audio codec detected");
    detected.filter(|line| line["uuid"] == uuid).map(|line| line.to_string()).collect()
}

/// Plays the payloads and expects the STS server to get exactly these bytes; the call goes on.
async fn arrives(stage: &Stage, payloads: &[u8], size: usize, expected: &[u8]) -> Call {
    let mut call = stage.call().await;
    call.asterisk.play(AUDIO, payloads.chunks(size)).await;
    call.asterisk.digit('#').await;
    let pcm = call.session.audio_of(expected.len()).await;
    call.session.message("dtmf_digit", 1).await;
    let same = pcm.iter().zip(expected).take_while(|(left, right)| left == right).count();
    assert_eq!((same, pcm.len()), (expected.len(), expected.len()), "bytes alike, and in all");
    call
}

/// What a phone with this law sends, and what it means.
fn spoken(samples: &[i16], law: Law) -> (Vec<u8>, Vec<u8>) {
    let codes = companded(samples, law);
    let pcm = expanded(&codes, law);
    (codes, pcm)
}

#[tokio::test]
async fn slin_is_found_out_logged_once_and_passed_on_as_it_is() {
    let stage = Stage::set(&[]).await;
    let pcm = bytes_of(&voice(50 * 160));
    let call = arrives(&stage, &pcm, 320, &pcm).await;
    let lines = detected(&stage, &call.uuid);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("slin"), "{lines:?}");
}

async fn a_law_is_found_out(law: Law, name: &str, size: usize) {
    let stage = Stage::set(&[]).await;
    let (codes, pcm) = spoken(&voice(40 * size), law);
    let call = arrives(&stage, &codes, size, &pcm).await;
    let lines = detected(&stage, &call.uuid);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(name), "{lines:?}");
}

#[tokio::test]
async fn mu_law_of_20_ms_is_found_out_logged_once_and_decoded() {
    a_law_is_found_out(from_ulaw, "ulaw", 160).await;
}

#[tokio::test]
async fn mu_law_of_30_ms_is_found_out_logged_once_and_decoded() {
    a_law_is_found_out(from_ulaw, "ulaw", 240).await;
}

#[tokio::test]
async fn a_law_of_20_ms_is_found_out_logged_once_and_decoded() {
    a_law_is_found_out(from_alaw, "alaw", 160).await;
}

#[tokio::test]
async fn a_law_of_30_ms_is_found_out_logged_once_and_decoded() {
    a_law_is_found_out(from_alaw, "alaw", 240).await;
}

/// Most calls begin with a quiet line, which is not always wholly silent.
#[tokio::test]
async fn a_quiet_beginning_does_not_mislead() {
    let stage = Stage::set(&[]).await;
    let begun = async |quiet: &[i16], law: Law| {
        let (codes, pcm) = spoken(&[quiet, &voice(25 * 160)].concat(), law);
        arrives(&stage, &codes, 160, &pcm).await;
    };
    let seed = 7;
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut hiss = |loud: i16| (0..25 * 160).map(|_| random.random_range(-loud..=loud)).collect();
    let beginnings: [Vec<i16>; 5] =
        [hiss(0), hiss(3), hiss(40), hiss(200), tone(RATE, 50.0, 9.0, 25 * 160)];
    let both = beginnings.iter().flat_map(|quiet| [(quiet, from_ulaw as Law), (quiet, from_alaw)]);
    join_all(both.map(|(quiet, law)| begun(quiet, law))).await;
    let slin = async |quiet: &Vec<i16>| {
        let pcm = bytes_of(&[&quiet[..], &voice(25 * 160)].concat());
        arrives(&stage, &pcm, 320, &pcm).await;
    };
    join_all(beginnings.iter().map(slin)).await;
}

#[tokio::test]
async fn loud_voices_are_found_out_as_well() {
    let stage = Stage::set(&[]).await;
    let samples = tone(RATE, 300.0, 30_000.0, 25 * 160);
    let shouted = async |law: Law| {
        let (codes, pcm) = spoken(&samples, law);
        arrives(&stage, &codes, 160, &pcm).await;
    };
    join_all([from_ulaw as Law, from_alaw].map(shouted)).await;
    let pcm = bytes_of(&samples);
    arrives(&stage, &pcm, 320, &pcm).await;
}

#[tokio::test]
async fn audio_codec_fixes_what_frames_of_kind_10_are() {
    let codes = companded(&voice(25 * 320), from_ulaw);
    let cases: [(&str, Vec<u8>); 3] = [
        ("ulaw", expanded(&codes, from_ulaw)),
        ("alaw", expanded(&codes, from_alaw)),
        ("slin", codes.clone()),
    ];
    for (codec, pcm) in cases {
        let stage = Stage::set(&[("AUDIO_CODEC", codec)]).await;
        arrives(&stage, &codes, 320, &pcm).await;
        arrives(&stage, &codes[..3200], 160, &pcm[..pcm.len() * 3200 / codes.len()]).await;
    }
}

/// Kind, samples a second, bytes in 20 ms.
type Kind = (u8, usize, usize);

const RATES: [Kind; 8] = [
    (0x11, 12_000, 480),
    (0x12, 16_000, 640),
    (0x13, 24_000, 960),
    (0x14, 32_000, 1280),
    (0x15, 44_100, 1764),
    (0x16, 48_000, 1920),
    (0x17, 96_000, 3840),
    (0x18, 192_000, 7680),
];

/// Two seconds of a tone in each of these kinds, all at once, and the samples that the STS server got.
async fn resampled(kinds: &[Kind], hertz: f64) -> Vec<(Kind, Vec<i16>)> {
    let stage = Stage::set(&[]).await;
    let play = async |(kind, rate, size): Kind| {
        let mut call = stage.call().await;
        let sound = bytes_of(&tone(rate, hertz, 8000.0, 100 * size / 2));
        call.asterisk.play(kind, sound.chunks(size)).await;
        call.asterisk.digit('#').await;
        call.session.message("dtmf_digit", 1).await;
        let samples = samples_of(&call.session.audio_so_far());
        assert!(samples.len() > RATE, "{kind:#x}: {} samples", samples.len());
        ((kind, rate, size), samples)
    };
    join_all(kinds.iter().map(|kind| play(*kind))).await
}

/// How loud it is, compared with the tone that was sent.
fn level(samples: &[i16]) -> f64 {
    loudness(samples) / (8000.0 / 2.0_f64.sqrt())
}

#[tokio::test]
async fn a_wideband_call_logs_its_rate_once() {
    let stage = Stage::set(&[]).await;
    for (kind, rate, size) in RATES {
        let mut call = stage.call().await;
        call.asterisk.play(kind, [&vec![0; size][..]; 3]).await;
        call.asterisk.digit('#').await;
        call.session.message("dtmf_digit", 1).await;
        let lines = detected(&stage, &call.uuid);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(&format!("\"rate\":{rate}")), "{lines:?}");
    }
}

async fn a_tone_stays_itself(kinds: &[Kind]) {
    for (kind, samples) in resampled(kinds, 440.0).await {
        let expected = 2 * RATE;
        let off = samples.len().abs_diff(expected);
        assert!(off <= expected / 50, "{kind:?}: {} samples", samples.len());
        let steady = &samples[expected / 4..expected * 3 / 4];
        let heard = pitch(steady, RATE);
        assert!((heard - 440.0).abs() < 5.0, "{kind:?}: {heard} Hz");
        assert!((0.8..1.25).contains(&level(steady)), "{kind:?}: {}", level(steady));
    }
}

#[tokio::test]
async fn a_tone_of_12_to_44_khz_stays_itself_at_8_khz() {
    a_tone_stays_itself(&RATES[..5]).await;
}

#[tokio::test]
async fn a_tone_of_48_to_192_khz_stays_itself_at_8_khz() {
    a_tone_stays_itself(&RATES[5..]).await;
}

#[tokio::test]
async fn what_8_khz_cannot_carry_is_taken_out_and_not_folded_back() {
    for (kind, samples) in resampled(&[RATES[1], RATES[5]], 6000.0).await {
        let steady = &samples[samples.len() / 4..samples.len() * 3 / 4];
        assert!(level(steady) < 0.1, "{kind:?}: 6 kHz comes back with {}", level(steady));
    }
}

/// Plays what nobody can read and expects a warning, and nothing towards the STS server.
pub async fn is_warned_about(payloads: &[u8], size: usize) {
    let stage = Stage::set(&[]).await;
    let mut call = stage.call().await;
    call.asterisk.play(AUDIO, payloads.chunks(size)).await;
    call.asterisk.digit('#').await;
    call.session.message("dtmf_digit", 1).await;
    let names = |line: &Value| line["uuid"] == call.uuid && line.to_string().contains("c(slin)");
    let line = stage.service.log_line(names).await;
    assert_eq!(line["level"].as_str().map(str::to_lowercase), Some("warn".to_owned()), "{line}");
    assert_eq!(call.session.audio_so_far().len(), 0, "it is not sent on");
    let warnings = stage.service.log_so_far();
    assert_eq!(warnings.iter().filter(|line| names(line)).count(), 1, "one warning a call");
}

fn noise(size: usize) -> Vec<u8> {
    let seed = 0x5eed;
    println!("seed {seed}");
    let mut bytes = vec![0; size];
    StdRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes
}

#[tokio::test]
async fn gsm_is_warned_about_and_not_sent_on() {
    let mut frames = noise(33 * 50);
    // Each frame of GSM 06.10 begins with the same four bits.
    frames.iter_mut().step_by(33).for_each(|byte| *byte = 0xd0 | *byte & 0x0f);
    is_warned_about(&frames, 33).await;
}

#[tokio::test]
async fn what_is_loud_noise_in_every_codec_is_warned_about_and_not_sent_on() {
    is_warned_about(&noise(160 * 50), 160).await;
}

#[tokio::test]
async fn a_line_of_silence_alone_is_no_reason_for_a_warning() {
    let stage = Stage::set(&[]).await;
    for payload in [&[0; 320][..], &[0xff; 160], &[0xd5; 160]] {
        let mut call = stage.call().await;
        call.asterisk.play(AUDIO, std::iter::repeat_n(payload, 40)).await;
        let pcm = call.session.audio_of(40 * 320).await;
        assert!(loudness(&samples_of(&pcm)) < 10.0, "silence stays silence: {:#x}", payload[0]);
    }
    let log = stage.service.log_so_far();
    assert!(!log.iter().any(|line| line.to_string().contains("c(slin)")), "{log:#?}");
}
