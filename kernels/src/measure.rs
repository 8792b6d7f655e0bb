#![expect(unsafe_code, reason = "launches")]

use crate::device::{Device, DeviceError, DeviceMemory, LaunchShape, bytes_of};

const THREADS: u32 = 256;
const WORD_BYTES: u64 = 16;
/// Of a product of a warp: 16 × 16 by 16 × 8, a multiplication and an addition each.
const PRODUCT_OPERATIONS: u64 = 2 * 16 * 16 * 8;
/// Products that a warp has under way, in one round.
const CHAINS: u64 = 8;
const WARP: u64 = 32;

/// Reads memory once, as fast as it can be read: `out[thread]` is the xor of the 32-bit words that the thread has read.
#[derive(Clone, Copy, Debug)]
pub struct ReadWords {
    /// From a multiple of 16 bytes; what is left behind whole words of 16 is not read.
    pub from: DeviceMemory,
    /// `[blocks · 256]` u32
    pub out: DeviceMemory,
    pub blocks: u32,
}

/// Multiplies matrices that are in registers, as fast as they can be multiplied: `out[thread]` is 16 · 4 · 8 · rounds.
#[derive(Clone, Copy, Debug)]
pub struct Multiply {
    /// `[blocks · 256]` f32
    pub out: DeviceMemory,
    pub blocks: u32,
    pub rounds: u32,
}

#[repr(C)]
struct ReadWordsArguments {
    from: u64,
    out: u64,
    words: u64,
}

#[repr(C)]
struct MultiplyArguments {
    out: u64,
    rounds: u32,
    _end: u32,
}

impl ReadWords {
    /// Of one launch.
    pub const fn bytes(&self) -> u64 {
        self.from.bytes() as u64 / WORD_BYTES * WORD_BYTES
    }

    pub fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { from, out, blocks } = *self;
        let kernel = "read_words";
        let got = (from.address() % WORD_BYTES) as usize;
        if got > 0 {
            let what = "address modulo 16";
            return Err(DeviceError::Shape { kernel, what, got, wanted: "0" });
        }
        let threads = u64::from(blocks) * u64::from(THREADS);
        let out = out.of_u32(kernel, "out", threads)?;
        let words = self.bytes() / WORD_BYTES;
        let arguments = ReadWordsArguments { from: from.address(), out, words };
        let shape = LaunchShape { grid: [blocks, 1, 1], threads: THREADS };
        // SAFETY: no word beyond `words` is read, and each thread writes its own place, of which there are enough.
        unsafe { device.launch(kernel, shape, bytes_of(&arguments)) }
    }
}

impl Multiply {
    /// Additions and multiplications of one launch.
    pub const fn operations(&self) -> u64 {
        let warps = self.blocks as u64 * (THREADS as u64 / WARP);
        warps * self.rounds as u64 * CHAINS * PRODUCT_OPERATIONS
    }

    pub fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { out, blocks, rounds } = *self;
        let kernel = "multiply";
        let threads = u64::from(blocks) * u64::from(THREADS);
        let arguments = MultiplyArguments { out: out.of_f32(kernel, "out", threads)?, rounds, _end: 0 };
        let shape = LaunchShape { grid: [blocks, 1, 1], threads: THREADS };
        // SAFETY: each thread writes its own place, of which there are enough.
        unsafe { device.launch(kernel, shape, bytes_of(&arguments)) }
    }
}
