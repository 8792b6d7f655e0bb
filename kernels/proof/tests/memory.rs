//! Memory of a load on a driver that is the host shim, beside what was planned.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::fs;

use sparkherd_engine::{GpuChoice, OpenGpu};
use sparkherd_gpu::NoGpu;
use sparkherd_kernels::{Cubins, Device as _, KernelPlaces};
use sparkherd_kernels_host::{cubins, library};
use sparkherd_proof::checkpoints;
use sparkherd_proof::memory::{MemoryLine, Subject, Witness};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

fn open(directory: &TempDir) -> OpenGpu {
    let kernels = directory.path().join("kernels");
    fs::write(&kernels, Cubins::encode(&[cubins()])).unwrap();
    let kernels = KernelPlaces { file: Some(kernels), ..KernelPlaces::default() };
    GpuChoice { driver: Some(library()), kernels, ..GpuChoice::default() }.open().unwrap()
}

fn procfs(directory: &TempDir, available_bytes: u64) {
    let text = format!("MemAvailable:  {} kB\n", available_bytes >> 10);
    fs::write(directory.path().join("meminfo"), text).unwrap();
}

/// Loads a tiny model. What the GPU has lost at the end beside it, and the host.
fn measured(lost_on_gpu: usize, lost_on_host: u64) -> Vec<MemoryLine> {
    let directory = tempfile::tempdir().unwrap();
    let model = tempfile::tempdir().unwrap();
    checkpoints::named("tiny-llama3-bf16").unpack(model.path()).unwrap();
    procfs(&directory, 64 << 30);
    let witness = Witness { nvml: &NoGpu, pid: 1, proc_root: directory.path() };
    let before = witness.look(None);
    let open = open(&directory);
    let mut leak = open.device().unwrap();
    let subject = Subject { name: "tiny", directory: model.path() };
    let stepped = || {
        leak.allocate(lost_on_gpu).unwrap();
        procfs(&directory, (64 << 30) - lost_on_host);
    };
    subject.measure(&open, before, &witness, stepped).unwrap()
}

fn beyond(lines: &[MemoryLine]) -> Vec<&str> {
    lines.iter().filter(|line| line.is_beyond()).map(|line| line.part).collect()
}

/// One after the other: the driver counts what all of a process have.
#[test]
fn a_load_within_its_footprint_is_told_from_one_beyond() {
    let lines = measured(1, 600 * MIB);
    assert_eq!(beyond(&lines), [""; 0], "{lines:#?}");
    let moved = |part: &str| lines.iter().find(|line| line.part == part).unwrap().moved_bytes;
    let arenas = lines.iter().find(|line| line.part == "GPU: arenas, recorded steps").unwrap();
    let arena_bytes = u64::try_from(arenas.moved_bytes).unwrap();
    // Contexts this short share no positions among blocks: what is planned for that is not taken.
    let (least, most) = (arenas.planned_bytes - MIB / 8, arenas.planned_bytes);
    assert!((least..=most).contains(&arena_bytes), "{arena_bytes} of {most}");
    assert_eq!(moved("GPU: first steps"), 1, "nothing but the one byte that was lost");
    assert_eq!(moved("GPU and host: in all"), i64::try_from(600 * MIB).unwrap());

    // What the driver may take beside the arenas is 1 GiB. On a chip like this one it is the host's memory too, and held there.
    let lines = measured(1025 << 20, 0);
    let all = lines.iter().find(|line| line.part == "GPU: in all").unwrap();
    assert!(u64::try_from(all.moved_bytes).unwrap() > all.planned_bytes, "{all:?}");
    assert_eq!(beyond(&lines), [""; 0]);
    assert_eq!(beyond(&measured(1025 << 20, 2048 * MIB)), ["GPU and host: in all"]);
}
