#![expect(unsafe_code, reason = "launches")]

use sparkherd_checkpoint::Dtype;

use crate::device::{Device, DeviceError, DeviceMemory, LaunchShape, blocks, bytes_of};
use crate::format::{kernel_of_vector, row_bytes};

const THREADS: u32 = 256;
const WARP: u32 = 32;

/// `out = x / sqrt(mean(x²) + epsilon) · weight`, row by row.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm {
    /// `[rows, width]` f32
    pub x: DeviceMemory,
    /// `[width]`
    pub weight: DeviceMemory,
    pub dtype: Dtype,
    /// As `x`, which it may be.
    pub out: DeviceMemory,
    pub rows: u32,
    pub width: u32,
    pub epsilon: f32,
}

/// `residual += x`, then `x =` [`RmsNorm`] of `residual`.
#[derive(Clone, Copy, Debug)]
pub struct AddRmsNorm {
    /// `[rows, width]` f32
    pub residual: DeviceMemory,
    /// As `residual`, and another.
    pub x: DeviceMemory,
    /// `[width]`
    pub weight: DeviceMemory,
    pub dtype: Dtype,
    pub rows: u32,
    pub width: u32,
    pub epsilon: f32,
}

/// [`RmsNorm`] in place of each head by itself, all with the same weight.
#[derive(Clone, Copy, Debug)]
pub struct HeadRmsNorm {
    /// `[heads, head_dim]` f32
    pub x: DeviceMemory,
    /// `[head_dim]`
    pub weight: DeviceMemory,
    pub dtype: Dtype,
    /// Of all rows together.
    pub heads: u32,
    pub head_dim: u32,
    pub epsilon: f32,
}

#[repr(C)]
struct RmsNormArguments {
    x: u64,
    weight: u64,
    out: u64,
    width: u32,
    epsilon: f32,
}

#[repr(C)]
struct AddRmsNormArguments {
    residual: u64,
    x: u64,
    weight: u64,
    width: u32,
    epsilon: f32,
}

#[repr(C)]
struct HeadRmsNormArguments {
    x: u64,
    weight: u64,
    heads: u32,
    head_dim: u32,
    epsilon: f32,
    _end: u32,
}

impl RmsNorm {
    pub fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { x, weight, dtype, out, rows, width, epsilon } = *self;
        let kernel = kernel_of_vector!("rms_norm", dtype)?;
        let elements = u64::from(rows) * u64::from(width);
        let arguments = RmsNormArguments {
            x: x.of_f32(kernel, "x", elements)?,
            weight: weight.holding(kernel, "weight", 1, row_bytes(kernel, dtype, width)?)?,
            out: out.of_f32(kernel, "out", elements)?,
            width,
            epsilon,
        };
        let shape = LaunchShape { grid: [rows, 1, 1], threads: THREADS };
        // SAFETY: every operand is as long as its shape says; a row is read and written by one block, a value of it by one thread.
        unsafe { device.launch(kernel, shape, bytes_of(&arguments)) }
    }
}

impl AddRmsNorm {
    pub fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { residual, x, weight, dtype, rows, width, epsilon } = *self;
        let kernel = kernel_of_vector!("add_rms_norm", dtype)?;
        let elements = u64::from(rows) * u64::from(width);
        let arguments = AddRmsNormArguments {
            residual: residual.of_f32(kernel, "residual", elements)?,
            x: x.of_f32(kernel, "x", elements)?,
            weight: weight.holding(kernel, "weight", 1, row_bytes(kernel, dtype, width)?)?,
            width,
            epsilon,
        };
        let shape = LaunchShape { grid: [rows, 1, 1], threads: THREADS };
        // SAFETY: as in `RmsNorm`.
        unsafe { device.launch(kernel, shape, bytes_of(&arguments)) }
    }
}

impl HeadRmsNorm {
    pub fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { x, weight, dtype, heads, head_dim, epsilon } = *self;
        let kernel = kernel_of_vector!("head_rms_norm", dtype)?;
        let arguments = HeadRmsNormArguments {
            x: x.of_f32(kernel, "x", u64::from(heads) * u64::from(head_dim))?,
            weight: weight.holding(kernel, "weight", 1, row_bytes(kernel, dtype, head_dim)?)?,
            heads,
            head_dim,
            epsilon,
            _end: 0,
        };
        let grid = [blocks(kernel, heads.into(), THREADS / WARP)?, 1, 1];
        // SAFETY: every operand is as long as its shape says; a head is read and written by one warp, a value of it by one lane.
        unsafe { device.launch(kernel, LaunchShape { grid, threads: THREADS }, bytes_of(&arguments)) }
    }
}
