//! Settings of the kernel that take memory away without anybody seeing who has it.

use sparkherd_agent::readable;

use super::line::Line;
use super::readings::HostReadings;

const SETTINGS: &str = "kernel settings";

/// `vm.overcommit_memory`: every byte that is mapped counts, touched or not.
const STRICT: u64 = 2;

/// The kernel itself chooses well under a hundredth; somebody set more.
const MIN_FREE_PERCENT_MAX: u64 = 1;

pub(super) fn line(host: &HostReadings) -> Line {
    let memory = host.memory.as_ref().ok();
    let huge_page_bytes = memory.map_or(0, |memory| memory.huge_page_bytes);
    let shown = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
    let found = format!(
        "overcommit {}, {} set aside as huge pages, {} kept free by the kernel, pages of {} KiB",
        shown(host.overcommit.map(|value| value.to_string())),
        readable(huge_page_bytes),
        shown(host.min_free_bytes.map(readable)),
        host.page_bytes / 1024
    );
    let mut advice = Vec::new();
    if host.overcommit == Some(STRICT) {
        advice.push("vm.overcommit_memory=0: CUDA maps far more than it takes");
    }
    if huge_page_bytes > 0 {
        advice.push("vm.nr_hugepages=0: engines cannot use pages that are set aside");
    }
    let least_bytes = memory.map_or(u64::MAX, |memory| memory.total_bytes / 100 * MIN_FREE_PERCENT_MAX);
    if host.min_free_bytes.is_some_and(|bytes| bytes > least_bytes) {
        advice.push("a smaller vm.min_free_kbytes: it is taken off what is available");
    }
    if advice.is_empty() { Line::ok(SETTINGS, found) } else { Line::warn(SETTINGS, found, advice.join("; ")) }
}
