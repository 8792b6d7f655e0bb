//! A tiny seeded Llama checkpoint, written with the `safetensors` crate.

use std::{collections::BTreeMap, path::Path};

use half::bf16;
use sparkherd_engine::backend::cases::{LlamaSizes, Random};

pub(crate) const VOCAB_SIZE: usize = 131;
pub(crate) const CONTEXT: usize = 256;
/// No multiples of lanes, tiles or blocks.
const SIZES: LlamaSizes = LlamaSizes {
    vocabulary: VOCAB_SIZE,
    context: CONTEXT,
    hidden: 50,
    heads: 6,
    kv_heads: 2,
    head_dim: 20,
    intermediate: 101,
    layers: 3,
};

/// Tensors by name: shape and values.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub(crate) fn tensors(seed: u64) -> Tensors {
    let mut random = Random::new(seed);
    let mut tensors = Tensors::new();
    for (name, [rows, columns]) in SIZES.matrices() {
        // Outputs of about the inputs' size, so that layer upon layer nothing fades or explodes.
        let scale = (3.0 / columns as f32).sqrt();
        let values = random.values(rows * columns).into_iter().map(|value| value * scale).collect();
        tensors.insert(name, (vec![rows, columns], values));
    }
    for name in SIZES.norms() {
        let values = random.values(SIZES.hidden).into_iter().map(|value| 1.0 + value / 4.0).collect();
        tensors.insert(name, (vec![SIZES.hidden], values));
    }
    tensors
}

/// Writes all of the checkpoint, the tensors as BF16.
pub(crate) fn write(directory: &Path, tensors: &Tensors) {
    let bytes =
        |values: &[f32]| values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
    let stored: Vec<(&str, &[usize], Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| (name.as_str(), shape.as_slice(), bytes(values)))
        .collect();
    let views = stored.iter().map(|(name, shape, bytes)| (*name, shape.to_vec(), bytes.as_slice()));
    SIZES.write(directory, views).unwrap();
}
