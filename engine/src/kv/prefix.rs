use sha2::{Digest, Sha256};
use sparkherd_footprint::BLOCK_TOKENS;

/// What a full block holds: its own tokens and, by the chain of hashes, all before them.
///
/// SHA-256, because a collision would continue one prompt with the keys and values of another, and prompts are chosen by
/// strangers: any hash that is not made against an adversary lets two colliding ones be written down. It costs about a
/// tenth of a microsecond a token, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockHash([u8; 32]);

/// The hashes of one sequence's full blocks, made as they are asked for.
#[derive(Debug)]
pub struct PrefixHashes {
    /// Stands for all tokens before the first.
    root: BlockHash,
    blocks: Vec<BlockHash>,
}

impl PrefixHashes {
    /// Sequences of different salts have no hash in common.
    pub fn new(cache_salt: u64) -> Self {
        Self { root: BlockHash(Sha256::digest(cache_salt.to_le_bytes()).into()), blocks: Vec::new() }
    }

    /// Those of the first `blocks` blocks of `tokens`, or of as many as are full. `tokens` begins with what it was before.
    pub fn of(&mut self, tokens: &[u32], blocks: usize) -> &[BlockHash] {
        let known = self.blocks.len();
        let (full, _) = tokens.as_chunks::<{ BLOCK_TOKENS as usize }>();
        for block in full.iter().take(blocks).skip(known) {
            let before = self.blocks.last().unwrap_or(&self.root);
            self.blocks.push(before.followed_by(block));
        }
        &self.blocks[..blocks.min(self.blocks.len())]
    }
}

impl BlockHash {
    fn followed_by(&self, tokens: &[u32]) -> Self {
        let mut hasher = Sha256::new_with_prefix(self.0);
        for token in tokens {
            hasher.update(token.to_le_bytes());
        }
        Self(hasher.finalize().into())
    }
}
