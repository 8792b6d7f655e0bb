#![expect(unsafe_code, reason = "a launch")]

use sparkherd_checkpoint::Dtype;

use crate::device::{Device, DeviceError, DeviceMemory, LaunchShape, blocks, bytes_of};
use crate::format::{kernel_of, row_bytes};

const THREADS: u32 = 256;
/// Rows of a block, and outputs.
const TILE: u32 = 128;

/// `out = x · weightᵀ` for many rows, both rounded to BF16 and added up in f32.
#[derive(Clone, Copy, Debug)]
pub struct LinearRows {
    /// `[rows, inputs]` f32
    pub x: DeviceMemory,
    /// `[outputs, inputs]`
    pub weight: DeviceMemory,
    pub dtype: Dtype,
    /// `[rows, outputs]` f32, apart from `x`
    pub out: DeviceMemory,
    pub rows: u32,
    pub inputs: u32,
    pub outputs: u32,
}

#[repr(C)]
struct Arguments {
    x: u64,
    weight: u64,
    out: u64,
    rows: u32,
    inputs: u32,
    outputs: u32,
    _end: u32,
}

impl LinearRows {
    pub fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { x, weight, dtype, out, rows, inputs, outputs } = *self;
        let kernel = kernel_of!("linear_rows", dtype);
        let arguments = Arguments {
            x: x.of_f32(kernel, "x", u64::from(rows) * u64::from(inputs))?,
            weight: weight.holding(kernel, "weight", outputs.into(), row_bytes(kernel, dtype, inputs)?)?,
            out: out.of_f32(kernel, "out", u64::from(rows) * u64::from(outputs))?,
            rows,
            inputs,
            outputs,
            _end: 0,
        };
        let grid = [blocks(kernel, rows.into(), TILE)?, blocks(kernel, outputs.into(), TILE)?, 1];
        // SAFETY: every operand is as long as its shape says, what lies beyond is not touched, and an output is written by one lane.
        unsafe { device.launch(kernel, LaunchShape { grid, threads: THREADS }, bytes_of(&arguments)) }
    }
}
