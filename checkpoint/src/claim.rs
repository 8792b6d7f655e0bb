use std::collections::BTreeSet;

use thiserror::Error;

use crate::json::shown_name;
use crate::{ModelConfig, OutputHead, Tensor, TensorIndex};

/// A tensor that the architecture computes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedTensor {
    pub name: String,
    /// Row-major, rows first; projections are `[outputs, inputs]`.
    pub shape: Vec<u64>,
}

/// Why the tensors are not those of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClaimError {
    #[error("{} of {expected} tensors are missing: {}", missing.len(), listed(missing))]
    Missing { missing: Vec<String>, expected: usize },
    #[error("{} tensors are not part of the architecture: {}", left_over.len(), listed(left_over))]
    LeftOver { left_over: Vec<String> },
    #[error("tensor {tensor} has shape {found:?}, the configuration makes it {expected:?}")]
    Shape { tensor: String, found: Vec<u64>, expected: Vec<u64> },
}

/// Names in a message: enough to recognise the pattern.
const LISTED_MAX: usize = 4;

fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(LISTED_MAX).map(|name| shown_name(name)).collect();
    let more = names.len() - shown.len();
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// All tensors that this configuration computes with, in the order a forward pass meets them, by the names that
/// transformers gives them in a `…ForCausalLM`.
pub fn expected_tensors(config: &ModelConfig) -> Vec<ExpectedTensor> {
    let hidden = u64::from(config.hidden_size);
    let vocab = u64::from(config.vocab_size);
    let expected =
        |name: &str, shape: &[u64]| ExpectedTensor { name: name.to_owned(), shape: shape.to_vec() };
    let mut tensors = vec![expected(EMBEDDING, &[vocab, hidden])];
    for layer in 0..config.layers {
        let named = |(name, shape): (&str, Vec<u64>)| ExpectedTensor {
            name: format!("model.layers.{layer}.{name}"),
            shape,
        };
        tensors.extend(of_layer(config).into_iter().map(named));
    }
    tensors.push(expected("model.norm.weight", &[hidden]));
    if config.head == OutputHead::Own {
        tensors.push(expected(LM_HEAD, &[vocab, hidden]));
    }
    tensors
}

fn of_layer(config: &ModelConfig) -> Vec<(&'static str, Vec<u64>)> {
    let ModelConfig { architecture, hidden_size, intermediate_size, heads, kv_heads, head_dim, .. } = *config;
    let [hidden, intermediate, head_dim] = [hidden_size, intermediate_size, head_dim].map(u64::from);
    let (query, kv) = (u64::from(heads) * head_dim, u64::from(kv_heads) * head_dim);
    let mut tensors = vec![
        ("input_layernorm.weight", vec![hidden]),
        ("self_attn.q_proj.weight", vec![query, hidden]),
        ("self_attn.k_proj.weight", vec![kv, hidden]),
        ("self_attn.v_proj.weight", vec![kv, hidden]),
    ];
    if architecture.has_attention_bias() {
        tensors.extend([
            ("self_attn.q_proj.bias", vec![query]),
            ("self_attn.k_proj.bias", vec![kv]),
            ("self_attn.v_proj.bias", vec![kv]),
        ]);
    }
    if architecture.has_head_norm() {
        tensors.extend([
            ("self_attn.q_norm.weight", vec![head_dim]),
            ("self_attn.k_norm.weight", vec![head_dim]),
        ]);
    }
    tensors.extend([
        ("self_attn.o_proj.weight", vec![hidden, query]),
        ("post_attention_layernorm.weight", vec![hidden]),
        ("mlp.gate_proj.weight", vec![intermediate, hidden]),
        ("mlp.up_proj.weight", vec![intermediate, hidden]),
        ("mlp.down_proj.weight", vec![hidden, intermediate]),
    ]);
    tensors
}

pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
const LM_HEAD: &str = "lm_head.weight";

/// A tensor of the architecture and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedTensor<'a> {
    pub name: String,
    pub tensor: &'a Tensor,
}

impl TensorIndex {
    /// Finds each expected tensor, with the right shape, and checks that nothing else is there. In the order of
    /// [`expected_tensors`].
    pub fn claim(&self, config: &ModelConfig) -> Result<Vec<ClaimedTensor<'_>>, ClaimError> {
        let expected = expected_tensors(config);
        let names: BTreeSet<&str> = expected.iter().map(|tensor| tensor.name.as_str()).collect();
        let missing: Vec<String> =
            names.iter().filter(|name| self.get(name).is_none()).map(|name| (*name).to_owned()).collect();
        if !missing.is_empty() {
            return Err(ClaimError::Missing { missing, expected: expected.len() });
        }
        let left_over: Vec<String> = self
            .iter()
            .map(|(name, _)| name)
            .filter(|name| !names.contains(name) && !is_ignored(config, name))
            .map(str::to_owned)
            .collect();
        if !left_over.is_empty() {
            return Err(ClaimError::LeftOver { left_over });
        }
        let mut claimed = Vec::with_capacity(expected.len());
        for ExpectedTensor { name, shape } in expected {
            let Some(tensor) = self.get(&name) else { continue };
            if tensor.shape != shape {
                let found = tensor.shape.clone();
                return Err(ClaimError::Shape { tensor: shown_name(&name), found, expected: shape });
            }
            claimed.push(ClaimedTensor { name, tensor });
        }
        Ok(claimed)
    }
}

/// Tensors that are stored but not part of the arithmetic.
fn is_ignored(config: &ModelConfig, name: &str) -> bool {
    // Older transformers saved this buffer; it is a function of rope_theta and head_dim, and is computed from them.
    let is_rotary_buffer = name.ends_with(".rotary_emb.inv_freq");
    // With tied weights transformers overwrites a stored output projection by the embedding, so it is never used.
    let is_tied_copy = config.head == OutputHead::Tied && name == LM_HEAD;
    is_rotary_buffer || is_tied_copy
}
