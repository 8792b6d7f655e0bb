//! Memory that a model takes, beside what its footprint planned.
//!
//! ```text
//! before a context ─ opened ─ ready ─ after some steps     as NVML, cudaMemGetInfo, MemAvailable and RssAnon have it
//!        └── moved by no more than the footprint? ──┘
//! ```

mod measure;
mod usage;

use std::fmt;

use serde::Serialize;
use sparkherd_footprint::{Footprint, Parts};

pub use measure::{MeasureError, Subject};
pub use usage::{Usage, Witness};

/// What was used at each moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moments {
    /// Before this process had a context. What only a context can tell is from right after it was made.
    pub before: Usage,
    /// With a context and kernels.
    pub opened: Usage,
    pub ready: Usage,
    pub after: Usage,
}

/// Who counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Counter {
    /// NVML, this process alone.
    Nvml,
    /// cudaMemGetInfo, all processes together; a context is not counted.
    CudaFree,
    /// procfs, all processes together.
    MemAvailable,
    /// procfs, this process alone.
    RssAnon,
}

/// How far memory has moved in one part of a load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryLine {
    pub model: String,
    pub part: &'static str,
    pub counted_by: Counter,
    /// Negative where others gave back more.
    pub moved_bytes: i64,
    pub planned_bytes: u64,
    /// Whether moving further is a fault.
    pub is_held: bool,
}

impl MemoryLine {
    /// Whether it has moved further than it may.
    pub fn is_beyond(&self) -> bool {
        self.is_held && u64::try_from(self.moved_bytes).is_ok_and(|moved| moved > self.planned_bytes)
    }
}

impl Counter {
    const fn name(self) -> &'static str {
        match self {
            Self::Nvml => "NVML's bytes of this process",
            Self::CudaFree => "cudaMemGetInfo",
            Self::MemAvailable => "MemAvailable",
            Self::RssAnon => "RssAnon of this process",
        }
    }

    /// How far this counter moved, where it tells at both moments.
    fn moved(self, from: &Usage, to: &Usage) -> Option<i64> {
        match self {
            // A process that was listed before it had a context is another's, of the same number in another namespace.
            Self::Nvml if from.device_bytes_of_process.is_some() => None,
            Self::Nvml => difference(0, to.device_bytes_of_process?),
            Self::CudaFree => difference(to.device_free_bytes?, from.device_free_bytes?),
            Self::MemAvailable => difference(to.host_available_bytes?, from.host_available_bytes?),
            Self::RssAnon => difference(from.host_bytes_of_process?, to.host_bytes_of_process?),
        }
    }
}

fn difference(from: u64, to: u64) -> Option<i64> {
    i64::try_from(to).ok()?.checked_sub(i64::try_from(from).ok()?)
}

/// Each part beside its plan, and what is held to it: the GPU's memory; where it is the host's too (`is_unified`), both together,
/// else the host's by itself. Parts are not held, as the driver's share of each is a guess; together they are. What cudaMemGetInfo
/// has free on such a chip is without the page cache, which grows as files are read: `MemAvailable` is held in its place.
pub fn lines(model: &str, footprint: &Footprint, moments: &Moments, is_unified: bool) -> Vec<MemoryLine> {
    let Footprint { device_bytes, host_bytes, parts } = *footprint;
    let Parts { weights_bytes, kv_bytes, state_bytes, workspace_bytes, runtime_bytes: _ } = parts;
    let arenas_bytes = weights_bytes + kv_bytes + state_bytes + workspace_bytes;
    let runtime_bytes = device_bytes.saturating_sub(arenas_bytes);
    let Moments { before, opened, ready, after } = moments;
    let mut lines = Vec::new();
    let mut push = |part, counted_by: Counter, moved: Option<i64>, planned_bytes, is_held| {
        let line = |moved_bytes| MemoryLine {
            model: model.to_owned(),
            part,
            counted_by,
            moved_bytes,
            planned_bytes,
            is_held,
        };
        lines.extend(moved.map(line));
    };
    let device = match Counter::Nvml.moved(before, after) {
        Some(_) => Counter::Nvml,
        None => Counter::CudaFree,
    };
    let by = |from: Option<i64>, to: Option<i64>| to?.checked_sub(from?);
    let [of_opened, of_ready, of_after] = [opened, ready, after].map(|moment| device.moved(before, moment));
    push("GPU: context and kernels", device, of_opened, runtime_bytes, false);
    push("GPU: arenas, recorded steps", device, by(of_opened, of_ready), arenas_bytes, false);
    push("GPU: first steps", device, by(of_ready, of_after), 0, false);
    let most = |counter: Counter| counter.moved(before, ready).max(counter.moved(before, after));
    let of_both = most(Counter::MemAvailable).filter(|_| is_unified);
    let is_held = device == Counter::Nvml || of_both.is_none();
    push("GPU: in all", device, of_ready.max(of_after), device_bytes, is_held);
    let total_bytes = device_bytes.saturating_add(host_bytes);
    push("GPU and host: in all", Counter::MemAvailable, of_both, total_bytes, true);
    // On such a chip nobody knows whether a GPU's pages show here too.
    push("host: in all", Counter::RssAnon, most(Counter::RssAnon), host_bytes, !is_unified);
    lines
}

