//! How fast this machine's cores read memory: what decoding can reach at most.

use std::sync::atomic::{AtomicU64, Ordering};

use super::pool::Pool;
use crate::backend::{
    BackendError,
    arena::{Arena, ArenaError},
};

/// Bytes of one piece of work: small beside the whole, large beside what it takes to hand out.
const PIECE_BYTES: usize = 1 << 20;

/// Memory that is read from end to end, by as many threads as an engine would compute with.
#[derive(Debug)]
pub struct ReadSpeed {
    memory: Arena,
    pool: Pool,
}

/// Why nothing can be measured.
#[derive(Debug, thiserror::Error)]
pub enum ReadSpeedError {
    #[error(transparent)]
    Memory(#[from] ArenaError),
    #[error(transparent)]
    Threads(#[from] BackendError),
}

impl ReadSpeed {
    /// Takes and touches `bytes`, which should be many times what the caches hold.
    pub fn new(bytes: usize, threads: usize) -> Result<Self, ReadSpeedError> {
        let mut memory = Arena::map(bytes)?;
        memory.populate(PIECE_BYTES, &mut |_| {});
        Ok(Self { memory, pool: Pool::start(threads)? })
    }

    /// Reads everything once. The sum of all words is returned so that no read can be left out.
    pub fn read(&mut self) -> Result<u64, BackendError> {
        let words = self.memory.as_slice::<u32>();
        let total = AtomicU64::new(0);
        let piece_words = PIECE_BYTES / size_of::<u32>();
        self.pool.run(words.len().div_ceil(piece_words), &|piece| {
            let words = &words[piece * piece_words..words.len().min((piece + 1) * piece_words)];
            total.fetch_add(sum(words), Ordering::Relaxed);
        })?;
        Ok(total.into_inner())
    }

    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }
}

/// In sixteen lanes, four times: plenty of loads in flight whatever the instructions.
fn sum(words: &[u32]) -> u64 {
    let mut lanes = [0_u32; 64];
    for words in words.as_chunks::<64>().0 {
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.into_iter().map(u64::from).sum()
}
