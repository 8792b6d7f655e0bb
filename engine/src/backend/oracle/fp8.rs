//! Numbers of 8 bits, e4m3: a sign, 4 bits of exponent of bias 7, 3 of mantissa. There are no infinities, and the largest code
//! is no number.

const NAN: u8 = 0x7f;
/// 448.
const LARGEST: u8 = 0x7e;

pub(super) fn widen(bits: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    let size = match (bits & NAN, exponent) {
        (NAN, _) => f32::NAN,
        (_, 0) => mantissa / 8.0 * 2.0_f32.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2.0_f32.powi(exponent - 7),
    };
    if bits & 0x80 == 0 { size } else { -size }
}

/// The nearest; of two, the even code. What is beyond the largest becomes it.
pub(super) fn narrow(value: f32) -> u8 {
    let sign = u8::from(value.is_sign_negative()) << 7;
    if value.is_nan() {
        return sign | NAN;
    }
    // f64 has the differences of f32 and these numbers exactly, where the nearest is not plain anyway.
    let size = f64::from(value.abs().min(widen(LARGEST)));
    let distance = |code: &u8| (f64::from(widen(*code)) - size).abs();
    let order = |a: &u8, b: &u8| distance(a).total_cmp(&distance(b)).then((a % 2).cmp(&(b % 2)));
    sign | (0..=LARGEST).min_by(order).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{narrow, widen};

    #[test]
    fn codes_are_the_formats_numbers() {
        let known = [(0x00, 0.0), (0x01, 0.001_953_125), (0x08, 0.015_625), (0x38, 1.0), (0x7e, 448.0)];
        for (code, value) in known {
            assert_eq!(widen(code).to_bits(), f32::to_bits(value));
            assert_eq!(widen(code | 0x80).to_bits(), f32::to_bits(-value));
        }
        assert!(widen(0x7f).is_nan() && widen(0xff).is_nan());
    }

    #[test]
    fn every_number_stays_what_it_is_and_others_go_to_the_nearest() {
        for code in (0..=0x7e).chain(0x80..=0xfe) {
            assert_eq!(narrow(widen(code)), code);
        }
        // Half-way between 1 and 1.125, and between 1.125 and 1.25.
        assert_eq!([narrow(1.0625), narrow(1.1875)], [0x38, 0x3a]);
        assert_eq!([narrow(1e9), narrow(f32::NEG_INFINITY), narrow(f32::NAN)], [0x7e, 0xfe, 0x7f]);
        assert_eq!([narrow(0.0009), narrow(0.001)], [0x00, 0x01]);
    }
}
