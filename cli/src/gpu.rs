//! Flags about the GPU, of every command that starts engines or is one.

use std::ffi::OsString;
use std::path::PathBuf;

use sparkherd_agent::BackendWish;
use sparkherd_engine::GpuChoice;
use sparkherd_kernels::KernelPlaces;

/// What engines compute on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BackendArg {
    /// The GPU if the driver shows one, else the CPU
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
    /// GPU to compute on, as the driver counts those it shows this process
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    gpu: u32,
    /// Library of the CUDA driver, if the system does not find it
    #[arg(long, value_name = "FILE")]
    cuda_driver: Option<PathBuf>,
    /// Compiled kernels to use instead of those in this program (`cargo xtask kernels --bundle FILE` writes such a file)
    #[arg(long, value_name = "FILE")]
    kernels: Option<PathBuf>,
    /// NVRTC's library, which compiles kernels where this program was built without them, if the system does not find it
    #[arg(long, value_name = "FILE")]
    nvrtc: Option<PathBuf>,
    /// Where kernels that were compiled are kept
    #[arg(long, value_name = "DIR")]
    kernel_cache: Option<PathBuf>,
}

impl GpuArgs {
    pub(crate) fn choice(&self) -> GpuChoice {
        let Self { gpu, cuda_driver, kernels, nvrtc, kernel_cache } = self.clone();
        let kernels = KernelPlaces { file: kernels, compiler: nvrtc, cache: kernel_cache };
        GpuChoice { ordinal: gpu, driver: cuda_driver, kernels }
    }

    /// The same flags, for an engine.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let Self { gpu, cuda_driver, kernels, nvrtc, kernel_cache } = self;
        let files = [
            ("--cuda-driver", cuda_driver),
            ("--kernels", kernels),
            ("--nvrtc", nvrtc),
            ("--kernel-cache", kernel_cache),
        ];
        let given = files.into_iter().filter_map(|(flag, file)| Some([flag.into(), file.as_ref()?.into()]));
        let number = [OsString::from("--gpu"), gpu.to_string().into()];
        number.into_iter().chain(given.flatten()).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::GpuArgs;

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
