//! What operations work on: where a tensor lies, not its bytes. The same names serve a host and a device.

use sparkherd_checkpoint::Dtype;
use sparkherd_footprint::KvDtype;

/// A weight in the weights arena, row-major `[rows, columns]`; a vector has one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// From the start of the arena; a multiple of 256.
    pub offset_bytes: usize,
    pub dtype: Dtype,
    pub rows: usize,
    pub columns: usize,
}

/// A matrix of f32 in the workspace, row-major `[rows, columns]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activation {
    /// Elements from the start of the workspace.
    pub offset: usize,
    pub rows: usize,
    pub columns: usize,
}

impl Activation {
    /// The first `rows` rows.
    #[must_use]
    pub const fn first(self, rows: usize) -> Self {
        Self { rows, ..self }
    }

    /// One row.
    #[must_use]
    pub const fn row(self, row: usize) -> Self {
        Self { offset: self.offset + row * self.columns, rows: 1, columns: self.columns }
    }

    pub(crate) const fn range(self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.rows * self.columns
    }
}

/// The paged pool of keys and values. How a backend orders it is its own affair; its size is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    pub layers: usize,
    /// Blocks of [`sparkherd_footprint::BLOCK_TOKENS`] tokens.
    pub blocks: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub dtype: KvDtype,
}

impl KvShape {
    /// Elements of the keys (or of the values) of one token in one layer.
    pub const fn token_elements(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// The rows of one sequence in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceRows {
    pub first_row: usize,
    pub rows: usize,
    /// Position of the first row's token; the row after it has the next position.
    pub position: usize,
    /// Where the sequence's blocks begin in the step's block tables.
    pub first_block: usize,
}

/// What a step is told beside its rows' values.
#[derive(Clone, Copy, Debug)]
pub struct StepNumbers<'a> {
    /// Of each row.
    pub tokens: &'a [u32],
    /// Place of each row in the pool: block · 16 + place in the block.
    pub slots: &'a [u32],
    pub sequences: &'a [SequenceRows],
    /// The sequences' blocks one after the other.
    pub block_tables: &'a [u32],
    /// Rows whose logits are wanted.
    pub logit_rows: &'a [u32],
}

/// A sequence of a batch of which a token may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// Among those of the batch.
    pub sequence: usize,
    /// Of the step's logits.
    pub row: usize,
}
