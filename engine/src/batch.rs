//! The seam between scheduling, which knows no tensors, and models, which know no requests.

use std::ops::Range;

use thiserror::Error;

use crate::{
    backend::BackendError,
    sample::{Chosen, NoTokens, SampleError, TokenRequests},
};

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
    pub wants: Wants,
}

/// What is wanted of a sequence's tokens of one step beside the keys and values they leave in the blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wants {
    /// Nothing: more of the sequence's known tokens follow.
    #[default]
    Nothing,
    /// The last token's logits, to sample from.
    LastLogits,
    /// Every token's logits, to tell how likely a prompt is.
    EveryLogits,
    /// The last token's hidden state after the final norm.
    LastHidden,
    /// Every token's hidden state after the final norm, to pool.
    EveryHidden,
}

impl Wants {
    /// Which of a sequence's `token_count` tokens give logits.
    pub const fn logits(self, token_count: u32) -> Range<u32> {
        match self {
            Self::LastLogits => token_count - 1..token_count,
            Self::EveryLogits => 0..token_count,
            Self::Nothing | Self::LastHidden | Self::EveryHidden => 0..0,
        }
    }

    /// Which of a sequence's `token_count` tokens give hidden states.
    pub const fn hidden(self, token_count: u32) -> Range<u32> {
        match self {
            Self::LastHidden => token_count - 1..token_count,
            Self::EveryHidden => 0..token_count,
            Self::Nothing | Self::LastLogits | Self::EveryLogits => 0..0,
        }
    }
}

/// A matrix a forward pass gives, row-major `[any, width]`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    pub values: &'a [f32],
    pub width: usize,
}

impl<'a> Rows<'a> {
    pub fn row(&self, index: usize) -> Option<&'a [f32]> {
        self.values.get(index * self.width..(index + 1) * self.width)
    }

    /// The rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [f32]> + use<'a> {
        self.values.chunks_exact(self.width.max(1))
    }

    /// Takes the first `count` rows off, or `None` if there are fewer.
    fn take(&mut self, count: usize) -> Option<Self> {
        let (taken, rest) = self.values.split_at_checked(count * self.width)?;
        self.values = rest;
        Some(Self { values: taken, width: self.width })
    }
}

/// A token that was chosen where the logits are, or why there is none; `None` leaves it to whoever gets the logits.
pub type Choice = Option<Result<Chosen, SampleError>>;

/// What the sequences of a batch wanted, in the batch's order.
#[derive(Clone, Copy, Debug)]
pub struct StepOutput<'a> {
    /// `[rows wanted, vocabulary]`, without those of sequences whose token was chosen
    pub logits: Rows<'a>,
    /// `[rows wanted, hidden]`
    pub hidden: Rows<'a>,
    /// `[sequences]`, or none at all
    pub chosen: &'a [Choice],
}

impl<'a> StepOutput<'a> {
    /// The share of each of the batch's sequences, in order. An error says that the forward pass gave too little.
    pub fn by_sequence<'b>(
        self,
        batch: &'b Batch,
    ) -> impl Iterator<Item = Result<StepOutput<'a>, ForwardError>> + use<'a, 'b> {
        let (mut logits, mut hidden) = (self.logits, self.hidden);
        batch.sequences.iter().enumerate().map(move |(index, sequence)| {
            let missing = |what: &str| {
                ForwardError::Inconsistent(format!(
                    "sequence {index} of the batch got too few rows of {what}"
                ))
            };
            let (wants, count) = (sequence.wants, sequence.token_count);
            let chosen = self.chosen.get(index..=index).unwrap_or_default();
            let logit_rows = if let [Some(_)] = chosen { 0 } else { wants.logits(count).len() };
            Ok(Self {
                logits: logits.take(logit_rows).ok_or_else(|| missing("logits"))?,
                hidden: hidden.take(wants.hidden(count).len()).ok_or_else(|| missing("hidden states"))?,
                chosen,
            })
        })
    }
}

#[derive(Debug, Error)]
pub enum ForwardError {
    #[error(
        "batch of {tokens} tokens in {sequences} sequences exceeds the planned {tokens_max} and {sequences_max}"
    )]
    BatchTooLarge { tokens: usize, sequences: usize, tokens_max: usize, sequences_max: usize },
    #[error("batch wants {rows} rows of logits, planned are {rows_max}")]
    TooManyLogits { rows: usize, rows_max: usize },
    #[error("batch is inconsistent: {0}")]
    Inconsistent(String),
    #[error("device failed: {0}")]
    Device(String),
    #[error("device has no memory: {0}")]
    OutOfMemory(String),
    /// Only another process can use the GPU again.
    #[error("GPU fault: {0}")]
    Fault(String),
}

impl From<BackendError> for ForwardError {
    fn from(error: BackendError) -> Self {
        let message = error.to_string();
        if error.is_fault() {
            Self::Fault(message)
        } else if error.is_out_of_memory() {
            Self::OutOfMemory(message)
        } else {
            Self::Device(message)
        }
    }
}

/// A loaded model on a device. What it computes in is taken when it is made; a step allocates only short lists of parts.
pub trait ForwardPass: Send {
    /// Runs one step. Writes keys and values of every token into the blocks, and returns what was wanted. A model that can
    /// choose tokens itself asks for the requests of the sequences that want their last logits, and returns what it chose.
    fn step(
        &mut self,
        batch: &Batch,
        requests: &mut dyn TokenRequests,
    ) -> Result<StepOutput<'_>, ForwardError>;
    /// Runs one step and returns all logits that were wanted.
    fn forward(&mut self, batch: &Batch) -> Result<StepOutput<'_>, ForwardError> {
        self.step(batch, &mut NoTokens)
    }
    /// Most tokens one batch may hold.
    fn tokens_max(&self) -> usize;
    /// Most sequences one batch may hold.
    fn sequences_max(&self) -> usize;
    /// Most rows of logits one batch may want, over all its sequences; at least `sequences_max`.
    fn logit_rows_max(&self) -> usize;
    /// Whether any may be wanted: a checkpoint without an output head gives hidden states only.
    fn has_logits(&self) -> bool;
    /// Numbers of one hidden state.
    fn hidden(&self) -> usize;
}
