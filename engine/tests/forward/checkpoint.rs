//! A tiny seeded Llama checkpoint, written with the `safetensors` crate.

use std::{collections::BTreeMap, fs, path::Path};

use half::bf16;
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};
use serde_json::json;

use sparkherd_engine::backend::cases::Random;

pub(crate) const VOCAB_SIZE: usize = 131;
pub(crate) const CONTEXT: usize = 256;
const HIDDEN: usize = 50;
const HEADS: usize = 6;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 20;
const INTERMEDIATE: usize = 101;
const LAYERS: usize = 3;

/// Tensors by name: shape and values. Sizes are no multiple of lanes, tiles or blocks.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub(crate) fn tensors(seed: u64) -> Tensors {
    let mut random = Random::new(seed);
    let mut tensors = Tensors::new();
    let mut matrix = |name: String, rows: usize, columns: usize| {
        // Outputs of about the inputs' size, so that layer upon layer nothing fades or explodes.
        let scale = (3.0 / columns as f32).sqrt();
        let values = random.values(rows * columns).into_iter().map(|value| value * scale).collect();
        tensors.insert(name, (vec![rows, columns], values));
    };
    matrix("model.embed_tokens.weight".to_owned(), VOCAB_SIZE, HIDDEN);
    matrix("lm_head.weight".to_owned(), VOCAB_SIZE, HIDDEN);
    for layer in 0..LAYERS {
        for (name, rows, columns) in [
            ("self_attn.q_proj", HEADS * HEAD_DIM, HIDDEN),
            ("self_attn.k_proj", KV_HEADS * HEAD_DIM, HIDDEN),
            ("self_attn.v_proj", KV_HEADS * HEAD_DIM, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HEADS * HEAD_DIM),
            ("mlp.gate_proj", INTERMEDIATE, HIDDEN),
            ("mlp.up_proj", INTERMEDIATE, HIDDEN),
            ("mlp.down_proj", HIDDEN, INTERMEDIATE),
        ] {
            matrix(format!("model.layers.{layer}.{name}.weight"), rows, columns);
        }
    }
    let mut norm = |name: String| {
        let values = random.values(HIDDEN).into_iter().map(|value| 1.0 + value / 4.0).collect();
        tensors.insert(name, (vec![HIDDEN], values));
    };
    norm("model.norm.weight".to_owned());
    for layer in 0..LAYERS {
        norm(format!("model.layers.{layer}.input_layernorm.weight"));
        norm(format!("model.layers.{layer}.post_attention_layernorm.weight"));
    }
    tensors
}

/// Writes `config.json`, the tensors as BF16, and a stand-in for the tokenizer, of which loading needs only the size.
pub(crate) fn write(directory: &Path, tensors: &Tensors) {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM,
        "vocab_size": VOCAB_SIZE, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    fs::write(directory.join("tokenizer.json"), "{}").unwrap();
    let stored: BTreeMap<&str, (&[usize], Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            let bytes = values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
            (name.as_str(), (shape.as_slice(), bytes))
        })
        .collect();
    let views = stored
        .iter()
        .map(|(name, (shape, bytes))| (*name, TensorView::new(Dtype::BF16, shape.to_vec(), bytes).unwrap()));
    serialize_to_file(views, None, &directory.join("model.safetensors")).unwrap();
}
