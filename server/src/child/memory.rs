use std::fs;

/// Bytes of memory this process has touched and still holds: the second number of `/proc/self/statm`, in pages.
/// 0 where that cannot be read, so that nothing is ever counted as held that is not.
pub(super) fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .unwrap_or_default();
    let page_bytes = u64::try_from(rustix::param::page_size()).unwrap_or_default();
    pages.saturating_mul(page_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_memory_is_counted() {
        let before = resident_bytes();
        let block = vec![1_u8; 64 << 20];
        let grown = resident_bytes() - before;
        assert!(grown >= 48 << 20, "{} bytes touched, {grown} more resident", block.len());
    }
}
