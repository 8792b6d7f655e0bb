//! Whole decode steps of a model with random weights, one by one and recorded.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use sparkherd_engine::backend::cuda::CudaLimits;
use sparkherd_engine::{Batch, BatchSequence, ForwardPass, LoadedModel, Wants, load_model_on_device};
use sparkherd_footprint::KvDtype;
use sparkherd_kernels::{DriverError, Gpu};

use super::{BenchError, Extent, speed};
use crate::models::{CUDA, config_of};
use crate::report::{Limits, Rate, Speed};

/// A model of 1.5 B parameters, 3 GB in BF16: large enough that no cache helps, small enough to be written and read in seconds.
const LAYERS: u32 = 24;
const HIDDEN: u32 = 2048;
const INTERMEDIATE: u32 = 8192;
const VOCABULARY: u32 = 32_768;
const HEAD_DIM: u32 = 128;
const KV_HEADS: u32 = 8;
const CONTEXT: u32 = 1024;
/// Tokens that each sequence has before.
const DEPTH: u32 = 512;
const SEQUENCES: [u32; 2] = [1, 8];

/// Sizes of the model, of its own or smaller.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    layers: u32,
    hidden: u32,
    intermediate: u32,
    vocabulary: u32,
    context: u32,
}

pub(super) fn all(
    gpu: &dyn Fn() -> Result<Gpu, DriverError>,
    extent: Extent,
    limits: &Limits,
) -> Result<Vec<Speed>, BenchError> {
    let sizes = Sizes {
        layers: LAYERS.div_ceil(extent.divisor),
        hidden: extent.size(HIDDEN),
        intermediate: extent.size(INTERMEDIATE),
        vocabulary: extent.size(VOCABULARY),
        context: extent.size(CONTEXT),
    };
    let directory = tempfile::tempdir().map_err(|error| BenchError::Step(error.to_string()))?;
    write_checkpoint(directory.path(), sizes).map_err(|error| BenchError::Step(error.to_string()))?;
    let mut speeds = Vec::new();
    for sequences in SEQUENCES {
        for (recorded, name) in [(false, "decode step, launches"), (true, "decode step, recorded")] {
            let mut model = load(directory.path(), gpu()?, sequences, recorded)?;
            let took = steps(&mut model, sizes, sequences, extent)?;
            // Keys and values are few beside the weights at this depth, and are not counted.
            let weights_bytes = model.footprint().parts.weights_bytes as f64;
            let read_bytes = weights_bytes - f64::from(sizes.vocabulary) * f64::from(sizes.hidden) * 2.0;
            let rate = Rate::of_bytes(read_bytes, took);
            speeds.push(speed(name, format!("{sequences} at {}", sizes.context / 2), took, rate, limits));
        }
    }
    Ok(speeds)
}

fn load(directory: &Path, gpu: Gpu, sequences: u32, recorded: bool) -> Result<LoadedModel, BenchError> {
    let config = config_of(directory, KvDtype::Bf16, CUDA, sequences);
    let limits = |limits: CudaLimits| {
        let recorded_rows = if recorded { limits.recorded_rows } else { 0 };
        CudaLimits { recorded_rows, ..limits }
    };
    load_model_on_device(&config, gpu, limits, &mut |_| {})
        .map_err(|error| BenchError::Step(error.to_string()))
}

/// A step of one token of each sequence, as the host sees it: from the numbers it sends to the logits it has.
fn steps(
    model: &mut LoadedModel,
    sizes: Sizes,
    sequences: u32,
    extent: Extent,
) -> Result<Duration, BenchError> {
    let depth = DEPTH.min(sizes.context / 2);
    let blocks = sizes.context / 16;
    let parts = |sequence: u32| BatchSequence {
        token_count: 1,
        position: depth,
        block_table: (sequence * blocks..(sequence + 1) * blocks).collect(),
        wants: Wants::LastLogits,
    };
    let tokens = (0..sequences).map(|sequence| sequence * 7 % sizes.vocabulary).collect();
    let batch = Batch { tokens, sequences: (0..sequences).map(parts).collect() };
    let mut times = Vec::with_capacity(extent.launches);
    for _ in 0..=extent.launches {
        let begin = Instant::now();
        model.forward(&batch).map_err(|error| BenchError::Step(error.to_string()))?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// Weights are a block of random numbers over and over, small enough that sums stay finite.
fn write_checkpoint(directory: &Path, sizes: Sizes) -> std::io::Result<()> {
    let Sizes { layers, hidden, intermediate, vocabulary, context } = sizes;
    let query = hidden;
    let heads = (query / HEAD_DIM).max(1);
    let kv_heads = KV_HEADS.min(heads);
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": query / heads,
        "vocab_size": vocabulary, "max_position_embeddings": context, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    });
    std::fs::write(directory.join("config.json"), config.to_string())?;
    // Nobody speaks to it; a checkpoint has one.
    std::fs::write(directory.join("tokenizer.json"), "{}")?;
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocabulary, hidden]),
        ("lm_head.weight".to_owned(), vec![vocabulary, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    let kv = kv_heads * (query / heads);
    for layer in 0..layers {
        let parts: [(&str, &[u32]); 9] = [
            ("input_layernorm", &[hidden]),
            ("self_attn.q_proj", &[query, hidden]),
            ("self_attn.k_proj", &[kv, hidden]),
            ("self_attn.v_proj", &[kv, hidden]),
            ("self_attn.o_proj", &[hidden, query]),
            ("post_attention_layernorm", &[hidden]),
            ("mlp.gate_proj", &[intermediate, hidden]),
            ("mlp.up_proj", &[intermediate, hidden]),
            ("mlp.down_proj", &[hidden, intermediate]),
        ];
        tensors.extend(
            parts.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape.to_vec())),
        );
    }
    write_safetensors(&directory.join("model.safetensors"), &tensors)
}

fn write_safetensors(path: &Path, tensors: &[(String, Vec<u32>)]) -> std::io::Result<()> {
    let (mut header, mut offset) = (serde_json::Map::new(), 0_u64);
    for (name, shape) in tensors {
        let bytes = 2 * shape.iter().map(|size| u64::from(*size)).product::<u64>();
        let entry =
            serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + bytes]});
        header.insert(name.clone(), entry);
        offset += bytes;
    }
    let header = serde_json::Value::from(header).to_string();
    let mut file = File::create(path)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let noise = noise();
    while offset > 0 {
        let part = noise.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        file.write_all(&noise[..part])?;
        offset -= part as u64;
    }
    Ok(())
}

/// BF16 between 2⁻⁸ and 2⁻⁷, of both signs: a row of 2048 has a length of some 0.3.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let numbers = (0..1 << 20).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let bits = (state & 0x80ff) as u16 | 0x3b80;
        bits.to_le_bytes()
    });
    numbers.collect()
}
