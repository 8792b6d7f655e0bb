#![expect(unsafe_code, reason = "a launch")]

use crate::device::{Device, DeviceError, DeviceMemory, LaunchShape, blocks, bytes_of};

const THREADS: u32 = 256;
/// Rows of a block.
const ROWS: u32 = 16;
/// Outputs of a block: 8 for each of its warps.
const OUTPUTS: u32 = 64;
/// Inputs that are multiplied at once.
const SLICE: u32 = 64;
/// Numbers that share a scale.
const GROUP: u64 = 16;

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nvfp4Path {
    /// Tensor cores on chips that have them for this format, else as `Portable`.
    Fastest,
    /// The same products one by one, to compare with.
    Portable,
}

/// `out = scale · x · weightᵀ`, both in NVFP4.
#[derive(Clone, Copy, Debug)]
pub struct LinearNvfp4 {
    pub path: Nvfp4Path,
    /// `[rows, inputs]` e2m1, two in a byte, the first below.
    pub x: DeviceMemory,
    /// `[rows, inputs / 16]` e4m3
    pub x_scales: DeviceMemory,
    /// `[outputs, inputs]` as `x`.
    pub weight: DeviceMemory,
    /// `[outputs, inputs / 16]` as `x_scales`.
    pub weight_scales: DeviceMemory,
    /// `[rows, outputs]` f32
    pub out: DeviceMemory,
    pub rows: u32,
    /// A multiple of 64.
    pub inputs: u32,
    pub outputs: u32,
    /// The product of both tensors' own scales.
    pub scale: f32,
}

#[repr(C)]
struct Arguments {
    x: u64,
    x_scales: u64,
    weight: u64,
    weight_scales: u64,
    out: u64,
    rows: u32,
    inputs: u32,
    outputs: u32,
    scale: f32,
}

impl LinearNvfp4 {
    pub fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { path, x, x_scales, weight, weight_scales, out, rows, inputs, outputs, scale } = *self;
        let kernel = match path {
            Nvfp4Path::Fastest => "linear_nvfp4",
            Nvfp4Path::Portable => "linear_nvfp4_portable",
        };
        if inputs % SLICE != 0 {
            let (got, wanted) = (inputs as usize, "a multiple of 64");
            return Err(DeviceError::Shape { kernel, what: "inputs", got, wanted });
        }
        let of_x = u64::from(rows) * u64::from(inputs);
        let of_weight = u64::from(outputs) * u64::from(inputs);
        let arguments = Arguments {
            x: x.holding(kernel, "x", of_x / 2, 1)?,
            x_scales: x_scales.holding(kernel, "scales of x", of_x / GROUP, 1)?,
            weight: weight.holding(kernel, "weight", of_weight / 2, 1)?,
            weight_scales: weight_scales.holding(kernel, "scales of weight", of_weight / GROUP, 1)?,
            out: out.of_f32(kernel, "out", u64::from(rows) * u64::from(outputs))?,
            rows,
            inputs,
            outputs,
            scale,
        };
        let grid = [blocks(kernel, outputs.into(), OUTPUTS)?, blocks(kernel, rows.into(), ROWS)?, 1];
        // SAFETY: every operand is as long as its shape says, what lies beyond is not touched, and an output is written by one lane.
        unsafe { device.launch(kernel, LaunchShape { grid, threads: THREADS }, bytes_of(&arguments)) }
    }
}
