const GIB: u64 = 1 << 30;

/// Kept on a GB10: the desktop, the driver's own allocations and page cache enough to keep the host alive. An
/// over-committed GB10 does not kill a process, it stops until its plug is pulled.
const GB10_RESERVE_BYTES: u64 = 10 * GIB;

/// Kept on any other machine, at least: a small Linux host with a container runtime.
const RESERVE_BYTES_MIN: u64 = GIB;

/// What decides how much is kept for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// CPU and GPU share the pool and exhaustion wedges the host.
    Gb10,
    Other,
}

/// Bytes kept for the host where `SparkNode.spec.reserve` says nothing: 10 GiB on a GB10, elsewhere the larger of 1 GiB
/// and 10 %.
pub const fn default_reserve_bytes(machine: Machine, total_bytes: u64) -> u64 {
    match machine {
        Machine::Gb10 => GB10_RESERVE_BYTES,
        Machine::Other => {
            let tenth = total_bytes / 10;
            if tenth > RESERVE_BYTES_MIN { tenth } else { RESERVE_BYTES_MIN }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{GIB, Machine, default_reserve_bytes};

    #[test]
    fn follows_machine_and_size() {
        assert_eq!(default_reserve_bytes(Machine::Gb10, 121 * GIB), 10 * GIB);
        assert_eq!(default_reserve_bytes(Machine::Other, 4 * GIB), GIB);
        assert_eq!(default_reserve_bytes(Machine::Other, 100 * GIB), 10 * GIB);
    }
}
