//! Seeded operands: what memory holds by itself may be zeros, which cost less power, or no numbers.

use half::{bf16, f16};
use sparkherd_checkpoint::Dtype;
use sparkherd_engine::backend::cases::Random;
use sparkherd_kernels::{Device as _, DeviceMemory, Gpu, KvDtype};

use super::BenchError;

/// Drawn once and repeated: beyond what neighbouring lanes read, nothing shows that it is the same again.
const DRAWN_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Noise(Random);

impl Noise {
    pub(super) const fn new() -> Self {
        Self(Random::new(3))
    }

    /// A matrix in any format; values of size 1, in blocks of a size near 1.
    pub(super) fn matrix(
        &mut self,
        gpu: &mut Gpu,
        dtype: Dtype,
        [rows, columns]: [u32; 2],
    ) -> Result<DeviceMemory, BenchError> {
        let row_bytes = dtype.row_bytes(columns.into()).map_err(|_| BenchError::Size("a row of a matrix"))?;
        let bytes = bytes_of(u64::from(rows) * row_bytes)?;
        let drawn = self.drawn(dtype, bytes);
        filled(gpu, bytes, &drawn)
    }

    /// Values from −1 to 1.
    pub(super) fn floats(
        &mut self,
        gpu: &mut Gpu,
        [rows, columns]: [u32; 2],
    ) -> Result<DeviceMemory, BenchError> {
        self.matrix(gpu, Dtype::F32, [rows, columns])
    }

    /// A pool of so many bytes.
    pub(super) fn pool(
        &mut self,
        gpu: &mut Gpu,
        dtype: KvDtype,
        bytes: u64,
    ) -> Result<DeviceMemory, BenchError> {
        let bytes = bytes_of(bytes)?;
        let drawn = match dtype {
            KvDtype::F32 => self.drawn(Dtype::F32, bytes),
            KvDtype::Bf16 => self.drawn(Dtype::Bf16, bytes),
            // Without the exponent's highest bit: below 2, and never what is no number.
            KvDtype::Fp8 => (0..DRAWN_BYTES.min(bytes)).map(|_| self.byte() & 0xbf).collect(),
        };
        filled(gpu, bytes, &drawn)
    }

    /// Whole blocks, as many as are worth drawing.
    fn drawn(&mut self, dtype: Dtype, bytes: usize) -> Vec<u8> {
        let block_bytes = dtype.block_bytes() as usize;
        let blocks = DRAWN_BYTES.min(bytes).div_ceil(block_bytes);
        (0..blocks).flat_map(|_| self.block(dtype)).collect()
    }

    fn block(&mut self, dtype: Dtype) -> Vec<u8> {
        let value = self.0.value();
        // Any bytes are numbers of a format in blocks; its scales make them so small that their products are of size 1.
        let (scale_places, range): (&[usize], f32) = match dtype {
            Dtype::F32 => return value.to_le_bytes().to_vec(),
            Dtype::F16 => return f16::from_f32(value).to_le_bytes().to_vec(),
            Dtype::Bf16 => return bf16::from_f32(value).to_le_bytes().to_vec(),
            Dtype::Q8_0 => (&[0], 128.0),
            Dtype::Q4_0 => (&[0], 8.0),
            Dtype::Q4K => (&[0, 2], 64.0 * 16.0),
            Dtype::Q6K => (&[208], 32.0 * 128.0),
        };
        let mut block: Vec<u8> = (0..dtype.block_bytes()).map(|_| self.byte()).collect();
        for place in scale_places {
            block[*place..*place + 2].copy_from_slice(&f16::from_f32(value / range).to_le_bytes());
        }
        block
    }

    fn byte(&mut self) -> u8 {
        self.0.below(256) as u8
    }
}

/// So many numbers as they are.
pub(super) fn numbers(gpu: &mut Gpu, numbers: &[u32]) -> Result<DeviceMemory, BenchError> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    filled(gpu, bytes.len(), &bytes)
}

/// So many bytes of these, over and over.
fn filled(gpu: &mut Gpu, bytes: usize, drawn: &[u8]) -> Result<DeviceMemory, BenchError> {
    let memory = gpu.allocate(bytes)?;
    for start in (0..bytes).step_by(drawn.len().max(1)) {
        let part = drawn.len().min(bytes - start);
        gpu.write(memory.part(start, part)?, &drawn[..part])?;
    }
    Ok(memory)
}

fn bytes_of(bytes: u64) -> Result<usize, BenchError> {
    usize::try_from(bytes).map_err(|_| BenchError::Size("memory"))
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use sparkherd_checkpoint::Dtype;

    use super::Noise;

    #[test]
    fn numbers_are_finite_small_and_not_all_the_same() {
        let mut noise = Noise::new();
        let floats: Vec<f32> = noise
            .drawn(Dtype::Bf16, 2000)
            .as_chunks()
            .0
            .iter()
            .map(|bytes| bf16::from_le_bytes(*bytes).to_f32())
            .collect();
        assert_eq!(floats.len(), 1000);
        assert!(floats.iter().all(|value| value.abs() <= 1.0));
        assert!(floats.iter().any(|value| *value > 0.5) && floats.iter().any(|value| *value < -0.5));
    }

    #[test]
    fn scales_of_blocks_are_numbers_whatever_their_bytes() {
        let mut noise = Noise::new();
        for (dtype, place) in [(Dtype::Q8_0, 0), (Dtype::Q4_0, 0), (Dtype::Q4K, 2), (Dtype::Q6K, 208)] {
            let drawn = noise.drawn(dtype, 100_000);
            let blocks = drawn.chunks_exact(dtype.block_bytes() as usize);
            assert!(blocks.remainder().is_empty());
            for block in blocks {
                let scale = f16::from_le_bytes([block[place], block[place + 1]]).to_f32();
                assert!(scale.abs() <= 1.0 / 8.0, "{dtype:?}: {scale}");
            }
        }
    }
}
