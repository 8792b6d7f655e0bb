const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Bytes for people: `41.9 GiB`, below a GiB `512.0 MiB`. One decimal, cut rather than rounded up.
pub fn readable(bytes: u64) -> String {
    let (unit, name) = if bytes >= GIB { (GIB, "GiB") } else { (MIB, "MiB") };
    let tenths = bytes % unit * 10 / unit;
    format!("{}.{tenths} {name}", bytes / unit)
}

/// Bytes as a Kubernetes quantity with one decimal, for columns: `1.3Gi`, below a GiB `512.0Mi`.
pub fn quantity(bytes: u64) -> String {
    readable(bytes).replace(" GiB", "Gi").replace(" MiB", "Mi")
}

#[cfg(test)]
mod tests {
    use super::{GIB, MIB, quantity, readable};

    #[test]
    fn reads_as_people_write_it() {
        let cases = [
            (0, "0.0 MiB"),
            (MIB + MIB / 2, "1.5 MiB"),
            (GIB - 1, "1023.9 MiB"),
            (74 * GIB + GIB / 4, "74.2 GiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(readable(bytes), text);
        }
        assert_eq!((quantity(GIB * 3 / 2).as_str(), quantity(MIB).as_str()), ("1.5Gi", "1.0Mi"));
    }
}
