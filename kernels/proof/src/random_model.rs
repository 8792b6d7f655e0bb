//! A model of real size with random weights: its speed and its memory are those of a trained one.

use std::io;
use std::path::Path;

use half::bf16;
use sparkherd_engine::backend::cases::{LlamaSizes, Random};
use tempfile::TempDir;

/// 1.5 B parameters, 3 GB in BF16: large enough that no cache helps, small enough to be written and read in seconds.
const SIZES: LlamaSizes = LlamaSizes {
    vocabulary: 32_768,
    context: 1024,
    hidden: 2048,
    heads: 16,
    kv_heads: 8,
    head_dim: 128,
    intermediate: 8192,
    layers: 24,
};
/// Weights lie between −1/64 and 1/64: a row of 2048 has a length of some 0.4, so that sums stay finite.
const WEIGHT_MAX: f32 = 1.0 / 64.0;

/// Gone from the disk with this.
#[derive(Debug)]
pub struct RandomModel {
    directory: TempDir,
    sizes: LlamaSizes,
}

impl RandomModel {
    /// Writes it with sizes divided by `divisor`, still of whole tiles and blocks.
    pub fn write(divisor: u32) -> io::Result<Self> {
        let divisor = divisor as usize;
        let size = |whole: usize| (whole / divisor).next_multiple_of(256);
        let hidden = size(SIZES.hidden);
        let heads = (hidden / SIZES.head_dim).max(1);
        let sizes = LlamaSizes {
            vocabulary: size(SIZES.vocabulary),
            context: size(SIZES.context),
            hidden,
            heads,
            kv_heads: SIZES.kv_heads.min(heads),
            head_dim: SIZES.head_dim,
            intermediate: size(SIZES.intermediate),
            layers: SIZES.layers.div_ceil(divisor),
        };
        let directory = tempfile::tempdir()?;
        let shapes = sizes.matrices().into_iter().map(|(name, shape)| (name, shape.to_vec()));
        let norms = sizes.norms().into_iter().map(|name| (name, vec![hidden]));
        let tensors: Vec<(String, Vec<usize>)> = shapes.chain(norms).collect();
        let elements = |shape: &[usize]| shape.iter().product::<usize>();
        let largest = tensors.iter().map(|(_, shape)| elements(shape)).max().unwrap_or(0);
        // One and the same for all: nobody looks for sense in them.
        let noise = noise(largest);
        let views = tensors.iter().map(|(name, shape)| {
            (name.as_str(), shape.clone(), &noise[..elements(shape) * size_of::<bf16>()])
        });
        sizes.write(directory.path(), views)?;
        Ok(Self { directory, sizes })
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) const fn sizes(&self) -> LlamaSizes {
        self.sizes
    }
}

fn noise(elements: usize) -> Vec<u8> {
    let mut random = Random::new(1);
    (0..elements).flat_map(|_| bf16::from_f32(random.value() * WEIGHT_MAX).to_le_bytes()).collect()
}
