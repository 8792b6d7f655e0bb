//! Files of a Llama of any size, for random weights: the checkpoint of the tests, and the one whose speed is measured on a GPU.

use std::{fs, io, path::Path};

use safetensors::{Dtype, serialize_to_file, tensor::TensorView};
use serde_json::json;

/// Its embedding and its head are matrices of their own.
#[derive(Clone, Copy, Debug)]
pub struct LlamaSizes {
    pub vocabulary: usize,
    pub context: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub intermediate: usize,
    pub layers: usize,
}

impl LlamaSizes {
    /// Names, rows and columns.
    pub fn matrices(&self) -> Vec<(String, [usize; 2])> {
        let Self { vocabulary, context: _, hidden, heads, kv_heads, head_dim, intermediate, layers } = *self;
        let (query, kv) = (heads * head_dim, kv_heads * head_dim);
        let of_layer = [
            ("self_attn.q_proj", [query, hidden]),
            ("self_attn.k_proj", [kv, hidden]),
            ("self_attn.v_proj", [kv, hidden]),
            ("self_attn.o_proj", [hidden, query]),
            ("mlp.gate_proj", [intermediate, hidden]),
            ("mlp.up_proj", [intermediate, hidden]),
            ("mlp.down_proj", [hidden, intermediate]),
        ];
        let mut matrices = vec![
            ("model.embed_tokens.weight".to_owned(), [vocabulary, hidden]),
            ("lm_head.weight".to_owned(), [vocabulary, hidden]),
        ];
        for layer in 0..layers {
            let named = |(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape);
            matrices.extend(of_layer.map(named));
        }
        matrices
    }

    /// Names of the vectors of `hidden` values.
    pub fn norms(&self) -> Vec<String> {
        let mut norms = vec!["model.norm.weight".to_owned()];
        for layer in 0..self.layers {
            let named = |name| format!("model.layers.{layer}.{name}.weight");
            norms.extend(["input_layernorm", "post_attention_layernorm"].map(named));
        }
        norms
    }

    /// Writes `config.json`, the tensors (names, shapes and BF16), and a stand-in for the tokenizer, of which loading needs only
    /// the size. Fails where a file cannot be written, or bytes are not those of a shape.
    pub fn write<'a>(
        &self,
        directory: &Path,
        tensors: impl IntoIterator<Item = (&'a str, Vec<usize>, &'a [u8])>,
    ) -> io::Result<()> {
        let Self { vocabulary, context, hidden, heads, kv_heads, head_dim, intermediate, layers } = *self;
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim,
            "vocab_size": vocabulary, "max_position_embeddings": context, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false,
            "torch_dtype": "bfloat16",
        });
        fs::write(directory.join("config.json"), config.to_string())?;
        fs::write(directory.join("tokenizer.json"), "{}")?;
        let view = |(name, shape, bytes)| {
            Ok::<_, safetensors::SafeTensorError>((name, TensorView::new(Dtype::BF16, shape, bytes)?))
        };
        let views: Result<Vec<_>, _> = tensors.into_iter().map(view).collect();
        let written =
            views.and_then(|views| serialize_to_file(views, None, &directory.join("model.safetensors")));
        written.map_err(io::Error::other)
    }
}
