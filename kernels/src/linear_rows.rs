#![expect(unsafe_code, reason = "a launch")]

use sparkherd_checkpoint::Dtype;

use crate::device::{Device, DeviceError, DeviceMemory, LaunchShape, blocks, bytes_of};
use crate::format::{kernel_of, row_bytes};

const THREADS: u32 = 256;
/// What a thread reads and writes at once begins at multiples of it, where rows have whole ones.
const WORD_BYTES: u64 = 16;
/// Up to so many rows tiles are small. 128 rows of a product of 4096 outputs are 32 large tiles, and a GB10 has 48 multiprocessors;
/// with half as many rows, half of each tile would be nobody's besides.
const SMALL_ROWS_MAX: u32 = 64;
/// Inputs that large tiles have whole.
const RUN: u32 = 8;

/// What a block computes: `Large` and `Small` of `linear_rows.cu`.
struct Tile {
    kernel: &'static str,
    rows: u32,
    outputs: u32,
}

/// `out = x · weightᵀ` for many rows, both rounded to BF16 and added up in f32.
#[derive(Clone, Copy, Debug)]
pub struct LinearRows {
    /// `[rows, inputs]` f32, from a multiple of 16 bytes
    pub x: DeviceMemory,
    /// `[outputs, inputs]`, from a multiple of 16 bytes
    pub weight: DeviceMemory,
    pub dtype: Dtype,
    /// `[rows, outputs]` f32, apart from `x`, from a multiple of 16 bytes
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

impl Tile {
    const fn of(dtype: Dtype, rows: u32, inputs: u32) -> Self {
        if rows <= SMALL_ROWS_MAX || !inputs.is_multiple_of(RUN) {
            Self { kernel: kernel_of!("linear_rows", dtype, "_32"), rows: 32, outputs: 64 }
        } else {
            Self { kernel: kernel_of!("linear_rows", dtype, "_128"), rows: 128, outputs: 128 }
        }
    }
}

impl LinearRows {
    pub fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { x, weight, dtype, out, rows, inputs, outputs } = *self;
        let Tile { kernel, rows: tile_rows, outputs: tile_outputs } = Tile::of(dtype, rows, inputs);
        for (what, memory) in [
            ("address of x modulo 16", x),
            ("address of the weight modulo 16", weight),
            ("address of the result modulo 16", out),
        ] {
            let got = (memory.address() % WORD_BYTES) as usize;
            if got > 0 {
                return Err(DeviceError::Shape { kernel, what, got, wanted: "0" });
            }
        }
        let arguments = Arguments {
            x: x.of_f32(kernel, "x", u64::from(rows) * u64::from(inputs))?,
            weight: weight.holding(kernel, "weight", outputs.into(), row_bytes(kernel, dtype, inputs)?)?,
            out: out.of_f32(kernel, "out", u64::from(rows) * u64::from(outputs))?,
            rows,
            inputs,
            outputs,
            _end: 0,
        };
        let grid =
            [blocks(kernel, rows.into(), tile_rows)?, blocks(kernel, outputs.into(), tile_outputs)?, 1];
        // SAFETY: every operand is as long as its shape says, what lies beyond is not touched, and an output is written by one lane.
        // Words of 16 bytes are read only where rows have whole ones, from addresses that were checked.
        unsafe { device.launch(kernel, LaunchShape { grid, threads: THREADS }, bytes_of(&arguments)) }
    }
}
