use thiserror::Error;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum QuantityError {
    #[error(
        "{text:?} is not a quantity: a number with an optional suffix k, M, G, T, P, Ki, Mi, Gi, Ti or Pi"
    )]
    Malformed { text: String },
    #[error("{text:?} is more bytes than 64 bits hold")]
    TooLarge { text: String },
}

/// Bytes of a Kubernetes quantity such as `12Gi` or `1.5G`, rounded down to whole bytes.
///
/// Source of the form: `k8s.io/apimachinery/pkg/api/resource`; exponents and sub-unit suffixes make no sense for bytes.
pub fn parse_quantity(text: &str) -> Result<u64, QuantityError> {
    let malformed = || QuantityError::Malformed { text: text.to_owned() };
    let digits_end =
        text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits_end);
    let factor: u128 = match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        _ => return Err(malformed()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // 19 digits fit in u128 next to any factor above; more precision than that is no byte count.
    if (whole.is_empty() && fraction.is_empty())
        || whole.len() > 19
        || fraction.len() > 9
        || fraction.contains('.')
    {
        return Err(malformed());
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let value: u128 = format!("{whole}{fraction}").parse().map_err(|_| malformed())?;
    u64::try_from(value * factor / scale).map_err(|_| QuantityError::TooLarge { text: text.to_owned() })
}

/// Bytes as a quantity a person reads at a glance: `60.8Gi`, or whole `Mi` below 1 GiB; rounded up, for it says what is taken.
pub fn quantity_text(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;
    if bytes < GIB {
        return format!("{}Mi", bytes.div_ceil(MIB));
    }
    let tenths = u128::from(bytes).saturating_mul(10).div_ceil(u128::from(GIB));
    format!("{}.{}Gi", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::{QuantityError, parse_quantity, quantity_text};

    #[test]
    fn a_person_reads_one_decimal_rounded_up() {
        let cases =
            [(0, "0Mi"), (1, "1Mi"), ((1 << 30) - 1, "1024Mi"), (1 << 30, "1.0Gi"), ((1 << 30) + 1, "1.1Gi")];
        for (bytes, text) in cases {
            assert_eq!(quantity_text(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn reads_decimal_and_binary_suffixes() {
        let cases = [
            ("0", 0),
            ("128974848", 128_974_848),
            ("1k", 1000),
            ("1.5Gi", 1_610_612_736),
            ("12Gi", 12 << 30),
            (".5M", 500_000),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_quantity(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_byte_count() {
        for text in ["", "Gi", "-1", "1e3", "1m", "1.2.3", "1 Gi", "+1", "99999999999999999999"] {
            assert!(matches!(parse_quantity(text), Err(QuantityError::Malformed { .. })), "{text}");
        }
        assert!(matches!(parse_quantity("9999999999Pi"), Err(QuantityError::TooLarge { .. })));
    }
}
