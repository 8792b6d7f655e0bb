use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::BlockHash;

/// A fixed number of blocks. Those nobody owns are free to be taken; the content of some of them can still be found.
#[derive(Debug)]
pub struct BlockPool {
    shelf: Arc<Shelf>,
}

/// One owner of one block of a pool; clones are further owners.
#[derive(Clone, Debug)]
pub struct Block(Arc<Lease>);

/// A block that is owned, until this is dropped.
#[derive(Debug)]
struct Lease {
    index: u32,
    shelf: Arc<Shelf>,
}

/// Where blocks lie. The lock is never contended: one thread schedules.
#[derive(Debug)]
struct Shelf(Mutex<Contents>);

#[derive(Debug)]
struct Contents {
    /// Blocks nobody owns, in the order they are taken: those without a known content, then the longest unused. The key is
    /// (has a known content, releases before it).
    free: BTreeMap<(bool, u64), u32>,
    /// Published blocks by what they hold, owned or free.
    known: HashMap<BlockHash, u32>,
    /// By index.
    slots: Vec<Slot>,
    releases: u64,
}

#[derive(Debug, Default)]
struct Slot {
    content: Option<BlockHash>,
    /// Dead while the block is free.
    lease: Weak<Lease>,
    /// Its place in `free`, while it is there.
    free_key: (bool, u64),
}

impl BlockPool {
    /// A pool of blocks `0..blocks`, all free, none of known content.
    pub fn new(blocks: u32) -> Self {
        let mut contents =
            Contents { free: BTreeMap::new(), known: HashMap::new(), slots: Vec::new(), releases: 0 };
        contents.slots.resize_with(blocks as usize, Slot::default);
        (0..blocks).for_each(|index| contents.release(index));
        Self { shelf: Arc::new(Shelf(Mutex::new(contents))) }
    }

    /// A free block, if there is one. What it held cannot be found any more.
    pub fn take(&self) -> Option<Block> {
        let mut contents = self.shelf.contents();
        let (_, index) = contents.free.pop_first()?;
        if let Some(content) = contents.slot(index).and_then(|slot| slot.content.take()) {
            contents.known.remove(&content);
        }
        Some(self.lease(&mut contents, index))
    }

    /// One more owner of the block that holds this, if there is such a block.
    pub fn find(&self, content: &BlockHash) -> Option<Block> {
        let mut contents = self.shelf.contents();
        let index = *contents.known.get(content)?;
        let slot = contents.slot(index)?;
        if let Some(lease) = slot.lease.upgrade() {
            return Some(Block(lease));
        }
        let free_key = slot.free_key;
        contents.free.remove(&free_key);
        Some(self.lease(&mut contents, index))
    }

    /// Blocks nobody owns.
    pub fn free_blocks(&self) -> usize {
        self.shelf.contents().free.len()
    }

    fn lease(&self, contents: &mut Contents, index: u32) -> Block {
        let lease = Arc::new(Lease { index, shelf: Arc::clone(&self.shelf) });
        if let Some(slot) = contents.slot(index) {
            slot.lease = Arc::downgrade(&lease);
        }
        Block(lease)
    }
}

impl Block {
    /// Its place in the pool.
    pub fn index(&self) -> u32 {
        self.0.index
    }

    /// Lets others find the block by what it holds, from now on and until it is taken anew. Nobody may write to it any more.
    /// Where another block of the same content is known already, this one stays unknown.
    pub fn publish(&self, content: BlockHash) {
        let mut contents = self.0.shelf.contents();
        if contents.known.contains_key(&content) {
            return;
        }
        contents.known.insert(content, self.index());
        if let Some(slot) = contents.slot(self.index()) {
            slot.content = Some(content);
        }
    }
}

impl Shelf {
    /// No panic can strike between the parts of a change, so a poisoned lock says nothing about what is behind it.
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn slot(&mut self, index: u32) -> Option<&mut Slot> {
        self.slots.get_mut(index as usize)
    }

    fn release(&mut self, index: u32) {
        let releases = self.releases;
        self.releases += 1;
        if let Some(slot) = self.slot(index) {
            slot.free_key = (slot.content.is_some(), releases);
            let free_key = slot.free_key;
            self.free.insert(free_key, index);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shelf.contents().release(self.index);
    }
}
