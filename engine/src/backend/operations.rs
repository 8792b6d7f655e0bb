//! Arguments of the operations: named, with shapes. `T` is the tokens of a step, all matrices are row-major.

use std::fmt;

use sparkherd_kernels::GateFunction;

use super::operands::{Activation, SequenceRows, TokenRow, Weight};
use crate::{batch::Choice, sample::TokenRequests};

/// `out[t] = table[tokens[t]]`, widened to f32. `table [vocabulary, width]`, `out [T, width]`.
#[derive(Clone, Copy, Debug)]
pub struct Embed<'a> {
    pub tokens: &'a [u32],
    pub table: Weight,
    pub out: Activation,
}

/// `out[i] = x[rows[i]]`.
#[derive(Clone, Copy, Debug)]
pub struct GatherRows<'a> {
    pub x: Activation,
    pub rows: &'a [u32],
    pub out: Activation,
}

/// `out = x / sqrt(mean(x²) + epsilon) · weight`, row by row. `x` and `out` differ.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm {
    pub x: Activation,
    /// `[1, width]`
    pub weight: Weight,
    pub epsilon: f32,
    pub out: Activation,
}

/// `residual += x`, then `x =` [`RmsNorm`] of `residual`: one pass over the residual stream instead of two.
#[derive(Clone, Copy, Debug)]
pub struct AddRmsNorm {
    pub residual: Activation,
    /// In: what a layer adds. Out: the next layer's input.
    pub x: Activation,
    /// `[1, width]`
    pub weight: Weight,
    pub epsilon: f32,
}

/// `x += delta`.
#[derive(Clone, Copy, Debug)]
pub struct Add {
    pub x: Activation,
    pub delta: Activation,
}

/// `x[t] += bias`: what follows a [`Linear`] that has a bias.
#[derive(Clone, Copy, Debug)]
pub struct AddBias {
    /// `[T, outputs]`
    pub x: Activation,
    /// `[1, outputs]`
    pub bias: Weight,
}

/// [`RmsNorm`] in place of each head by itself, all with the same weight.
#[derive(Clone, Copy, Debug)]
pub struct HeadRmsNorm {
    /// `[T, heads · head_dim]`
    pub x: Activation,
    /// `[1, head_dim]`
    pub weight: Weight,
    pub epsilon: f32,
}

/// `out = x · weightᵀ`: `x [T, inputs]`, `weight [outputs, inputs]`, `out [T, outputs]`.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    pub x: Activation,
    pub weight: Weight,
    pub out: Activation,
}

/// Rotary embedding in place, halves apart: for each head and `i < head_dim / 2`,
/// `x[i], x[i + half] = x[i]·cos − x[i + half]·sin, x[i + half]·cos + x[i]·sin`.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// `[T, heads · head_dim]`
    pub x: Activation,
    /// `[T, head_dim]`: the cosines of a row's position, then the sines.
    pub rotations: Activation,
}

/// Rounds keys and values to the pool's type and stores them. Runs before any query of the step reads.
#[derive(Clone, Copy, Debug)]
pub struct KvWrite<'a> {
    pub layer: usize,
    /// `[T, kv_heads · head_dim]`
    pub keys: Activation,
    /// `[T, kv_heads · head_dim]`
    pub values: Activation,
    /// Block · 16 + place in the block, for each of the `T` tokens.
    pub slots: &'a [u32],
}

/// Normalisation of each head of queries and keys before its rotation.
#[derive(Clone, Copy, Debug)]
pub struct HeadNorms {
    /// `[1, head_dim]`
    pub query: Weight,
    /// `[1, head_dim]`
    pub key: Weight,
    pub epsilon: f32,
}

/// What becomes of a layer's products before [`Attention`]: [`AddBias`], [`HeadRmsNorm`] and [`Rope`] where they apply, then
/// [`KvWrite`].
#[derive(Clone, Copy, Debug)]
pub struct AttentionInputs<'a> {
    pub layer: usize,
    /// `[T, query_heads · head_dim]`: in place.
    pub queries: Activation,
    /// `[T, kv_heads · head_dim]`: what it holds afterwards is anything.
    pub keys: Activation,
    /// As `keys`.
    pub values: Activation,
    /// Of queries, keys and values.
    pub biases: [Option<Weight>; 3],
    pub head_norms: Option<HeadNorms>,
    /// `[T, head_dim]`: the cosines of a row's position, then the sines.
    pub rotations: Activation,
    /// Block · 16 + place in the block, for each of the `T` tokens.
    pub slots: &'a [u32],
}

/// What a family does otherwise than [`Attention`] says; by default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AttentionOptions {
    /// A query reads so many positions at most: its own and those just before it. At least 1.
    pub window: Option<usize>,
    /// `[1, query_heads]`: a logit of each head that takes part in the softmax and has no value.
    pub sinks: Option<Weight>,
    /// Scores, scaled, become `softcap · tanh(score / softcap)`. Above 0.
    pub softcap: Option<f32>,
}

/// Causal attention over the pool: the query at position `p` reads positions 0 to `p` of its sequence.
/// `out = softmax(scale · q · Kᵀ) · V`; query head `h` reads key head `h / (query_heads / kv_heads)`.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    pub layer: usize,
    /// `[T, query_heads · head_dim]`
    pub queries: Activation,
    pub scale: f32,
    pub options: AttentionOptions,
    pub sequences: &'a [SequenceRows],
    /// The sequences' blocks one after the other.
    pub block_tables: &'a [u32],
    /// As `queries`.
    pub out: Activation,
}

/// `gate = function(gate) · up`.
#[derive(Clone, Copy, Debug)]
pub struct GateMultiply {
    pub function: GateFunction,
    pub gate: Activation,
    pub up: Activation,
}

/// `gate = function(x · gate_weightᵀ) ⊙ (x · up_weightᵀ)`: [`Linear`] twice, then [`GateMultiply`].
#[derive(Clone, Copy, Debug)]
pub struct Gated {
    pub function: GateFunction,
    pub x: Activation,
    /// `[outputs, inputs]`
    pub gate_weight: Weight,
    /// As `gate_weight`; of any type.
    pub up_weight: Weight,
    /// `[T, outputs]`
    pub gate: Activation,
    /// As `gate`: what it holds afterwards is anything.
    pub up: Activation,
}

/// What a step is asked for.
pub struct Answer<'a> {
    /// `[rows wanted, vocabulary]`
    pub logits: Activation,
    /// `[rows wanted, hidden]`
    pub hidden: Activation,
    /// In the order of the logits, where a token may be chosen.
    pub rows: &'a [TokenRow],
    pub requests: &'a mut dyn TokenRequests,
    /// Of each sequence; nothing is chosen yet.
    pub chosen: &'a mut [Choice],
}

impl fmt::Debug for Answer<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Answer");
        debug.field("logits", &self.logits).field("hidden", &self.hidden).field("rows", &self.rows);
        debug.finish_non_exhaustive()
    }
}
