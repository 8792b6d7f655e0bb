#![expect(unsafe_code, reason = "launches")]

use sparkherd_checkpoint::Dtype;

use crate::device::{Device, DeviceError, DeviceMemory, LaunchShape, blocks, bytes_of};
use crate::format::{kernel_of_vector, row_bytes};
use crate::gate::GateFunction;

const THREADS: u32 = 256;

/// `x += delta`.
#[derive(Clone, Copy, Debug)]
pub struct Add {
    /// `[count]` f32
    pub x: DeviceMemory,
    /// As `x`, and another.
    pub delta: DeviceMemory,
    pub count: u64,
}

/// `x[r] += bias`.
#[derive(Clone, Copy, Debug)]
pub struct AddBias {
    /// `[rows, width]` f32
    pub x: DeviceMemory,
    /// `[width]`
    pub bias: DeviceMemory,
    pub dtype: Dtype,
    pub rows: u32,
    pub width: u32,
}

/// `gate = function(gate) · up`.
#[derive(Clone, Copy, Debug)]
pub struct GateMultiply {
    /// `[count]` f32
    pub gate: DeviceMemory,
    /// As `gate`, and another.
    pub up: DeviceMemory,
    pub count: u64,
    pub function: GateFunction,
}

/// `out[i] = x[rows[i]]`.
#[derive(Clone, Copy, Debug)]
pub struct GatherRows {
    /// `[x_rows, width]` f32
    pub x: DeviceMemory,
    /// `[out_rows]` u32, each below `x_rows`.
    pub rows: DeviceMemory,
    /// `[out_rows, width]` f32, apart from `x`
    pub out: DeviceMemory,
    pub x_rows: u32,
    pub out_rows: u32,
    pub width: u32,
}

/// Rotary embedding in place, halves apart.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// `[rows, heads · head_dim]` f32
    pub x: DeviceMemory,
    /// `[rows, head_dim]` f32: the cosines of a row's position, then the sines.
    pub rotations: DeviceMemory,
    pub rows: u32,
    pub heads: u32,
    /// Even.
    pub head_dim: u32,
}

#[repr(C)]
struct PairArguments {
    first: u64,
    second: u64,
    count: u64,
}

#[repr(C)]
struct GateMultiplyArguments {
    gate: u64,
    up: u64,
    count: u64,
    function: u32,
    _end: u32,
}

#[repr(C)]
struct AddBiasArguments {
    x: u64,
    bias: u64,
    count: u64,
    width: u32,
    _end: u32,
}

#[repr(C)]
struct GatherRowsArguments {
    x: u64,
    rows: u64,
    out: u64,
    width: u32,
    _end: u32,
}

#[repr(C)]
struct RopeArguments {
    x: u64,
    rotations: u64,
    pairs: u64,
    heads: u32,
    head_dim: u32,
}

impl Add {
    pub fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { x, delta, count } = *self;
        let kernel = "add";
        let arguments = PairArguments {
            first: x.of_f32(kernel, "x", count)?,
            second: delta.of_f32(kernel, "delta", count)?,
            count,
        };
        let grid = [blocks(kernel, count, THREADS)?, 1, 1];
        // SAFETY: both operands have `count` values, each of which is used by one thread.
        unsafe { device.launch(kernel, LaunchShape { grid, threads: THREADS }, bytes_of(&arguments)) }
    }
}

impl AddBias {
    pub fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { x, bias, dtype, rows, width } = *self;
        let kernel = kernel_of_vector!("add_bias", dtype)?;
        let count = u64::from(rows) * u64::from(width);
        let arguments = AddBiasArguments {
            x: x.of_f32(kernel, "x", count)?,
            bias: bias.holding(kernel, "bias", 1, row_bytes(kernel, dtype, width)?)?,
            count,
            width,
            _end: 0,
        };
        let grid = [blocks(kernel, count, THREADS)?, 1, 1];
        // SAFETY: both operands are as long as their shapes say; a value of `x` is used by one thread.
        unsafe { device.launch(kernel, LaunchShape { grid, threads: THREADS }, bytes_of(&arguments)) }
    }
}

impl GateMultiply {
    pub fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { gate, up, count, function } = *self;
        let kernel = "gate_multiply";
        let arguments = GateMultiplyArguments {
            gate: gate.of_f32(kernel, "gate", count)?,
            up: up.of_f32(kernel, "up", count)?,
            count,
            function: function.number(),
            _end: 0,
        };
        let grid = [blocks(kernel, count, THREADS)?, 1, 1];
        // SAFETY: both operands have `count` values, each of which is used by one thread.
        unsafe { device.launch(kernel, LaunchShape { grid, threads: THREADS }, bytes_of(&arguments)) }
    }
}

impl GatherRows {
    /// # Safety
    ///
    /// The rows are below `x_rows`.
    pub unsafe fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { x, rows, out, x_rows, out_rows, width } = *self;
        let kernel = "gather_rows";
        let arguments = GatherRowsArguments {
            x: x.of_f32(kernel, "x", u64::from(x_rows) * u64::from(width))?,
            rows: rows.of_u32(kernel, "rows", out_rows.into())?,
            out: out.of_f32(kernel, "out", u64::from(out_rows) * u64::from(width))?,
            width,
            _end: 0,
        };
        let shape = LaunchShape { grid: [out_rows, 1, 1], threads: THREADS };
        // SAFETY: every operand is as long as its shape says, the caller vouches for the rows, and a row of `out` is one block's.
        unsafe { device.launch(kernel, shape, bytes_of(&arguments)) }
    }
}

impl Rope {
    pub fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { x, rotations, rows, heads, head_dim } = *self;
        let kernel = "rope";
        if head_dim == 0 || head_dim % 2 == 1 {
            let got = head_dim as usize;
            return Err(DeviceError::Shape { kernel, what: "size of a head", got, wanted: "even" });
        }
        let all_heads = u64::from(rows) * u64::from(heads);
        let arguments = RopeArguments {
            x: x.of_f32(kernel, "x", all_heads * u64::from(head_dim))?,
            rotations: rotations.of_f32(kernel, "rotations", u64::from(rows) * u64::from(head_dim))?,
            pairs: all_heads * u64::from(head_dim / 2),
            heads,
            head_dim,
        };
        let grid = [blocks(kernel, arguments.pairs, THREADS)?, 1, 1];
        // SAFETY: both operands are as long as their shapes say; a pair is one thread's.
        unsafe { device.launch(kernel, LaunchShape { grid, threads: THREADS }, bytes_of(&arguments)) }
    }
}
