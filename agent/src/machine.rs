//! What this machine is: read once, except for the free space of the store.

use std::fs;
use std::path::Path;

use rustix::fs::statvfs;
use rustix::system::uname;
use sparkherd_crds::{CpuFacts, EngineFacts, GpuFacts, OsFacts, StoreFacts};
use sparkherd_footprint::Platform;

use crate::memory::MemoryProbe;

/// Facts that do not change in the life of an agent.
#[derive(Clone, Debug)]
pub struct MachineFacts {
    pub engine: EngineFacts,
    pub cpu: CpuFacts,
    pub os: OsFacts,
    pub gpu: Option<GpuFacts>,
}

impl MachineFacts {
    /// `platform`: what engines here are started with.
    pub fn read(proc_root: &Path, probe: &MemoryProbe, platform: &Platform) -> Self {
        let cpuinfo = fs::read_to_string(proc_root.join("cpuinfo")).unwrap_or_default();
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self {
            engine: EngineFacts {
                backend: platform.backend,
                architecture: instruction_set(std::env::consts::ARCH, &cpuinfo),
                threads: platform.threads,
                runtime_host_bytes: platform.runtime_host_bytes,
                runtime_device_bytes: platform.runtime_device_bytes,
            },
            cpu: CpuFacts { model: cpu_model(&cpuinfo), cores: cores() },
            os: OsFacts {
                kernel: uname().release().to_string_lossy().into_owned(),
                release: os_release(&release),
            },
            gpu: probe.gpu_name().map(|name| GpuFacts {
                name,
                compute_capability: None,
                driver: None,
                cuda: None,
            }),
        }
    }
}

/// Engines of this version compute on all cores the agent may use.
pub fn platform() -> Platform {
    Platform::cpu(cores())
}

fn cores() -> u32 {
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
    use super::{cpu_model, instruction_set, os_release};

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
