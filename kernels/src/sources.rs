/// A file of CUDA C++, as it is compiled.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// As `#include` names it, or as errors do.
    pub name: &'static str,
    pub text: &'static str,
}

macro_rules! sources {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        &[$(Source { name: $name, text: include_str!(concat!("../", $folder, "/", $name)) }),+]
    };
}

/// What kernels include.
pub const HEADERS: &[Source] = sources!("cu/common": "async.cuh", "formats.cuh", "fp4.cuh", "gate.cuh", "kv.cuh", "mma.cuh", "numbers.cuh", "pieces.cuh", "platform.cuh", "reduce.cuh", "sampling.cuh", "scoring.cuh", "select.cuh");

/// Each is compiled by itself.
pub const SOURCES: &[Source] = sources!("cu": "attention.cu", "attention_inputs.cu", "attention_rows.cu", "elementwise.cu", "embed.cu", "linear.cu", "linear_nvfp4.cu", "linear_rows.cu", "logprobs.cu", "measure.cu", "rms_norm.cu", "sample.cu");
