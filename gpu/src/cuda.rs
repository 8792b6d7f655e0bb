use std::fmt;

use crate::{CudaVersion, Fault, GpuReport};

/// Our kernels come as machine code of CUDA 13: drivers from 580 on load it.
const CUDA_MIN: CudaVersion = CudaVersion { major: 13, minor: 0 };

/// Whether a driver loads our kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CudaSupport {
    Loads(CudaVersion),
    TooOld(CudaVersion),
    /// The driver does not tell; an engine finds out.
    Unknown,
}

/// What `auto`, the agent and the doctor go by.
pub fn cuda_support(report: &GpuReport) -> CudaSupport {
    match report.cuda {
        None => CudaSupport::Unknown,
        Some(cuda) if cuda < CUDA_MIN => CudaSupport::TooOld(cuda),
        Some(cuda) => CudaSupport::Loads(cuda),
    }
}

impl CudaSupport {
    /// What is wrong, if it is known, and the way out.
    pub fn fault(self) -> Option<Fault> {
        let advice = "move to driver 580 or later: kernels are of CUDA 13.0";
        match self {
            Self::TooOld(cuda) => {
                Some(Fault { what: format!("the driver runs CUDA {cuda} at most"), advice })
            }
            Self::Loads(_) | Self::Unknown => None,
        }
    }
}

impl fmt::Display for CudaSupport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loads(cuda) | Self::TooOld(cuda) => write!(formatter, "CUDA {cuda}"),
            Self::Unknown => formatter.write_str("CUDA unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CudaSupport, cuda_support};
    use crate::{CudaVersion, GpuReport};

    #[test]
    fn a_driver_before_cuda_13_is_a_fault_and_silence_is_none() {
        let of = |cuda| cuda_support(&GpuReport { cuda, ..GpuReport::default() });
        let old = CudaVersion { major: 12, minor: 9 };
        assert_eq!(of(Some(old)), CudaSupport::TooOld(old));
        assert_eq!(of(Some(old)).fault().unwrap().what, "the driver runs CUDA 12.9 at most");
        let new = CudaVersion { major: 13, minor: 0 };
        assert_eq!((of(Some(new)), of(None)), (CudaSupport::Loads(new), CudaSupport::Unknown));
        assert_eq!((of(Some(new)).fault(), of(None).fault()), (None, None));
    }
}
