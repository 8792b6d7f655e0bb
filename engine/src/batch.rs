//! The seam between scheduling, which knows no tensors, and models, which know no requests.

use thiserror::Error;

/// One step's work: some tokens of some sequences, prefill and decode alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The sequences' tokens one after the other, in the order of `sequences`.
    pub tokens: Vec<u32>,
    pub sequences: Vec<BatchSequence>,
}

/// One sequence's share of a [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSequence {
    /// How many of `Batch::tokens` are this sequence's; at least 1.
    pub token_count: u32,
    /// Position of the first of them; keys and values below it are already in the blocks.
    pub position: u32,
    /// Blocks of the KV pool, in order; covers `position + token_count` tokens.
    pub block_table: Vec<u32>,
    /// Whether the last token's logits are wanted (the sequence has no more known tokens).
    pub wants_logits: bool,
}

/// Rows of logits of one forward pass: one per sequence that wanted them, in batch order.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    pub values: &'a [f32],
    pub vocab_size: usize,
}

impl<'a> Logits<'a> {
    /// The logits of the `index`-th sequence that wanted them.
    pub fn row(&self, index: usize) -> Option<&'a [f32]> {
        self.values.get(index * self.vocab_size..(index + 1) * self.vocab_size)
    }
}

#[derive(Debug, Error)]
pub enum ForwardError {
    #[error(
        "batch of {tokens} tokens in {sequences} sequences exceeds the planned {tokens_max} and {sequences_max}"
    )]
    BatchTooLarge { tokens: usize, sequences: usize, tokens_max: usize, sequences_max: usize },
    #[error("batch is inconsistent: {0}")]
    Inconsistent(String),
    #[error("device failed: {0}")]
    Device(String),
}

/// A loaded model on a device. Allocates nothing after it is made.
pub trait ForwardPass: Send {
    /// Runs one step. Writes keys and values of every token into the blocks, and returns the wanted logits.
    fn forward(&mut self, batch: &Batch) -> Result<Logits<'_>, ForwardError>;
    /// Most tokens one batch may hold.
    fn tokens_max(&self) -> usize;
    /// Most sequences one batch may hold.
    fn sequences_max(&self) -> usize;
}
