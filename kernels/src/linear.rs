#![expect(unsafe_code, reason = "a launch")]

use sparkherd_checkpoint::Dtype;

use crate::device::{Device, DeviceError, DeviceMemory, LaunchShape, blocks, bytes_of};
use crate::format::{kernel_of, row_bytes};
use crate::gate::GateFunction;

/// Rows that one launch multiplies.
pub const LINEAR_ROWS_MAX: u32 = 8;
/// Outputs of a block: one for each of its warps.
const WARPS: u32 = 8;
const WARP: u32 = 32;
/// What a lane reads at once.
const WORD_BYTES: u64 = 16;

/// `out = x · weightᵀ` for a few rows.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// `[rows, inputs]` f32, from a multiple of 16 bytes
    pub x: DeviceMemory,
    /// `[outputs, inputs]`, from a multiple of 16 bytes
    pub weight: DeviceMemory,
    pub dtype: Dtype,
    /// `[rows, outputs]` f32, apart from `x`
    pub out: DeviceMemory,
    /// 1 to [`LINEAR_ROWS_MAX`]
    pub rows: u32,
    pub inputs: u32,
    pub outputs: u32,
}

/// `out = function(x · gateᵀ) ⊙ (x · upᵀ)` for a few rows.
#[derive(Clone, Copy, Debug)]
pub struct LinearGated {
    /// `[rows, inputs]` f32, from a multiple of 16 bytes
    pub x: DeviceMemory,
    /// `[outputs, inputs]`, from a multiple of 16 bytes
    pub gate: DeviceMemory,
    /// As `gate`.
    pub up: DeviceMemory,
    /// Of both matrices.
    pub dtype: Dtype,
    /// `[rows, outputs]` f32, apart from `x`
    pub out: DeviceMemory,
    /// 1 to [`LINEAR_ROWS_MAX`]
    pub rows: u32,
    pub inputs: u32,
    pub outputs: u32,
    /// What the first product becomes.
    pub function: GateFunction,
}

#[repr(C)]
struct Arguments {
    x: u64,
    weight: u64,
    up: u64,
    out: u64,
    rows: u32,
    inputs: u32,
    outputs: u32,
    /// Of gated products.
    function: u32,
}

impl Linear {
    pub fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { x, weight, dtype, out, rows, inputs, outputs } = *self;
        let kernel = kernel_of!("linear", dtype);
        let function = GateFunction::default();
        launch(device, kernel, dtype, [x, out], [weight, weight], [rows, inputs, outputs], function)
    }
}

impl LinearGated {
    pub fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { x, gate, up, dtype, out, rows, inputs, outputs, function } = *self;
        let kernel = kernel_of!("linear_gated", dtype);
        launch(device, kernel, dtype, [x, out], [gate, up], [rows, inputs, outputs], function)
    }
}

fn launch(
    device: &mut dyn Device,
    kernel: &'static str,
    dtype: Dtype,
    [x, out]: [DeviceMemory; 2],
    [weight, up]: [DeviceMemory; 2],
    [rows, inputs, outputs]: [u32; 3],
    function: GateFunction,
) -> Result<(), DeviceError> {
    if rows == 0 || rows > LINEAR_ROWS_MAX {
        return Err(DeviceError::Shape { kernel, what: "rows", got: rows as usize, wanted: "1 to 8" });
    }
    let row_bytes = row_bytes(kernel, dtype, inputs)?;
    for (what, memory) in [
        ("address of x modulo 16", x),
        ("address of the weight modulo 16", weight),
        ("address of the gated weight modulo 16", up),
    ] {
        let got = (memory.address() % WORD_BYTES) as usize;
        if got > 0 {
            return Err(DeviceError::Shape { kernel, what, got, wanted: "0" });
        }
    }
    let arguments = Arguments {
        x: x.of_f32(kernel, "x", u64::from(rows) * u64::from(inputs))?,
        weight: weight.holding(kernel, "weight", outputs.into(), row_bytes)?,
        up: up.holding(kernel, "gated weight", outputs.into(), row_bytes)?,
        out: out.of_f32(kernel, "out", u64::from(rows) * u64::from(outputs))?,
        rows,
        inputs,
        outputs,
        function: function.number(),
    };
    let shape = LaunchShape { grid: [blocks(kernel, outputs.into(), WARPS)?, 1, 1], threads: WARPS * WARP };
    // SAFETY: every operand is as long as its shape says; an output is written by one warp. Words of 16 bytes are read only
    // where rows have whole ones, from addresses that were checked.
    unsafe { device.launch(kernel, shape, bytes_of(&arguments)) }
}
