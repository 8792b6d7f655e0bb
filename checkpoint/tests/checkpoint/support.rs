//! A small valid checkpoint in memory, to be spoiled by each test in its own way.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde_json::{Value, json};
use sparkherd_checkpoint::{Files, ModelConfig, expected_tensors};

/// A Llama of 2 layers, as transformers 4 writes it.
pub fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 8,
        "initializer_range": 0.02,
        "intermediate_size": 16,
        "max_position_embeddings": 256,
        "mlp_bias": false,
        "model_type": "llama",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-5,
        "rope_scaling": null,
        "rope_theta": 500_000.0,
        "tie_word_embeddings": false,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.46.0",
        "use_cache": true,
        "vocab_size": 32
    })
}

/// [`config`] with one key replaced, or removed by null.
pub fn config_with(key: &str, value: Value) -> Value {
    let mut config = config();
    config[key] = value;
    config
}

pub fn parsed(config: &Value) -> ModelConfig {
    ModelConfig::parse(config.to_string().as_bytes()).expect("test configuration is valid")
}

/// A safetensors file of these tensors, filled with zeros.
pub fn safetensors(tensors: &[(String, &str, Vec<u64>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut end = 0;
    for (name, dtype, shape) in tensors {
        let element_bytes = if *dtype == "F32" { 4 } else { 2 };
        let begin = end;
        end += shape.iter().product::<u64>() * element_bytes;
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}));
    }
    file_of(&Value::Object(header).to_string(), end)
}

/// A file of this header and so many bytes of data.
pub fn file_of(header: &str, data_bytes: u64) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + usize::try_from(data_bytes).expect("small"), 0);
    file
}

/// All tensors that the configuration asks for, in BF16.
pub fn tensors(config: &Value) -> Vec<(String, &'static str, Vec<u64>)> {
    expected_tensors(&parsed(config)).into_iter().map(|tensor| (tensor.name, "BF16", tensor.shape)).collect()
}

/// A directory in memory.
#[derive(Clone, Debug, Default)]
pub struct Memory(pub BTreeMap<String, Vec<u8>>);

impl Memory {
    /// The small checkpoint in one weight file.
    pub fn checkpoint() -> Self {
        let mut directory = Self::default();
        directory.put("config.json", config().to_string());
        directory.put("tokenizer.json", "{}");
        directory.put("model.safetensors", safetensors(&tensors(&config())));
        directory
    }

    /// The same in two shards, the first with `first` tensors.
    pub fn sharded(first: usize) -> Self {
        let mut directory = Self::checkpoint();
        directory.0.remove("model.safetensors");
        let tensors = tensors(&config());
        let (left, right) = tensors.split_at(first);
        let mut weight_map = serde_json::Map::new();
        for (file, shard) in [("model-1-of-2.safetensors", left), ("model-2-of-2.safetensors", right)] {
            directory.put(file, safetensors(shard));
            weight_map.extend(shard.iter().map(|(name, ..)| (name.clone(), json!(file))));
        }
        let index = json!({"metadata": {"total_size": 0}, "weight_map": weight_map});
        directory.put("model.safetensors.index.json", index.to_string());
        directory
    }

    pub fn put(&mut self, name: &str, content: impl Into<Vec<u8>>) {
        self.0.insert(name.to_owned(), content.into());
    }

    fn file(&self, name: &str) -> io::Result<&Vec<u8>> {
        self.0.get(name).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such file"))
    }
}

impl Files for Memory {
    fn names(&self) -> io::Result<BTreeSet<String>> {
        Ok(self.0.keys().cloned().collect())
    }

    fn bytes(&self, name: &str) -> io::Result<u64> {
        Ok(self.file(name)?.len() as u64)
    }

    fn range(&self, name: &str, offset: u64, limit: u64) -> io::Result<Vec<u8>> {
        let content = self.file(name)?;
        let cut = |at: u64| content.len().min(usize::try_from(at).expect("fits"));
        Ok(content[cut(offset)..cut(offset + limit)].to_vec())
    }
}