impl fmt::Display for MemoryLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, part, counted_by, moved_bytes, planned_bytes, is_held: _ } = self;
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        let (moved, planned) = (mib(*moved_bytes as f64), mib(*planned_bytes as f64));
        let by = counted_by.name();
        let end = if self.is_beyond() { ": BEYOND" } else { "" };
        write!(
            formatter,
            "memory, {model:<18} {part:<28} {moved:>9.1} MiB of {planned:>9.1} planned, by {by}{end}"
        )
    }
}

#[cfg(test)]
mod tests {
    use sparkherd_footprint::{Footprint, Parts};

    use super::{Counter, MemoryLine, Moments, Usage, lines};

    const FOOTPRINT: Footprint = Footprint {
        device_bytes: 1500,
        host_bytes: 300,
        parts: Parts {
            weights_bytes: 800,
            kv_bytes: 150,
            state_bytes: 0,
            workspace_bytes: 50,
            runtime_bytes: 800,
        },
    };

    /// Bytes of this process on the GPU, or free ones there; available, and held, on the host.
    fn usage(of_process: Option<u64>, free: Option<u64>, available: u64, held: u64) -> Usage {
        Usage {
            device_bytes_of_process: of_process,
            device_free_bytes: free,
            host_available_bytes: Some(available),
            host_bytes_of_process: Some(held),
        }
    }

    fn discrete() -> Moments {
        Moments {
            before: usage(None, Some(9000), 5000, 10),
            opened: usage(Some(400), Some(8900), 4990, 20),
            ready: usage(Some(1450), Some(7800), 4900, 110),
            after: usage(Some(1500), Some(7500), 4800, 310),
        }
    }

    fn told(lines: &[MemoryLine]) -> Vec<(&str, i64, u64)> {
        lines.iter().map(|line| (line.part, line.moved_bytes, line.planned_bytes)).collect()
    }

    fn beyond(moments: &Moments, is_unified: bool) -> Vec<&'static str> {
        let lines = lines("a", &FOOTPRINT, moments, is_unified);
        lines.iter().filter(|line| line.is_beyond()).map(|line| line.part).collect()
    }

    #[test]
    fn each_part_stands_beside_its_plan() {
        let lines = lines("a", &FOOTPRINT, &discrete(), false);
        let wanted = [
            ("GPU: context and kernels", 400, 500),
            ("GPU: arenas, recorded steps", 1050, 1000),
            ("GPU: first steps", 50, 0),
            ("GPU: in all", 1500, 1500),
            ("host: in all", 300, 300),
        ];
        assert_eq!(told(&lines), wanted);
        assert!(lines.iter().all(|line| !line.is_beyond()), "what a part takes is another's to give");
    }

    #[test]
    fn a_byte_more_than_the_footprint_is_beyond() {
        let mut moments = discrete();
        moments.after.device_bytes_of_process = Some(1501);
        assert_eq!(beyond(&moments, false), ["GPU: in all"]);
        let mut moments = discrete();
        moments.ready.host_bytes_of_process = Some(311);
        assert_eq!(beyond(&moments, false), ["host: in all"]);
        assert_eq!(beyond(&moments, true), [""; 0], "a GPU's pages may show there");
        moments.ready.host_available_bytes = Some(5000 - 1801);
        assert_eq!(beyond(&moments, true), ["GPU and host: in all"], "given back later, and still taken");
    }

    #[test]
    fn without_nvmls_word_of_this_process_free_memory_counts() {
        let mut moments = discrete();
        // Another's process, of the same number.
        moments.before.device_bytes_of_process = Some(7);
        let lines = lines("a", &FOOTPRINT, &moments, false);
        assert!(lines[..4].iter().all(|line| line.counted_by == Counter::CudaFree));
        assert_eq!(told(&lines)[3], ("GPU: in all", 1500, 1500));
        moments.after.device_free_bytes = Some(7499);
        assert_eq!(beyond(&moments, false), ["GPU: in all"]);
        assert_eq!(beyond(&moments, true), [""; 0], "a file that was read may take it");
        moments.after.host_available_bytes = Some(5000 - 1801);
        assert_eq!(beyond(&moments, true), ["GPU and host: in all"]);
        moments.before.host_available_bytes = None;
        assert_eq!(beyond(&moments, true), ["GPU: in all"], "nobody else tells");
    }

    #[test]
    fn memory_that_others_give_back_is_no_fault() {
        let mut moments = discrete();
        moments.ready.host_available_bytes = Some(6000);
        moments.after.host_available_bytes = Some(6000);
        assert_eq!(beyond(&moments, true), [""; 0]);
    }
}
