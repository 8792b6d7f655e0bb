use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{Machine, Meminfo};

/// Name the kernel shows for our own processes; they are never "others".
const OWN_PROCESS_NAME: &str = "sparkherd";

#[derive(Debug, Error)]
pub enum ProbeError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path} has no line {field} in kB")]
    MissingField { path: String, field: &'static str },
    #[error("the GPU's driver has not answered for {seconds} s: its memory is unknown")]
    SilentDriver { seconds: u64 },
}

/// What was read at one moment, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemorySample {
    pub total_bytes: u64,
    pub available_bytes: u64,
    /// By process: what it has touched. Read before and after `available`; the smaller counts, so that memory which moves
    /// from one to the other in between is never counted twice.
    pub held_bytes: BTreeMap<u32, u64>,
}

/// A process that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessMemory {
    pub name: String,
    /// Resident, and through a GPU's driver.
    pub bytes: u64,
}

/// Reads memory through procfs. Its roots are arguments, so a fake machine is a directory.
#[derive(Clone, Debug)]
pub struct MemoryProbe {
    machine_root: PathBuf,
    children_root: PathBuf,
    page_bytes: u64,
    total_override_bytes: Option<u64>,
}

impl MemoryProbe {
    /// `machine_root`: the host's procfs. `children_root`: the procfs in which our children have the process ids we know
    /// them by (in a Pod another one than the host's). `total_override_bytes`: see [`Self::sample`].
    pub fn new(
        machine_root: &Path,
        children_root: &Path,
        page_bytes: u64,
        total_override_bytes: Option<u64>,
    ) -> Self {
        Self {
            machine_root: machine_root.to_owned(),
            children_root: children_root.to_owned(),
            page_bytes,
            total_override_bytes,
        }
    }

    /// Reads the host's pool and what these processes hold of it; a process that is gone holds nothing. Beside each: bytes
    /// it holds that procfs does not show, which is GPU memory where that is the host's.
    ///
    /// With a total given (several agents on one machine, tests), `available` is that total less what the processes hold:
    /// everybody else counts as nothing.
    pub fn sample(&self, processes: &[(u32, u64)]) -> Result<MemorySample, ProbeError> {
        if let Some(total_bytes) = self.total_override_bytes {
            let held_bytes = self.held(processes);
            let available_bytes = total_bytes.saturating_sub(held_bytes.values().sum());
            return Ok(MemorySample { total_bytes, available_bytes, held_bytes });
        }
        let before = self.held(processes);
        let meminfo = Meminfo::read(&self.machine_root)?;
        let (total_bytes, available_bytes) = (meminfo.bytes("MemTotal")?, meminfo.bytes("MemAvailable")?);
        let mut held_bytes = self.held(processes);
        for (pid, after) in &mut held_bytes {
            *after = before.get(pid).copied().unwrap_or(0).min(*after);
        }
        Ok(MemorySample { total_bytes, available_bytes, held_bytes })
    }

    /// The largest processes that are not ours, largest first. `device_bytes`: what each holds of the host's memory through
    /// a GPU's driver, which procfs does not show, by process ids of the host.
    pub fn others(&self, most: usize, device_bytes: &BTreeMap<u32, u64>) -> Vec<ProcessMemory> {
        if self.total_override_bytes.is_some() {
            return Vec::new();
        }
        let Ok(entries) = fs::read_dir(&self.machine_root) else { return Vec::new() };
        let mut others: Vec<ProcessMemory> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .filter_map(|pid| self.process(pid, device_bytes.get(&pid).copied().unwrap_or(0)))
            .filter(|process| process.name != OWN_PROCESS_NAME && process.bytes > 0)
            .collect();
        others.sort_by(|left, right| right.bytes.cmp(&left.bytes).then_with(|| left.name.cmp(&right.name)));
        others.truncate(most);
        others
    }

    /// Name of the first GPU as NVIDIA's driver shows it in procfs.
    pub fn gpu_name(&self) -> Option<String> {
        let gpus = fs::read_dir(self.machine_root.join("driver/nvidia/gpus")).ok()?;
        let mut paths: Vec<PathBuf> =
            gpus.filter_map(|entry| Some(entry.ok()?.path().join("information"))).collect();
        paths.sort();
        paths.iter().find_map(|path| {
            let text = fs::read_to_string(path).ok()?;
            let model = text.lines().find_map(|line| line.strip_prefix("Model:"))?;
            Some(model.trim().to_owned())
        })
    }

    /// The process id by which a child of ours is known here, of one by which the host knows it: a GPU's driver speaks of
    /// the latter. `None` for everybody else's: in other namespaces the same numbers mean others.
    pub fn child(&self, host_pid: u32) -> Option<u32> {
        if self.machine_root == self.children_root {
            return Some(host_pid);
        }
        let process = self.machine_root.join(host_pid.to_string());
        let namespace = |process: &Path| fs::read_link(process.join("ns/pid")).ok();
        if namespace(&process)? != namespace(&self.children_root.join("self"))? {
            return None;
        }
        let status = fs::read_to_string(process.join("status")).ok()?;
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        pids.split_ascii_whitespace().next_back()?.parse().ok()
    }

    /// What decides the default reserve.
    pub fn machine(&self) -> Machine {
        match self.gpu_name() {
            Some(name) if name.contains("GB10") => Machine::Gb10,
            _ => Machine::Other,
        }
    }

    fn held(&self, processes: &[(u32, u64)]) -> BTreeMap<u32, u64> {
        let held = |(pid, beside): &(u32, u64)| {
            let resident = self.anonymous_bytes(&self.children_root, *pid);
            (*pid, resident.map_or(0, |bytes| bytes.saturating_add(*beside)))
        };
        processes.iter().map(held).collect()
    }

