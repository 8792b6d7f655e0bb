use super::SampleError;
use crate::batch::{Rows, Wants};

/// How the hidden states of a text become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean: for a model that was not trained to embed.
    #[default]
    Mean,
    /// The last token's: what embedding checkpoints of decoder families are trained for.
    Last,
}

impl Pooling {
    /// What is wanted of a step, given whether it holds the last of the text's tokens.
    pub const fn wants(self, holds_last: bool) -> Wants {
        match self {
            Self::Mean => Wants::EveryHidden,
            Self::Last if holds_last => Wants::LastHidden,
            Self::Last => Wants::Nothing,
        }
    }
}

/// An embedding in the making, over the steps that compute its text.
///
/// States are added one token at a time in `f64`, so that the sum does not depend on where steps are cut. A sequence that
/// starts over after a preemption gives states a second time; those already added are passed over.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    pooling: Pooling,
    /// Tokens added.
    tokens: u32,
    sum: Vec<f64>,
}

impl Pool {
    pub const fn new(pooling: Pooling) -> Self {
        Self { pooling, tokens: 0, sum: Vec::new() }
    }

    pub const fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Takes in the hidden states `[tokens, hidden]` of a step whose first token has `position`.
    pub fn push(&mut self, position: u32, hidden: Rows<'_>) {
        for (row, position) in hidden.iter().zip(position..) {
            match self.pooling {
                Pooling::Last => self.sum = row.iter().copied().map(f64::from).collect(),
                Pooling::Mean if position == self.tokens => {
                    self.sum.resize(row.len(), 0.0);
                    self.sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
                    self.tokens += 1;
                }
                Pooling::Mean => {}
            }
        }
    }

    /// The vector, scaled to Euclidean length 1; dividing the sum by the number of tokens would change nothing then.
    #[expect(clippy::cast_possible_truncation, reason = "rounded once, at the end")]
    pub fn finish(self) -> Result<Vec<f32>, SampleError> {
        let length = self.sum.iter().map(|value| value * value).sum::<f64>().sqrt();
        if !length.is_normal() {
            return Err(SampleError::Embedding { length });
        }
        Ok(self.sum.iter().map(|value| (value / length) as f32).collect())
    }
}
