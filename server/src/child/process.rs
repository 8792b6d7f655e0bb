//! What this process takes of the machine, as the kernel counts it.

use std::fs;
use std::time::Duration;

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

/// Time that all threads of this process have computed. Zero where that cannot be read.
pub(super) fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = cpu_ticks(&stat).unwrap_or_default();
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Ticks in user and in kernel mode, the 14th and 15th fields of `/proc/PID/stat`. The second is the program's name in
/// parentheses, which may have both blanks and parentheses in it.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut ticks = after_name.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    Some(ticks.next()?.ok()?.saturating_add(ticks.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_user_and_kernel_are_counted() {
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194560 100 0 0 0 31 11 7 8 20 0 4 0 77 1000 10";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("42 (cut"), None);
        let before = cpu_time();
        let begin = std::time::Instant::now();
        while cpu_time() == before {
            assert!(begin.elapsed() < Duration::from_mins(1), "computing takes no time");
        }
    }

    #[test]
    fn touched_memory_is_counted() {
        let before = resident_bytes();
        let block = vec![1_u8; 64 << 20];
        let grown = resident_bytes() - before;
        assert!(grown >= 48 << 20, "{} bytes touched, {grown} more resident", block.len());
    }
}
