//! Which block of the KV pool holds which tokens of which sequence. Pure: knows no memory, only indices.
//!
//! ```text
//! BlockPool ── take ──► Block ──► BlockTable of one sequence: block i holds tokens [16 i, 16 i + 16)
//!     ▲                   │
//!     └── when the last ──┘
//!         owner drops it
//! ```
//!
//! A [`Block`] is free exactly when nobody owns it: it goes back when its last owner drops it, so a leak needs an owner
//! that is never dropped, and a block in two unrelated tables cannot be written down. Owners of the same block are clones
//! of one `Block`.

mod pool;
mod table;
#[cfg(test)]
mod tests;

pub use pool::{Block, BlockPool};
pub use table::{BlockTable, OutOfBlocks};
