//! Flags about the GPU, of every command that starts engines or is one.

use std::{env, ffi::OsString};

use sparkherd_agent::BackendWish;
use sparkherd_engine::GpuChoice;
use sparkherd_gpu::{CudaSupport, GpuError, GpuPlace, GpuReport, Nvml, VISIBLE_DEVICES, cuda_support};
use sparkherd_kernels::{ARCHITECTURES, ComputeCapability, KernelPlaces};

/// What engines compute on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BackendArg {
    /// The GPU if the driver shows one that this program has kernels for, else the CPU
    Auto,
    /// The GPU; without one nothing starts
    Cuda,
    /// The CPU, whatever there is
    Cpu,
}

impl From<BackendArg> for BackendWish {
    fn from(argument: BackendArg) -> Self {
        match argument {
            BackendArg::Auto => Self::Auto,
            BackendArg::Cuda => Self::Cuda,
            BackendArg::Cpu => Self::Cpu,
        }
    }
}

/// Which GPU engines compute on, and where what they need is found.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GpuArgs {
    #[command(flatten)]
    choice: GpuChoice,
}

/// Why engines compute on the CPU although there is a GPU.
#[derive(Debug, PartialEq, Eq)]
enum NotCuda {
    Capability(Option<(u32, u32)>),
    Driver(CudaSupport),
    Kernels(String),
}

impl GpuArgs {
    /// What the agent is to start engines on. `auto` takes a GPU only if this program has kernels for it.
    pub(crate) fn wish(&self, backend: BackendArg, gpus: &Result<GpuReport, GpuError>) -> BackendWish {
        let gpu = gpus.as_ref().ok().and_then(GpuReport::first);
        let (BackendArg::Auto, Some(gpu)) = (backend, gpu) else { return backend.into() };
        let cuda = gpus.as_ref().map_or(CudaSupport::Unknown, cuda_support);
        match usable(gpu.compute_capability, cuda, &self.choice.kernels) {
            Ok(()) => BackendWish::Auto,
            Err(reason) => {
                tracing::warn!(gpu = gpu.name, ?reason, "engines compute on the CPU: the GPU cannot be used");
                BackendWish::Cpu
            }
        }
    }

    /// NVIDIA's management library, looking at the GPU that engines use.
    pub(crate) fn nvml(&self) -> Nvml {
        Nvml::open(GpuPlace::new(self.choice.ordinal, env::var_os(VISIBLE_DEVICES)))
    }

    /// Whether this program computes on a GPU by itself.
    pub(crate) fn is_taken(&self, backend: BackendArg, gpus: &Result<GpuReport, GpuError>) -> bool {
        match self.wish(backend, gpus) {
            BackendWish::Cuda => true,
            BackendWish::Cpu => false,
            BackendWish::Auto => gpus.as_ref().is_ok_and(|report| report.first().is_some()),
        }
    }

    pub(crate) fn choice(&self) -> GpuChoice {
        self.choice.clone()
    }

    /// The same flags, for an engine.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let Self { choice: GpuChoice { ordinal, driver, kernels } } = self;
        let KernelPlaces { file, compiler, cache } = kernels;
        let files = [
            ("--cuda-driver", driver),
            ("--kernels", file),
            ("--nvrtc", compiler),
            ("--kernel-cache", cache),
        ];
        let given = files.into_iter().filter_map(|(flag, file)| Some([flag.into(), file.as_ref()?.into()]));
        let number = [OsString::from("--gpu"), ordinal.to_string().into()];
        number.into_iter().chain(given.flatten()).collect()
    }
}

/// Whether kernels can be had for a GPU, and its driver loads them. What the driver does not tell is left to the engine.
fn usable(capability: Option<(u32, u32)>, cuda: CudaSupport, kernels: &KernelPlaces) -> Result<(), NotCuda> {
    if matches!(cuda, CudaSupport::TooOld(_)) {
        return Err(NotCuda::Driver(cuda));
    }
    let chip = capability.map(|(major, minor)| ComputeCapability { major, minor });
    let architecture = chip.and_then(|chip| chip.architecture(&ARCHITECTURES));
    let architecture = architecture.ok_or(NotCuda::Capability(capability))?;
    kernels.check(architecture).map_err(|error| NotCuda::Kernels(error.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use sparkherd_agent::BackendWish;
    use sparkherd_gpu::{CudaVersion, Gpu, GpuError, GpuReport};

    use super::{BackendArg, GpuArgs};

    fn machine(capability: (u32, u32), major: u32) -> GpuReport {
        let gpu = Gpu { compute_capability: Some(capability), ..Gpu::default() };
        let cuda = Some(CudaVersion { major, minor: 0 });
        GpuReport { cuda, gpus: vec![gpu], ..GpuReport::default() }
    }

    #[test]
    fn a_gpu_is_taken_by_itself_only_if_there_are_kernels_for_it() {
        let with = Line::parse_from(["agent", "--kernels", "/kernels"]).gpu;
        assert_eq!(with.wish(BackendArg::Auto, &Ok(machine((12, 1), 13))), BackendWish::Auto);
        assert_eq!(with.wish(BackendArg::Cuda, &Ok(machine((12, 1), 13))), BackendWish::Cuda);
        assert!(with.is_taken(BackendArg::Auto, &Ok(machine((12, 1), 13))));
        assert!(!with.is_taken(BackendArg::Auto, &Ok(machine((7, 5), 13))));
        for unusable in [machine((7, 5), 13), machine((10, 3), 13), machine((12, 1), 12)].map(Ok) {
            assert_eq!(with.wish(BackendArg::Auto, &unusable), BackendWish::Cpu);
            // Whoever asks for it is told by the engine.
            assert_eq!(with.wish(BackendArg::Cuda, &unusable), BackendWish::Cuda);
        }
        let without = Line::parse_from(["agent", "--nvrtc", "/nowhere"]).gpu;
        assert_eq!(without.wish(BackendArg::Auto, &Ok(machine((12, 1), 13))), BackendWish::Cpu);
        assert_eq!(without.wish(BackendArg::Auto, &Err(GpuError::NoDriver)), BackendWish::Auto);
        let none = Err(GpuError::NoDriver);
        let taken =
            [BackendArg::Auto, BackendArg::Cuda, BackendArg::Cpu].map(|arg| without.is_taken(arg, &none));
        assert_eq!(taken, [false, true, false]);
    }

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        gpu: GpuArgs,
    }

    #[test]
    fn an_engine_is_told_what_its_agent_was_told() {
        let given = [
            "--gpu",
            "1",
            "--cuda-driver",
            "/d.so",
            "--kernels",
            "/k",
            "--nvrtc",
            "/n",
            "--kernel-cache",
            "/c",
        ];
        let line = Line::parse_from(["agent"].iter().chain(&given));
        assert_eq!(line.gpu.arguments(), given);
        let none = Line::parse_from(["agent"]);
        assert_eq!(none.gpu.arguments(), ["--gpu", "0"]);
        assert_eq!(none.gpu.choice(), sparkherd_engine::GpuChoice::default());
    }
}
