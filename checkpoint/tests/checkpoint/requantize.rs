//! Which tensors become Q8_0, and the bytes that leaves.

use crate::gguf_file::File;
use crate::support::{Memory, config, safetensors, tensors};
use serde_json::{Value, json};
use sparkherd_checkpoint::{Checkpoint, ClaimedTensor, Dtype, Facts, Requantize};

/// Rows of 64 and of 40 elements.
fn model(tied: bool) -> Value {
    let mut config = config();
    for (key, value) in [("hidden_size", 64), ("intermediate_size", 40), ("num_hidden_layers", 1)] {
        config[key] = json!(value);
    }
    config["tie_word_embeddings"] = json!(tied);
    config
}

fn read(config: &Value) -> Checkpoint {
    let mut directory = Memory::checkpoint();
    directory.put("config.json", config.to_string());
    directory.put("model.safetensors", safetensors(&tensors(config)));
    Checkpoint::read(&directory).expect("valid")
}

fn becomes_q8_0(checkpoint: &Checkpoint) -> Vec<String> {
    let claimed = checkpoint.index.claim(&checkpoint.config).expect("complete");
    let is_rounded =
        |claimed: &&ClaimedTensor<'_>| Requantize::Int8.dtype(&checkpoint.config, claimed) == Dtype::Q8_0;
    claimed.iter().filter(is_rounded).map(|claimed| claimed.name.replace("model.layers.0.", "")).collect()
}

#[test]
fn multiplied_matrices_of_whole_blocks_are_rounded() {
    let multiplied = [
        "self_attn.q_proj.weight",
        "self_attn.k_proj.weight",
        "self_attn.v_proj.weight",
        "self_attn.o_proj.weight",
        // Not down_proj: its rows have 40 elements.
        "mlp.gate_proj.weight",
        "mlp.up_proj.weight",
    ];
    assert_eq!(becomes_q8_0(&read(&model(false))), [&multiplied[..], &["lm_head.weight"]].concat());
    assert_eq!(becomes_q8_0(&read(&model(true))), [&["model.embed_tokens.weight"], &multiplied[..]].concat());
}

#[test]
fn bytes_are_reckoned_as_they_will_lie() {
    let facts = read(&model(false)).inspection.facts;
    let padded = |bytes: u64| bytes.next_multiple_of(256);
    // Embedding of 32 × 64, three norms and down stay; q and o of 64 × 64, k and v of 32 × 64, gate and up of 40 × 64, and
    // the head do not.
    let kept = padded(32 * 64 * 2) + 3 * padded(128) + padded(64 * 40 * 2);
    let matrices = [64, 64, 32, 32, 40, 40, 32];
    let stored: u64 = matrices.iter().map(|rows| padded(rows * 64 * 2)).sum();
    let rounded: u64 = matrices.iter().map(|rows| padded(rows * 68)).sum();
    assert_eq!((facts.weight_bytes, facts.int8_weight_bytes), (kept + stored, Some(kept + rounded)));
}

#[test]
fn what_is_in_blocks_already_stays() {
    let mut directory = Memory::default();
    directory.put("model.gguf", File::llama().bytes());
    let facts = Checkpoint::read(&directory).expect("valid").inspection.facts;
    assert_eq!(facts.int8_weight_bytes, Some(facts.weight_bytes));
}

/// As agents of before wrote them into a status.
#[test]
fn facts_without_the_bytes_are_read() {
    let facts = read(&model(false)).inspection.facts;
    let mut written = serde_json::to_value(&facts).expect("serialises");
    written.as_object_mut().expect("object").remove("int8WeightBytes").expect("there");
    let old: Facts = serde_json::from_value(written).expect("reads");
    assert_eq!(old, Facts { int8_weight_bytes: None, ..facts });
}
