//! A seeded random Llama of about half a gigabyte. Most of it is embedding, which costs memory but hardly any arithmetic,
//! so that the test measures bytes without waiting for products.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;

use serde_json::{Map, Value, json};

const HIDDEN: u64 = 1024;
const INTERMEDIATE: u64 = 2816;
const KV_WIDTH: u64 = 256;
const VOCABULARY: u64 = 98_304;
const LAYERS: u64 = 5;

pub(crate) fn write(directory: &Path) {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS, "num_attention_heads": 16,
        "num_key_value_heads": 4, "head_dim": 64, "vocab_size": VOCABULARY, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": VOCABULARY - 1,
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    fs::write(directory.join("tokenizer.json"), tokenizer().to_string()).unwrap();
    write_weights(&directory.join("model.safetensors"));
}

/// A token a byte, in the alphabet of byte-level BPE: printable bytes are themselves, the others follow U+0100. Then words that
/// each are another token and a letter, as many as the vocabulary has room for.
fn tokenizer() -> Value {
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (0..256).filter(|byte| !printable(byte)).zip(256..);
    let letters = (0..256).filter(printable).map(|byte| (byte, byte)).chain(others);
    let mut vocabulary: Map<String, Value> =
        letters.map(|(byte, letter)| (char::from_u32(letter).unwrap().to_string(), json!(byte))).collect();
    let alphabet: Vec<char> = ('a'..='z').collect();
    let mut words: Vec<String> = alphabet.iter().map(char::to_string).collect();
    let mut merges = Vec::new();
    while (vocabulary.len() as u64) < VOCABULARY {
        // Five of 26 letters behind each word, other ones behind the next.
        let parent = words[merges.len() / 5].clone();
        let letter = alphabet[merges.len() * 5 % alphabet.len()];
        let word = format!("{parent}{letter}");
        vocabulary.insert(word.clone(), json!(vocabulary.len()));
        merges.push(json!([parent, letter]));
        words.push(word);
    }
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    })
}

fn tensors() -> Vec<(String, Vec<u64>)> {
    let layer = [
        ("input_layernorm", vec![HIDDEN]),
        ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
        ("self_attn.k_proj", vec![KV_WIDTH, HIDDEN]),
        ("self_attn.v_proj", vec![KV_WIDTH, HIDDEN]),
        ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
        ("post_attention_layernorm", vec![HIDDEN]),
        ("mlp.gate_proj", vec![INTERMEDIATE, HIDDEN]),
        ("mlp.up_proj", vec![INTERMEDIATE, HIDDEN]),
        ("mlp.down_proj", vec![HIDDEN, INTERMEDIATE]),
    ];
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN])];
    for index in 0..LAYERS {
        let named =
            |(name, shape): &(&str, Vec<u64>)| (format!("model.layers.{index}.{name}.weight"), shape.clone());
        tensors.extend(layer.iter().map(named));
    }
    tensors.push(("model.norm.weight".to_owned(), vec![HIDDEN]));
    tensors.push(("lm_head.weight".to_owned(), vec![VOCABULARY, HIDDEN]));
    tensors
}

fn write_weights(path: &Path) {
    let (mut header, mut end) = (Map::new(), 0);
    for (name, shape) in tensors() {
        let begin = end;
        end += 2 * shape.iter().product::<u64>();
        header.insert(name, json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}));
    }
    let header = Value::Object(header).to_string();
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    // xorshift64 (Marsaglia 2003), four numbers a step: random sign and significand, magnitude 1/64 to 1/32.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..end / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let quad = state & 0x807f_807f_807f_807f | 0x3c80_3c80_3c80_3c80;
        file.write_all(&quad.to_le_bytes()).unwrap();
    }
    assert_eq!(end % 8, 0);
    file.into_inner().unwrap();
}
