//! Which block of the KV pool holds which tokens of which sequence. Pure: knows no memory, only indices.
//!
//! ```text
//!                 take                                publish(hash): full, never written again
//! BlockPool ─────────────────► Block ──► BlockTable ─────────────────────────┐
//!  ▲  ▲                          │       block i holds                       ▼
//!  │  └── when the last owner ───┘       tokens [16 i, 16 i + 16)     known by its hash,
//!  │      drops it                                                  while owned and after
//!  └───────────────────── find(hash): one more owner ────────────────────────┘
//! ```
//!
//! A [`Block`] is free exactly when nobody owns it: it goes back when its last owner drops it, so a leak needs an owner
//! that is never dropped. It has several owners only if they found it by the hash of what it holds. A free block keeps its
//! content until it is taken, and the longest unused is taken first: that is the whole prefix cache.
//!
//! Only full blocks are published, and only once they are computed, so what can be found is never written.
//!
//! There is one kind of layer so far, and one table per sequence serves them all. Windowed layers get a table of their own
//! whose front blocks are dropped behind the window. Recurrent layers get a second pool: a state slot is a `Block` of a
//! pool with as many blocks as sequences, held beside the table; a prefix then counts as found as far as both its blocks
//! and a snapshot of the state are.

mod pool;
mod prefix;
mod table;
#[cfg(test)]
mod tests;

pub use pool::{Block, BlockPool};
pub use prefix::{BlockHash, PrefixHashes};
pub use table::{BlockTable, OutOfBlocks};
