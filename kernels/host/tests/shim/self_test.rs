//! What an engine tries before it loads a model.

use std::collections::BTreeSet;

use sparkherd_engine::backend::cuda::{Heads, self_test};
use sparkherd_footprint::KvDtype;
use sparkherd_kernels::{Device, DeviceError, DeviceMemory, LaunchShape, Recording};
use sparkherd_kernels_host::{ShimDevice, cubins};

const HEADS: Heads = Heads { query_heads: 4, kv_heads: 2, head_dim: 64 };
/// Kernels that no model launches: what doctor measures, and products of a format that no family loads yet.
const NOT_OF_MODELS: [&str; 4] = ["linear_nvfp4", "linear_nvfp4_portable", "multiply", "read_words"];

/// A device that writes down what is launched, and on which one kernel does nothing: the fault of a guard that compiled to nothing.
#[derive(Debug)]
struct Watched {
    device: ShimDevice,
    without: &'static str,
    launched: BTreeSet<&'static str>,
}

impl Watched {
    fn new(without: &'static str) -> Self {
        Self { device: crate::device(), without, launched: BTreeSet::new() }
    }
}

#[expect(unsafe_code, reason = "launches are passed on")]
impl Device for Watched {
    fn allocate(&mut self, bytes: usize) -> Result<DeviceMemory, DeviceError> {
        self.device.allocate(bytes)
    }

    fn write(&mut self, to: DeviceMemory, bytes: &[u8]) -> Result<(), DeviceError> {
        self.device.write(to, bytes)
    }

    fn read(&mut self, from: DeviceMemory, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.device.read(from, bytes)
    }

    unsafe fn launch(
        &mut self,
        kernel: &'static str,
        shape: LaunchShape,
        arguments: &[u8],
    ) -> Result<(), DeviceError> {
        self.launched.insert(kernel);
        if kernel == self.without {
            return Ok(());
        }
        // SAFETY: the caller's.
        unsafe { self.device.launch(kernel, shape, arguments) }
    }

    fn begin_recording(&mut self) -> Result<(), DeviceError> {
        self.device.begin_recording()
    }

    fn end_recording(&mut self) -> Result<Recording, DeviceError> {
        self.device.end_recording()
    }

    unsafe fn replay(&mut self, recording: Recording) -> Result<(), DeviceError> {
        // SAFETY: the caller's.
        unsafe { self.device.replay(recording) }
    }
}

/// With the sizes of heads that have kernels of their own.
#[test]
fn it_passes_and_launches_every_kernel_that_a_model_may_need() {
    let mut missing: BTreeSet<String> =
        cubins().modules.into_iter().flat_map(|module| module.kernels).collect();
    for kv_dtype in [KvDtype::F32, KvDtype::Bf16, KvDtype::Fp8] {
        for head_dim in [64, 96, 128, 256] {
            let mut device = Watched::new("");
            assert!(self_test(&mut device, kv_dtype, Heads { head_dim, ..HEADS }).unwrap() > 50);
            missing.retain(|kernel| !device.launched.contains(kernel.as_str()));
        }
    }
    assert_eq!(missing, NOT_OF_MODELS.map(str::to_owned).into());
}

/// Each that it launches, one at a time.
#[test]
fn a_kernel_that_does_nothing_is_found() {
    let mut whole = Watched::new("");
    self_test(&mut whole, KvDtype::Bf16, HEADS).unwrap();
    for kernel in whole.launched {
        let outcome = self_test(Watched::new(kernel), KvDtype::Bf16, HEADS);
        assert!(outcome.is_err(), "without {kernel} nothing is found");
    }
}

/// Of Llama 3 (1B, 8B, 405B) and Qwen2.5 7B, by whose shapes keys are rounded to other numbers: chance is not taken for a fault.
#[test]
fn it_passes_with_the_heads_of_models() {
    let pools = [
        (KvDtype::Bf16, 32, 8, 64),
        (KvDtype::Bf16, 32, 8, 128),
        (KvDtype::Bf16, 128, 8, 128),
        (KvDtype::Fp8, 28, 4, 128),
    ];
    for (kv_dtype, query_heads, kv_heads, head_dim) in pools {
        let heads = Heads { query_heads, kv_heads, head_dim };
        let outcome = self_test(crate::device(), kv_dtype, heads);
        assert!(outcome.is_ok(), "{kv_dtype:?} {heads:?}: {outcome:?}");
    }
}
