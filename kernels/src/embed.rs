#![expect(unsafe_code, reason = "a launch")]

use sparkherd_checkpoint::Dtype;

use crate::device::{Device, DeviceError, DeviceMemory, LaunchShape, bytes_of};
use crate::format::{kernel_of, row_bytes};

/// `out[t] = table[tokens[t]]`, widened.
#[derive(Clone, Copy, Debug)]
pub struct Embed {
    /// `[rows]` u32, each below `vocabulary`.
    pub tokens: DeviceMemory,
    /// `[vocabulary, width]`
    pub table: DeviceMemory,
    pub dtype: Dtype,
    /// `[rows, width]` f32
    pub out: DeviceMemory,
    pub rows: u32,
    pub vocabulary: u32,
    pub width: u32,
}

#[repr(C)]
struct Arguments {
    tokens: u64,
    table: u64,
    out: u64,
    width: u32,
    _end: u32,
}

const THREADS: u32 = 256;

impl Embed {
    /// # Safety
    ///
    /// The tokens are below `vocabulary`.
    pub unsafe fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { tokens, table, dtype, out, rows, vocabulary, width } = *self;
        let kernel = kernel_of!("embed", dtype);
        let row_bytes = row_bytes(kernel, dtype, width)?;
        let arguments = Arguments {
            tokens: tokens.of_u32(kernel, "tokens", rows.into())?,
            table: table.holding(kernel, "table", vocabulary.into(), row_bytes)?,
            out: out.of_f32(kernel, "out", u64::from(rows) * u64::from(width))?,
            width,
            _end: 0,
        };
        let shape = LaunchShape { grid: [rows, 1, 1], threads: THREADS };
        // SAFETY: every operand is as long as its shape says, the caller vouches for the tokens, and rows of `out` are written by
        // a block each.
        unsafe { device.launch(kernel, shape, bytes_of(&arguments)) }
    }
}
