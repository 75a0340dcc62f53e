//! G.722: what the low band of it sounds like, so that it is not taken for G.711.
//!
//! Both are a byte a sample at 8 kHz, and nothing names them. Owns the low band's decoder
//! ([ITU-T G.722](https://www.itu.int/rec/T-REC-G.722), 64 kbit/s), in floating point: near enough to tell how
//! loud the sound is, and not made to be listened to. Pure.

/// The quantiser's steps for the codes of 6 bits from 0 to 31; those from 32 to 59 are 4 to 31 negated.
const FINE: [f64; 32] = [
    -136.0, -136.0, -136.0, -136.0, -24808.0, -21904.0, -19008.0, -16704.0, -14984.0, -13512.0,
    -12280.0, -11192.0, -10232.0, -9360.0, -8576.0, -7856.0, -7192.0, -6576.0, -6000.0, -5456.0,
    -4944.0, -4464.0, -4008.0, -3576.0, -3168.0, -2776.0, -2400.0, -2032.0, -1688.0, -1360.0,
    -1040.0, -728.0,
];
const FINE_END: [f64; 4] = [432.0, 136.0, -432.0, -136.0];

/// The steps that the predictor learns from, by the upper 4 bits, and how each changes the scale. The codes
/// from 8 to 14 are 1 to 7 negated; 15 is as 0.
const COARSE: [f64; 8] = [0.0, -20456.0, -12896.0, -8968.0, -6288.0, -4240.0, -2584.0, -1200.0];
const GROWTH: [f64; 8] = [-60.0, 3042.0, 1198.0, 538.0, 334.0, 172.0, 58.0, -30.0];

/// One in the fixed point of the standard.
const ONE: f64 = 32_768.0;

/// The decoder's state: two poles, six zeros, and the scale.
#[derive(Default)]
struct LowBand {
    /// The scale's logarithm: 2048 doubles it.
    scale: f64,
    poles: [f64; 2],
    zeros: [f64; 6],
    /// The last differences, reconstructed samples and partial ones, newest first.
    differences: [f64; 6],
    samples: [f64; 2],
    partials: [f64; 2],
}

/// The low band's samples, at 8 kHz and 16 bit.
pub fn low_band(codes: &[u8]) -> Vec<f64> {
    let mut band = LowBand::default();
    codes.iter().map(|code| band.decode(usize::from(code & 0x3f))).collect()
}

impl LowBand {
    fn decode(&mut self, code: usize) -> f64 {
        let fine = match code {
            0..32 => FINE[code],
            32..60 => -FINE[code - 28],
            _ => FINE_END[code - 60],
        };
        let (coarse, growth) = match code >> 2 {
            low @ 0..8 => (COARSE[low], GROWTH[low]),
            high @ 8..15 => (-COARSE[high - 7], GROWTH[high - 7]),
            _ => (COARSE[0], GROWTH[0]),
        };
        let step = (4.0 * (self.scale / 2048.0 + 3.0).exp2()).max(32.0) / ONE;
        let by_zeros = dot(&self.zeros, &self.differences);
        let predicted = dot(&self.poles, &self.samples) + by_zeros;
        self.scale = (self.scale * 127.0 / 128.0 + growth).clamp(0.0, 18_432.0);
        self.learn(step * coarse, by_zeros, predicted);
        2.0 * (predicted + step * fine).clamp(-16_384.0, 16_383.0)
    }

    /// Adapts the predictor to the difference by which it was wrong.
    fn learn(&mut self, difference: f64, by_zeros: f64, predicted: f64) {
        let partial = by_zeros + difference;
        let [agrees, agreed] = self.partials.map(|before| sign(partial) * sign(before));
        let first = (4.0 * self.poles[0]).clamp(-1.0, 1.0);
        let second =
            self.poles[1] * 32_512.0 / ONE + (128.0 * agreed) / ONE - agrees * first / 128.0;
        let second = second.clamp(-0.375, 0.375);
        let most = 15_360.0 / ONE - second;
        self.poles[0] = (self.poles[0] * 32_640.0 / ONE + 192.0 * agrees / ONE).clamp(-most, most);
        self.poles[1] = second;
        let gain = if difference == 0.0 { 0.0 } else { 128.0 / ONE };
        for (zero, before) in self.zeros.iter_mut().zip(self.differences) {
            *zero = *zero * 32_640.0 / ONE + gain * sign(difference) * sign(before);
        }
        self.differences.rotate_right(1);
        self.differences[0] = difference;
        self.samples = [predicted + difference, self.samples[0]];
        self.partials = [partial, self.partials[0]];
    }
}

/// The filters' coefficients count twice, as the standard has them in halves.
fn dot(coefficients: &[f64], values: &[f64]) -> f64 {
    coefficients.iter().zip(values).map(|(coefficient, value)| 2.0 * coefficient * value).sum()
}

fn sign(value: f64) -> f64 {
    if value < 0.0 { -1.0 } else { 1.0 }
}
