//! What the machine has for weights, by the number that is true.

use sparkherd_agent::{default_reserve_bytes, readable};

use super::gpu;
use super::line::Line;
use super::readings::{HostMemory, Readings};

const MEMORY: &str = "memory";
const BLOCKS: &str = "2 MiB blocks";
const SWAP: &str = "swap";

/// A headless system and its daemons take less than a tenth of 121 GiB; a desktop takes 10 to 15 GiB of it.
const OTHERS_PERCENT_MAX: u64 = 10;

/// With less in free blocks of 2 MiB loads have stopped on a GB10 with memory "available".
const FREE_BLOCKS_BYTES_MIN: u64 = 8 << 30;

/// That much is swapped out by any system that runs for long.
const SWAPPED_BYTES_MAX: u64 = 1 << 30;

pub(super) fn lines(readings: &Readings) -> Vec<Line> {
    let memory = match &readings.host.memory {
        Ok(memory) => memory,
        Err(error) => {
            return vec![Line::fail(MEMORY, error.as_str(), "give the host's procfs: --proc-root")];
        }
    };
    let own = readings.first_gpu().filter(|_| !readings.is_unified()).and_then(gpu::memory);
    let host = [truth(readings, memory), blocks(readings), swap(readings, memory)];
    host.into_iter().chain(own).collect()
}

fn truth(readings: &Readings, memory: &HostMemory) -> Line {
    let HostMemory { total_bytes, available_bytes, free_bytes, .. } = *memory;
    let found = format!(
        "{} in all, {} available, {} free{}",
        readable(total_bytes),
        readable(available_bytes),
        readable(free_bytes),
        cuda(readings)
    );
    let others: Vec<String> = readings
        .host
        .others
        .iter()
        .map(|other| format!("{} {}", other.name, readable(other.bytes)))
        .collect();
    let largest = if others.is_empty() { "nothing large".to_owned() } else { others.join(", ") };
    let reserve_bytes = default_reserve_bytes(readings.host.machine, total_bytes);
    if available_bytes <= reserve_bytes {
        let reserve = readable(reserve_bytes);
        let advice = format!("nothing starts here: {reserve} are kept for the host; largest: {largest}");
        return Line::fail(MEMORY, found, advice);
    }
    if total_bytes.saturating_sub(available_bytes) > total_bytes / 100 * OTHERS_PERCENT_MAX {
        let advice =
            format!("others hold much; largest: {largest}. A Spark without a desktop has 10 GiB more");
        return Line::warn(MEMORY, found, advice);
    }
    Line::ok(MEMORY, found)
}

/// What CUDA says about the same memory, where it was asked.
fn cuda(readings: &Readings) -> String {
    let Some(Ok(memory)) = readings.bench.as_ref().map(|bench| &bench.memory) else { return String::new() };
    let (free, total) = (readable(memory.free_bytes), readable(memory.total_bytes));
    let truth = ", which counts the page cache as used: available is what counts";
    format!("; CUDA says {free} of {total} are free{}", if readings.is_unified() { truth } else { "" })
}

/// Matters where the driver takes its memory from the host's.
fn blocks(readings: &Readings) -> Line {
    let Some(bytes) = readings.host.free_block_bytes else {
        return Line::unknown(
            BLOCKS,
            "/proc/buddyinfo does not tell",
            "none: it is read again at each start",
        );
    };
    let found = format!("{} lie free in blocks of 2 MiB and more", readable(bytes));
    if readings.is_unified() && bytes < FREE_BLOCKS_BYTES_MIN {
        let advice = "before a large load: sync; echo 3 > /proc/sys/vm/drop_caches; echo 1 > /proc/sys/vm/compact_memory; if \
                      that does not help, restart the machine";
        return Line::warn(BLOCKS, found, advice);
    }
    Line::ok(BLOCKS, found)
}

fn swap(readings: &Readings, memory: &HostMemory) -> Line {
    let HostMemory { swap_total_bytes, swap_free_bytes, .. } = *memory;
    if swap_total_bytes == 0 {
        return Line::ok(SWAP, "none");
    }
    let used_bytes = swap_total_bytes.saturating_sub(swap_free_bytes);
    let found = format!("{} of {} are used", readable(used_bytes), readable(swap_total_bytes));
    let advice = "swapoff -a, and take it out of /etc/fstab: a machine that swaps weights looks hung";
    if readings.is_unified() || used_bytes > SWAPPED_BYTES_MAX {
        return Line::warn(SWAP, found, advice);
    }
    Line::ok(SWAP, found)
}