    /// Resident pages that no file backs. File pages are left out: the kernel counts them as available.
    fn anonymous_bytes(&self, root: &Path, pid: u32) -> Option<u64> {
        let text = fs::read_to_string(root.join(pid.to_string()).join("statm")).ok()?;
        let mut fields = text.split_ascii_whitespace().skip(1);
        let resident: u64 = fields.next()?.parse().ok()?;
        let shared: u64 = fields.next()?.parse().ok()?;
        Some(resident.saturating_sub(shared) * self.page_bytes)
    }

    fn process(&self, pid: u32, device_bytes: u64) -> Option<ProcessMemory> {
        let name = fs::read_to_string(self.machine_root.join(pid.to_string()).join("comm")).ok()?;
        let bytes = self.anonymous_bytes(&self.machine_root, pid)?.saturating_add(device_bytes);
        Some(ProcessMemory { name: name.trim().to_owned(), bytes })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::{MemoryProbe, ProbeError, ProcessMemory};
    use crate::memory::Machine;

    const GIB: u64 = 1 << 30;

    fn process(root: &Path, pid: u32, name: &str, resident_pages: u64, shared_pages: u64) {
        let directory = root.join(pid.to_string());
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("comm"), format!("{name}\n")).unwrap();
        fs::write(directory.join("statm"), format!("99999 {resident_pages} {shared_pages} 1 0 9 0\n"))
            .unwrap();
    }

    fn gb10() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let meminfo = "MemTotal:       1000 kB\nMemFree:        10 kB\nMemAvailable:   600 kB\n";
        fs::write(root.path().join("meminfo"), meminfo).unwrap();
        let gpu = root.path().join("driver/nvidia/gpus/000f:01:00.0");
        fs::create_dir_all(&gpu).unwrap();
        fs::write(gpu.join("information"), "Model: \t\t NVIDIA GB10\nIRQ: 1\n").unwrap();
        process(root.path(), 7, "sparkherd", 30, 5);
        process(root.path(), 8, "gnome-shell", 20, 4);
        process(root.path(), 9, "jupyter", 40, 4);
        process(root.path(), 10, "kthreadd", 0, 0);
        root
    }

    #[test]
    fn reads_a_fake_machine() {
        let root = gb10();
        let probe = MemoryProbe::new(root.path(), root.path(), 4096, None);
        let none = BTreeMap::new();
        let sample = probe.sample(&[(7, 0), (4711, GIB)]).unwrap();
        assert_eq!((sample.total_bytes, sample.available_bytes), (1000 * 1024, 600 * 1024));
        assert_eq!(sample.held_bytes.into_iter().collect::<Vec<_>>(), [(7, 25 * 4096), (4711, 0)]);
        let others: Vec<_> =
            probe.others(8, &none).into_iter().map(|other| (other.name, other.bytes)).collect();
        assert_eq!(others, [("jupyter".to_owned(), 36 * 4096), ("gnome-shell".to_owned(), 16 * 4096)]);
        assert_eq!(probe.others(1, &none).len(), 1);
        let with_gpu = probe.others(1, &BTreeMap::from([(8, GIB)]));
        let shell = ProcessMemory { name: "gnome-shell".to_owned(), bytes: GIB + 16 * 4096 };
        assert_eq!(with_gpu, [shell], "memory that only the GPU's driver shows counts");
        assert_eq!((probe.gpu_name().as_deref(), probe.machine()), (Some("NVIDIA GB10"), Machine::Gb10));
    }

    #[test]
    fn a_given_total_counts_only_our_own() {
        let root = gb10();
        let probe = MemoryProbe::new(root.path(), root.path(), 4096, Some(1 << 20));
        let sample = probe.sample(&[(7, 0)]).unwrap();
        assert_eq!((sample.total_bytes, sample.available_bytes), (1 << 20, (1 << 20) - 25 * 4096));
        assert!(probe.others(8, &BTreeMap::new()).is_empty());
        // With GPU memory that is the host's.
        let sample = probe.sample(&[(7, 4096)]).unwrap();
        assert_eq!(sample.available_bytes, (1 << 20) - 26 * 4096);
    }

    #[test]
    fn children_are_told_from_strangers_of_the_same_number() {
        let (host, own) = (gb10(), tempfile::tempdir().unwrap());
        let known = |pid: u32, namespace: &str, pids: &str| {
            let directory = host.path().join(pid.to_string());
            fs::create_dir_all(directory.join("ns")).unwrap();
            symlink(namespace, directory.join("ns/pid")).unwrap();
            fs::write(directory.join("status"), format!("Name:\tx\nNSpid:\t{pids}\n")).unwrap();
        };
        known(900, "pid:[42]", "900\t12");
        known(901, "pid:[43]", "901\t12");
        fs::create_dir_all(own.path().join("self/ns")).unwrap();
        symlink("pid:[42]", own.path().join("self/ns/pid")).unwrap();
        let probe = MemoryProbe::new(host.path(), own.path(), 4096, None);
        assert_eq!((probe.child(900), probe.child(901), probe.child(7)), (Some(12), None, None));
        let alone = MemoryProbe::new(host.path(), host.path(), 4096, None);
        assert_eq!(alone.child(901), Some(901), "not in a Pod");
    }

    #[test]
    fn says_what_is_missing() {
        let root = tempfile::tempdir().unwrap();
        let probe = MemoryProbe::new(root.path(), root.path(), 4096, None);
        assert!(matches!(probe.sample(&[]), Err(ProbeError::Read { .. })));
        fs::write(root.path().join("meminfo"), "MemTotal: 5 kB\n").unwrap();
        assert!(matches!(probe.sample(&[]), Err(ProbeError::MissingField { field: "MemAvailable", .. })));
        assert_eq!(probe.machine(), Machine::Other);
    }
}
