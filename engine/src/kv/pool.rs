use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A fixed number of blocks, of which some are free.
#[derive(Debug)]
pub struct BlockPool {
    free: Arc<FreeList>,
    blocks: u32,
}

/// One owner of one block of a pool.
#[derive(Clone, Debug)]
pub struct Block(Arc<Lease>);

/// A block that is taken, until this is dropped.
#[derive(Debug)]
struct Lease {
    index: u32,
    free: Arc<FreeList>,
}

/// Indices nobody owns, the next one to take last. The lock is never contended: one thread schedules.
#[derive(Debug)]
struct FreeList(Mutex<Vec<u32>>);

impl BlockPool {
    /// A pool of blocks `0..blocks`, all free.
    pub fn new(blocks: u32) -> Self {
        Self { free: Arc::new(FreeList(Mutex::new((0..blocks).rev().collect()))), blocks }
    }

    /// A free block, if there is one.
    pub fn take(&self) -> Option<Block> {
        let index = self.free.indices().pop()?;
        Some(Block(Arc::new(Lease { index, free: Arc::clone(&self.free) })))
    }

    pub fn free_blocks(&self) -> usize {
        self.free.indices().len()
    }

    /// All blocks, free or taken.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }
}

impl Block {
    /// Its place in the pool.
    pub fn index(&self) -> u32 {
        self.0.index
    }
}

impl FreeList {
    /// A push or a pop leaves the list whole wherever a panic strikes, so a poisoned lock says nothing about it.
    fn indices(&self) -> MutexGuard<'_, Vec<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.free.indices().push(self.index);
    }
}
