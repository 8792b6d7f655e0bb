/// Bytes that lie free in blocks of at least `block_bytes`, by the text of `/proc/buddyinfo`: each line is a zone and
/// counts its free blocks of 1, 2, 4 … pages. `None` where the text is something else.
pub fn free_block_bytes(buddyinfo: &str, page_bytes: u64, block_bytes: u64) -> Option<u64> {
    let mut sum: Option<u64> = None;
    for line in buddyinfo.lines() {
        let (_, counts) = line.split_once("zone")?;
        let mut bytes_each = page_bytes;
        // The first word is the zone's name.
        for count in counts.split_ascii_whitespace().skip(1) {
            let count: u64 = count.parse().ok()?;
            let bytes = if bytes_each >= block_bytes { count.checked_mul(bytes_each)? } else { 0 };
            sum = Some(sum.unwrap_or(0).checked_add(bytes)?);
            bytes_each = bytes_each.checked_mul(2)?;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::free_block_bytes;

    const MIB: u64 = 1 << 20;

    #[test]
    fn counts_what_is_large_enough() {
        let text = "Node 0, zone      DMA      9      0      0      0      0      0      0      0      0      1      1\n\
                    Node 0, zone   Normal  18386  12457      3      2      6      5      7      1      3      2      4\n";
        // 4 KiB pages: the tenth column is 2 MiB, the eleventh 4 MiB.
        assert_eq!(free_block_bytes(text, 4096, 2 * MIB), Some((1 + 2) * 2 * MIB + (1 + 4) * 4 * MIB));
        // 64 KiB pages: the sixth column is 2 MiB.
        assert_eq!(
            free_block_bytes("Node 0, zone Normal 1 1 1 1 1 3 2\n", 65_536, 2 * MIB),
            Some(3 * 2 * MIB + 2 * 4 * MIB)
        );
        assert_eq!(free_block_bytes("Node 0, zone Normal 7 7\n", 4096, 2 * MIB), Some(0));
        for nonsense in ["", "hello", "Node 0, zone Normal 1 x\n"] {
            assert_eq!(free_block_bytes(nonsense, 4096, 2 * MIB), None, "{nonsense:?}");
        }
    }
}
