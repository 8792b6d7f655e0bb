use std::ops::Range;

use crate::kv::BlockTable;

/// Order of arrival; the engine never uses one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) id: SequenceId,
    /// Prompt and answer so far.
    pub(super) tokens: Vec<u32>,
    /// How many of `tokens` have their keys and values in the blocks.
    pub(super) computed: usize,
    pub(super) table: BlockTable,
}

impl Sequence {
    pub(super) fn new(id: SequenceId, tokens: Vec<u32>) -> Self {
        Self { id, tokens, computed: 0, table: BlockTable::default() }
    }

    /// Tokens known and not computed.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Takes the next `count` pending tokens into a step. They count as computed from here on: a step that fails ends the
    /// engine.
    pub(super) fn advance(&mut self, count: usize) -> Range<usize> {
        let chunk = self.computed..self.computed + count;
        self.computed = chunk.end;
        chunk
    }

    /// Gives up everything computed, and the blocks with it.
    pub(super) fn start_over(&mut self) {
        self.computed = 0;
        self.table = BlockTable::default();
    }
}
