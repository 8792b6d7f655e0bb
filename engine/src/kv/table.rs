use sparkherd_footprint::BLOCK_TOKENS;
use thiserror::Error;

use super::{Block, BlockHash, BlockPool};

/// The blocks of one sequence, in token order.
#[derive(Debug, Default)]
pub struct BlockTable {
    blocks: Vec<Block>,
    /// Of `blocks`, side by side: a step copies them for every sequence.
    indices: Vec<u32>,
    /// How many of `blocks` were found or are published: they are never written again.
    settled: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{missing} blocks of the KV pool are missing")]
pub struct OutOfBlocks {
    pub missing: usize,
}

impl BlockTable {
    /// The longest row of blocks from the first on that the pool has: the beginning of a sequence with these hashes.
    pub fn found(hashes: &[BlockHash], pool: &BlockPool) -> Self {
        let mut table = Self::default();
        hashes.iter().map_while(|hash| pool.find(hash)).for_each(|block| table.push(block));
        table.settled = table.blocks.len();
        table
    }

    /// Takes blocks until `tokens` tokens have a place; takes none if not all can be had.
    pub fn grow_to(&mut self, tokens: usize, pool: &BlockPool) -> Result<(), OutOfBlocks> {
        let wanted = tokens.div_ceil(BLOCK_TOKENS as usize).saturating_sub(self.blocks.len());
        let missing = wanted.saturating_sub(pool.free_blocks());
        if missing > 0 {
            return Err(OutOfBlocks { missing });
        }
        std::iter::from_fn(|| pool.take()).take(wanted).for_each(|block| self.push(block));
        Ok(())
    }

    /// Publishes the blocks these are the hashes of, as far as that is still to be done.
    pub fn publish(&mut self, hashes: &[BlockHash]) {
        for (block, hash) in self.blocks.iter().skip(self.settled).zip(hashes.iter().skip(self.settled)) {
            block.publish(*hash);
        }
        self.settled = self.settled.max(hashes.len());
    }

    /// Indices of the blocks in the pool.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    fn push(&mut self, block: Block) {
        self.indices.push(block.index());
        self.blocks.push(block);
    }
}

impl Drop for BlockTable {
    /// From the end: of blocks that are released together the last is taken first, as nothing finds it without those before.
    fn drop(&mut self) {
        while self.blocks.pop().is_some() {}
    }
}
