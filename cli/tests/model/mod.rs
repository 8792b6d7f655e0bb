//! A tiny checkpoint on disk.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Map, Value, json};

/// Writes a Llama of one layer that has all an engine needs, filled with zeros.
pub(crate) fn write(directory: &Path) {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 4, "max_position_embeddings": 64,
        "tie_word_embeddings": true, "eos_token_id": 1,
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [],
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "d": 3}, "merges": []},
    });
    fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(directory.join("model.safetensors"), weights()).unwrap();
}

fn weights() -> Vec<u8> {
    let layer = [
        ("input_layernorm", vec![8]),
        ("self_attn.q_proj", vec![8, 8]),
        ("self_attn.k_proj", vec![8, 8]),
        ("self_attn.v_proj", vec![8, 8]),
        ("self_attn.o_proj", vec![8, 8]),
        ("post_attention_layernorm", vec![8]),
        ("mlp.gate_proj", vec![16, 8]),
        ("mlp.up_proj", vec![16, 8]),
        ("mlp.down_proj", vec![8, 16]),
    ];
    let layer = layer.map(|(name, shape)| (format!("model.layers.0.{name}.weight"), shape));
    let outer = [
        ("model.embed_tokens.weight".to_owned(), vec![4, 8]),
        ("model.norm.weight".to_owned(), vec![8_usize]),
    ];
    let (mut header, mut end) = (Map::new(), 0);
    for (name, shape) in layer.into_iter().chain(outer) {
        let begin = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(name, json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}));
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + end, 0);
    file
}

/// Runs the binary and waits for it.
pub(crate) fn sparkherd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sparkherd")).args(arguments).output().unwrap()
}
