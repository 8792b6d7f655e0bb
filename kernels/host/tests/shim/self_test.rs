//! What an engine tries before it loads a model.

use sparkherd_engine::backend::cuda::{SelfTestError, self_test};
use sparkherd_footprint::KvDtype;
use sparkherd_kernels::{Device, DeviceError, DeviceMemory, LaunchShape, Recording};
use sparkherd_kernels_host::ShimDevice;

/// A device on which one kernel does nothing: the fault of a guard that compiled to nothing.
#[derive(Debug)]
struct Without(ShimDevice, &'static str);

#[expect(unsafe_code, reason = "launches are passed on")]
impl Device for Without {
    fn allocate(&mut self, bytes: usize) -> Result<DeviceMemory, DeviceError> {
        self.0.allocate(bytes)
    }

    fn write(&mut self, to: DeviceMemory, bytes: &[u8]) -> Result<(), DeviceError> {
        self.0.write(to, bytes)
    }

    fn read(&mut self, from: DeviceMemory, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.0.read(from, bytes)
    }

    unsafe fn launch(
        &mut self,
        kernel: &'static str,
        shape: LaunchShape,
        arguments: &[u8],
    ) -> Result<(), DeviceError> {
        if kernel.starts_with(self.1) {
            return Ok(());
        }
        // SAFETY: the caller's.
        unsafe { self.0.launch(kernel, shape, arguments) }
    }

    fn begin_recording(&mut self) -> Result<(), DeviceError> {
        self.0.begin_recording()
    }

    fn end_recording(&mut self) -> Result<Recording, DeviceError> {
        self.0.end_recording()
    }

    unsafe fn replay(&mut self, recording: Recording) -> Result<(), DeviceError> {
        // SAFETY: the caller's.
        unsafe { self.0.replay(recording) }
    }
}

#[test]
fn it_passes_with_every_kind_of_keys_and_values() {
    for kv_dtype in [KvDtype::F32, KvDtype::Bf16, KvDtype::Fp8] {
        assert!(self_test(crate::device(), kv_dtype).unwrap() > 30);
    }
}

#[test]
fn a_kernel_that_does_nothing_is_found() {
    let kernels = [
        ("embed_q4_k", "embedding, Q4_K"),
        ("linear_bf16", "product of 1 rows, BF16"),
        ("linear_rows_q6_k", "product of 20 rows, Q6_K"),
        ("rms_norm_f16", "normalisation, F16"),
        ("attention_bf16", "attention of 1 rows"),
        ("attention_combine", "attention of 1 rows"),
        ("attention_rows_bf16", "attention of 20 rows"),
    ];
    for (kernel, operation) in kernels {
        let error = self_test(Without(crate::device(), kernel), KvDtype::Bf16).unwrap_err();
        assert!(
            matches!(&error, SelfTestError::Differs { operation: found, .. } if found == operation),
            "without {kernel}: {error}"
        );
    }
}
