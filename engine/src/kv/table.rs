use sparkherd_footprint::BLOCK_TOKENS;
use thiserror::Error;

use super::{Block, BlockPool};

/// The blocks of one sequence, in token order.
#[derive(Debug, Default)]
pub struct BlockTable {
    blocks: Vec<Block>,
    /// Of `blocks`, side by side: a step copies them for every sequence.
    indices: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{missing} blocks of the KV pool are missing")]
pub struct OutOfBlocks {
    pub missing: usize,
}

impl BlockTable {
    /// Takes blocks until `tokens` tokens have a place; takes none if not all can be had.
    pub fn grow_to(&mut self, tokens: usize, pool: &BlockPool) -> Result<(), OutOfBlocks> {
        let wanted = tokens.div_ceil(BLOCK_TOKENS as usize).saturating_sub(self.blocks.len());
        let missing = wanted.saturating_sub(pool.free_blocks());
        if missing > 0 {
            return Err(OutOfBlocks { missing });
        }
        for block in std::iter::from_fn(|| pool.take()).take(wanted) {
            self.indices.push(block.index());
            self.blocks.push(block);
        }
        Ok(())
    }

    /// Indices of the blocks in the pool.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }
}
