#![expect(unsafe_code, reason = "launches")]

use std::time::Duration;

use crate::device::{Device, DeviceError, DeviceMemory, LaunchShape, bytes_of};
use crate::driver::DriverError;
use crate::gpu::Gpu;

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

/// What a chip does at most, as far as our kernels can make it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChipLimits {
    /// Memory beyond all caches.
    pub read_bytes_per_second: f64,
    /// BF16 matrices in registers, multiplications and additions.
    pub bf16_operations_per_second: f64,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsExtent {
    pub read_bytes: usize,
    pub rounds: u32,
    pub launches: usize,
}

impl LimitsExtent {
    /// Within a second or two on any GPU: memory of many times the largest cache, 50 MiB on Hopper, and rounds that take long beside
    /// beginning and ending.
    pub const WHOLE: Self = Self { read_bytes: 2 << 30, rounds: 4096, launches: 30 };

    /// Of sides that are this part of the whole, where something slower than a GPU measures itself.
    #[must_use]
    pub const fn divided(self, divisor: u32) -> Self {
        let Self { read_bytes, rounds, launches } = self;
        let area = divisor as u64 * divisor as u64;
        let part = read_bytes as u64 / area;
        #[expect(clippy::cast_possible_truncation, reason = "a part of what was a size")]
        Self { read_bytes: part as usize, rounds: (rounds as u64).div_ceil(area) as u32, launches }
    }
}

/// Blocks of each multiprocessor: all the threads it has, or nearly.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 8;

impl ChipLimits {
    pub fn measure(gpu: &mut Gpu, extent: LimitsExtent) -> Result<Self, DeviceError> {
        let LimitsExtent { read_bytes, rounds, launches } = extent;
        let blocks = gpu.context().properties().multiprocessors * BLOCKS_PER_MULTIPROCESSOR;
        let from = gpu.allocate(read_bytes)?;
        let out = gpu.allocate(blocks as usize * THREADS as usize * size_of::<u32>())?;
        let read = ReadWords { from, out, blocks };
        let multiply = Multiply { out, blocks, rounds };
        let read_time = median_time(gpu, launches, |gpu| read.launch(gpu))?;
        let multiply_time = median_time(gpu, launches, |gpu| multiply.launch(gpu))?;
        Ok(Self {
            read_bytes_per_second: read.bytes() as f64 / read_time.as_secs_f64(),
            bf16_operations_per_second: multiply.operations() as f64 / multiply_time.as_secs_f64(),
        })
    }
}

/// What a launch takes, the first of which is not counted.
pub fn median_time<E: From<DriverError>>(
    gpu: &mut Gpu,
    launches: usize,
    mut launch: impl FnMut(&mut Gpu) -> Result<(), E>,
) -> Result<Duration, E> {
    launch(gpu)?;
    let mut times = Vec::with_capacity(launches);
    for _ in 0..launches.max(1) {
        times.push(gpu.measure(&mut launch)?);
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}
