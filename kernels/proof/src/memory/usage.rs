use std::fs;
use std::path::Path;

use sparkherd_gpu::GpuSource;

/// Memory as each who counts it has it; `None` where nobody tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of all GPUs, by NVML. A process without a context is not listed.
    pub device_bytes_of_process: Option<u64>,
    /// As a context tells.
    pub device_free_bytes: Option<u64>,
    pub host_available_bytes: Option<u64>,
    pub host_bytes_of_process: Option<u64>,
}

impl Usage {
    /// As if what the host has lost between two looks had been lost before: a file that may lie in memory.
    #[must_use]
    pub fn lost_before(self, from: &Self, to: &Self) -> Self {
        let lost_bytes = match (from.host_available_bytes, to.host_available_bytes) {
            (Some(from), Some(to)) => from.saturating_sub(to),
            _ => 0,
        };
        let left = |bytes: u64| bytes.saturating_sub(lost_bytes);
        Self { host_available_bytes: self.host_available_bytes.map(left), ..self }
    }
}

/// Where to look.
#[derive(Clone, Copy, Debug)]
pub struct Witness<'a> {
    pub nvml: &'a dyn GpuSource,
    pub pid: u32,
    pub proc_root: &'a Path,
}

impl Witness<'_> {
    /// Now. `device_free_bytes` is from whoever has a context.
    pub fn look(&self, device_free_bytes: Option<u64>) -> Usage {
        Usage {
            device_bytes_of_process: self.device_bytes(),
            device_free_bytes,
            host_available_bytes: self.kilobytes("meminfo", "MemAvailable:"),
            host_bytes_of_process: self.kilobytes(&format!("{}/status", self.pid), "RssAnon:"),
        }
    }

    fn device_bytes(&self) -> Option<u64> {
        let report = self.nvml.read().ok()?;
        let processes = report.gpus.into_iter().filter_map(|gpu| gpu.processes).flatten();
        processes
            .filter(|process| process.pid == self.pid)
            .map(|process| process.bytes)
            .sum::<Option<u64>>()
            .filter(|bytes| *bytes > 0)
    }

    /// A line of procfs such as `MemAvailable:   600 kB`, in bytes.
    fn kilobytes(&self, file: &str, name: &str) -> Option<u64> {
        let text = fs::read_to_string(self.proc_root.join(file)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sparkherd_gpu::{Gpu, GpuError, GpuProcess, GpuReport, GpuSource, NoGpu};

    use super::{Usage, Witness};

    #[derive(Debug)]
    struct Listed(Vec<GpuProcess>);

    impl GpuSource for Listed {
        fn read(&self) -> Result<GpuReport, GpuError> {
            let gpu = Gpu { processes: Some(self.0.clone()), ..Gpu::default() };
            Ok(GpuReport { gpus: vec![gpu.clone(), gpu], ..GpuReport::default() })
        }
    }

    #[test]
    fn procfs_tells_in_kilobytes() {
        let root = tempfile::tempdir().unwrap();
        let witness = Witness { nvml: &NoGpu, pid: 7, proc_root: root.path() };
        assert_eq!(witness.look(None), Usage::default());
        fs::create_dir(root.path().join("7")).unwrap();
        fs::write(root.path().join("meminfo"), "MemFree:  1 kB\nMemAvailable:   600 kB\n").unwrap();
        fs::write(root.path().join("7/status"), "RssAnon:\t    12 kB\n").unwrap();
        let wanted = Usage {
            device_bytes_of_process: None,
            device_free_bytes: Some(5),
            host_available_bytes: Some(600 << 10),
            host_bytes_of_process: Some(12 << 10),
        };
        assert_eq!(witness.look(Some(5)), wanted);
    }

    #[test]
    fn a_file_in_memory_is_not_the_loads() {
        let of = |available| Usage { host_available_bytes: Some(available), ..Usage::default() };
        assert_eq!(of(90).lost_before(&of(80), &of(50)), of(60));
        assert_eq!(of(90).lost_before(&of(50), &of(80)), of(90), "others gave back");
        assert_eq!(Usage::default().lost_before(&of(80), &of(50)), Usage::default());
    }

    #[test]
    fn nvml_tells_of_this_process_where_it_tells_bytes() {
        let process = |pid, bytes| GpuProcess { pid, bytes };
        let seen = |processes| {
            let nvml = Listed(processes);
            let witness = Witness { nvml: &nvml, pid: 7, proc_root: "".as_ref() };
            witness.look(None).device_bytes_of_process
        };
        assert_eq!(seen(vec![process(7, Some(30)), process(8, Some(9))]), Some(60), "on each GPU");
        assert_eq!(seen(vec![process(7, None)]), None);
        assert_eq!(seen(vec![process(8, Some(9))]), None, "not listed");
    }
}
