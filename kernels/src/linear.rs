#![expect(unsafe_code, reason = "a launch")]

use sparkherd_checkpoint::Dtype;

use crate::device::{Device, DeviceError, DeviceMemory, LaunchShape, blocks, bytes_of};
use crate::format::{kernel_of, row_bytes};
use crate::gate::GateFunction;

/// Rows that one launch multiplies.
pub const LINEAR_ROWS_MAX: u32 = 8;
const WARPS: u32 = 4;
const WARP: u32 = 32;
/// That a warp goes along at once, of one matrix or of both.
const WEIGHT_ROWS: u32 = 4;
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
        let kernel =
            if rows == 1 { kernel_of!("linear", dtype, "_1") } else { kernel_of!("linear", dtype, "_8") };
        let matrices = Matrices { weight, up: weight, dtype, count: 1, function: GateFunction::default() };
        launch(device, kernel, [x, out], matrices, [rows, inputs, outputs])
    }
}

impl LinearGated {
    pub fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { x, gate, up, dtype, out, rows, inputs, outputs, function } = *self;
        let kernel = if rows == 1 {
            kernel_of!("linear_gated", dtype, "_1")
        } else {
            kernel_of!("linear_gated", dtype, "_8")
        };
        let matrices = Matrices { weight: gate, up, dtype, count: 2, function };
        launch(device, kernel, [x, out], matrices, [rows, inputs, outputs])
    }
}

/// Of the same shape and format.
struct Matrices {
    weight: DeviceMemory,
    /// The same as `weight`, where there is but one.
    up: DeviceMemory,
    dtype: Dtype,
    count: u32,
    /// Of two.
    function: GateFunction,
}

fn launch(
    device: &mut dyn Device,
    kernel: &'static str,
    [x, out]: [DeviceMemory; 2],
    Matrices { weight, up, dtype, count, function }: Matrices,
    [rows, inputs, outputs]: [u32; 3],
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
    let block_outputs = WARPS * WEIGHT_ROWS / count;
    let grid = [blocks(kernel, outputs.into(), block_outputs)?, 1, 1];
    // SAFETY: every operand is as long as its shape says; an output is written by one warp. Words of 16 bytes are read only
    // where rows have whole ones, from addresses that were checked.
    unsafe { device.launch(kernel, LaunchShape { grid, threads: WARPS * WARP }, bytes_of(&arguments)) }
}
