//! What this machine is: read once, except for the free space of the store.

use std::fs;
use std::path::Path;

use rustix::fs::statvfs;
use rustix::system::uname;
use sparkherd_crds::{CpuFacts, EngineFacts, GpuFacts, OsFacts, StoreFacts};
use sparkherd_footprint::{Backend, Platform};
use sparkherd_gpu::{Fault, Gpu, GpuError, GpuReport, SoftwareStack, cuda_support, known_faults};

use crate::memory::MemoryProbe;

/// Facts that do not change in the life of an agent.
#[derive(Clone, Debug)]
pub struct MachineFacts {
    pub engine: EngineFacts,
    pub cpu: CpuFacts,
    pub os: OsFacts,
    pub gpu: Option<GpuFacts>,
    /// What is known to be broken of what runs below the engines.
    pub faults: Vec<Fault>,
}

impl MachineFacts {
    /// `platform`: what engines here are started with. `gpus`: what the driver said.
    pub fn read(
        proc_root: &Path,
        probe: &MemoryProbe,
        platform: &Platform,
        gpus: &Result<GpuReport, GpuError>,
    ) -> Self {
        let cpuinfo = fs::read_to_string(proc_root.join("cpuinfo")).unwrap_or_default();
        let command_line = fs::read_to_string(proc_root.join("cmdline")).unwrap_or_default();
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let kernel = uname().release().to_string_lossy().into_owned();
        let gpu = gpu_facts(gpus.as_ref().ok(), probe.gpu_name());
        let mut faults = known_faults(&SoftwareStack {
            gpu_name: gpu.as_ref().map_or("", |gpu| &gpu.name),
            kernel: &kernel,
            kernel_command_line: &command_line,
            driver: gpu.as_ref().and_then(|gpu| gpu.driver.as_deref()),
        });
        faults.extend(gpus.as_ref().ok().and_then(|report| cuda_support(report).fault()));
        let compute = gpus.as_ref().ok().and_then(GpuReport::first).and_then(Gpu::architecture);
        Self {
            engine: EngineFacts {
                backend: platform.backend,
                architecture: compute
                    .filter(|_| platform.backend == Backend::Cuda)
                    .unwrap_or_else(|| instruction_set(std::env::consts::ARCH, &cpuinfo)),
                threads: platform.threads,
                runtime_host_bytes: platform.runtime_host_bytes,
                runtime_device_bytes: platform.runtime_device_bytes,
            },
            cpu: CpuFacts { model: cpu_model(&cpuinfo), cores: cores() },
            os: OsFacts { kernel, release: os_release(&release) },
            gpu,
            faults,
        }
    }
}

/// What the driver says, or at least the name that it shows in procfs where its library is missing.
fn gpu_facts(report: Option<&GpuReport>, name_in_procfs: Option<String>) -> Option<GpuFacts> {
    let gpu = report.and_then(GpuReport::first);
    let name = gpu.and_then(|gpu| gpu.name.clone()).or(name_in_procfs);
    if gpu.is_none() && name.is_none() {
        return None;
    }
    let capability = gpu.and_then(|gpu| gpu.compute_capability);
    Some(GpuFacts {
        name: name.unwrap_or_else(|| "unknown".to_owned()),
        compute_capability: capability.map(|(major, minor)| format!("{major}.{minor}")),
        driver: report.and_then(|report| report.driver.clone()),
        cuda: report.and_then(|report| report.cuda).map(|cuda| cuda.to_string()),
    })
}

/// Engines on the CPU compute on all cores the agent may use.
pub fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

/// Disk of the store; `None` where the file system does not tell. Nothing in it can be evicted: weights lie elsewhere.
pub fn store_facts(store: &Path) -> Option<StoreFacts> {
    let disk = statvfs(store).ok()?;
    Some(StoreFacts {
        total_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
        free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
        evictable_bytes: 0,
    })
}

fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn cpu_model(cpuinfo: &str) -> String {
    // Arm kernels give no name, only numbers of the implementer and the part.
    let named = field(cpuinfo, "model name").map(str::to_owned);
    named
        .or_else(|| {
            Some(format!("part {} of {}", field(cpuinfo, "CPU part")?, field(cpuinfo, "CPU implementer")?))
        })
        .unwrap_or_else(|| "unknown".to_owned())
}

/// The widest vector instructions the kernel reports, most capable first.
fn instruction_set(architecture: &str, cpuinfo: &str) -> String {
    let flags = field(cpuinfo, "flags").or_else(|| field(cpuinfo, "Features")).unwrap_or_default();
    let has = |flag: &&&str| flags.split_ascii_whitespace().any(|one| one == **flag);
    let known = ["avx512_bf16", "avx512f", "avx2", "sve2", "bf16", "asimd"];
    known.iter().find(has).map_or_else(|| architecture.to_owned(), |flag| format!("{architecture} {flag}"))
}

fn os_release(text: &str) -> String {
    text.lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "unknown".to_owned(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sparkherd_footprint::Platform;
    use sparkherd_gpu::{CudaVersion, Gpu, GpuReport};

    use super::{MachineFacts, MemoryProbe, cpu_model, gpu_facts, instruction_set, os_release};

    #[test]
    fn a_gpu_is_told_as_far_as_it_is_known() {
        let name = || Some("NVIDIA GB10".to_owned());
        let gpu = Gpu { name: name(), compute_capability: Some((12, 1)), ..Gpu::default() };
        let cuda = Some(CudaVersion { major: 13, minor: 0 });
        let report = GpuReport { driver: Some("580.95.05".to_owned()), cuda, gpus: vec![gpu] };
        let told = |report: Option<&GpuReport>, in_procfs| {
            let facts = gpu_facts(report, in_procfs)?;
            Some((facts.name, facts.compute_capability, facts.driver, facts.cuda))
        };
        let text = |text: &str| Some(text.to_owned());
        let whole = Some(("NVIDIA GB10".to_owned(), text("12.1"), text("580.95.05"), text("13.0")));
        assert_eq!(told(Some(&report), None), whole);
        assert_eq!(told(None, name()), Some(("NVIDIA GB10".to_owned(), None, None, None)));
        assert_eq!(told(Some(&GpuReport::default()), None), None);
    }

    #[test]
    fn a_driver_that_is_too_old_for_our_kernels_is_a_fault() {
        let proc_root = Path::new("/proc");
        let probe = MemoryProbe::new(proc_root, proc_root, 4096, None);
        let whats = |minor_of_13: Option<u32>| {
            let (major, minor) = minor_of_13.map_or((12, 8), |minor| (13, minor));
            let cuda = Some(CudaVersion { major, minor });
            let report = Ok(GpuReport { cuda, gpus: vec![Gpu::default()], ..GpuReport::default() });
            let faults = MachineFacts::read(proc_root, &probe, &Platform::cuda(1), &report).faults;
            faults.into_iter().map(|fault| fault.what).collect::<Vec<_>>()
        };
        assert_eq!(whats(None), ["the driver runs CUDA 12.8 at most"]);
        assert_eq!(whats(Some(0)), [""; 0]);
    }

    #[test]
    fn reads_x86_and_arm() {
        let x86 = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)\nflags\t\t: fpu avx2 avx512f\n";
        let arm = "processor\t: 0\nFeatures\t: fp asimd bf16\nCPU implementer\t: 0x41\nCPU part\t: 0xd87\n";
        assert_eq!(
            (cpu_model(x86), instruction_set("x86_64", x86)),
            ("Intel(R) Xeon(R)".into(), "x86_64 avx512f".into())
        );
        assert_eq!(
            (cpu_model(arm), instruction_set("aarch64", arm)),
            ("part 0xd87 of 0x41".into(), "aarch64 bf16".into())
        );
        assert_eq!((cpu_model(""), instruction_set("riscv64", "")), ("unknown".into(), "riscv64".into()));
        assert_eq!(os_release("ID=x\nPRETTY_NAME=\"DGX OS 7\"\n"), "DGX OS 7");
    }
}
