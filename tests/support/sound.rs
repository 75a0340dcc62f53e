//! Sound for the calls of the tests, and G.711 written down a second time: the program's tables must not be
//! their own measure. <https://www.itu.int/rec/T-REC-G.711>

use std::f64::consts::TAU;

/// Samples a second on the telephone.
pub const RATE: usize = 8000;

pub fn tone(rate: usize, hertz: f64, amplitude: f64, samples: usize) -> Vec<i16> {
    let step = TAU * hertz / rate as f64;
    (0..samples).map(|n| (amplitude * (step * n as f64).sin()).round() as i16).collect()
}

/// Something like a voice: a tone whose pitch wanders and whose loudness swells and falls away.
pub fn voice(samples: usize) -> Vec<i16> {
    let mut phase = 0.0_f64;
    (0..samples)
        .map(|n| {
            let time = n as f64 / RATE as f64;
            phase += TAU * (180.0 + 60.0 * (TAU * 2.0 * time).sin()) / RATE as f64;
            let loudness = 6000.0 * (TAU * 1.5 * time).sin().abs() + 200.0;
            (loudness * (phase.sin() + 0.5 * (2.0 * phase).sin()) / 1.5).round() as i16
        })
        .collect()
}

pub fn bytes_of(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

pub fn samples_of(bytes: &[u8]) -> Vec<i16> {
    let pairs = bytes.chunks_exact(2);
    assert!(pairs.remainder().is_empty(), "{} bytes are no 16-bit samples", bytes.len());
    pairs.map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

pub fn from_ulaw(code: u8) -> i16 {
    let code = !code;
    let magnitude = ((i16::from(code & 0x0f) << 3) + 0x84) << ((code & 0x70) >> 4);
    if code & 0x80 == 0 { magnitude - 0x84 } else { 0x84 - magnitude }
}

pub fn from_alaw(code: u8) -> i16 {
    let code = code ^ 0x55;
    let step = i16::from(code & 0x0f) << 4;
    let magnitude = match (code & 0x70) >> 4 {
        0 => step + 0x08,
        segment => (step + 0x108) << (segment - 1),
    };
    if code & 0x80 == 0 { -magnitude } else { magnitude }
}

/// The samples in the law that `decode` reads: for each the code that comes nearest.
pub fn companded(samples: &[i16], decode: fn(u8) -> i16) -> Vec<u8> {
    let table: Vec<i32> = (0..=255).map(|code| i32::from(decode(code))).collect();
    let distance = |code: &usize, sample: i16| (table[*code] - i32::from(sample)).abs();
    let nearest = |sample: &i16| (0..256).min_by_key(|code| distance(code, *sample));
    let codes = samples.iter().map(nearest);
    codes.map(|code| code.expect("256 codes") as u8).collect()
}

/// What a decoder of this law makes of the codes, as bytes.
pub fn expanded(codes: &[u8], decode: fn(u8) -> i16) -> Vec<u8> {
    bytes_of(&codes.iter().map(|code| decode(*code)).collect::<Vec<_>>())
}

/// The pitch of a steady tone in hertz, counted over whole periods.
pub fn pitch(samples: &[i16], rate: usize) -> f64 {
    let rising = samples.windows(2).enumerate().filter(|(_, pair)| pair[0] < 0 && pair[1] >= 0);
    let rising: Vec<usize> = rising.map(|(at, _)| at).collect();
    let [first, .., last] = rising[..] else { return 0.0 };
    (rising.len() - 1) as f64 * rate as f64 / (last - first) as f64
}

/// The root of the mean square.
pub fn loudness(samples: &[i16]) -> f64 {
    let energy: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    (energy / samples.len().max(1) as f64).sqrt()
}
