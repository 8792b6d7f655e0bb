//! Which tokens of which sequences the next forward pass computes. Pure: no tensors, no clock, no channels.
//!
//! ```text
//!                admit (oldest first, with blocks for all it knows)
//! enqueue ─► waiting ────────────────────────────► running ─► remove
//!               ▲                                     │  ▲       (its blocks are free at once)
//!               └── preempt (newest first, loses its ─┘  └─ append (a sampled token)
//!                   blocks and starts over)
//! ```
//!
//! A sequence is (tokens computed, tokens known): one token behind is decoding, more is prefill, and that is all there is
//! to tell them apart. `running` then `waiting` is always the order of arrival. From that follows that nobody starves: the
//! oldest sequence never loses its blocks, since only the newest does, and it is served in every step that has budget left
//! by those before it; so it ends, and the next one is the oldest.

mod sequence;
mod state;
#[cfg(test)]
mod tests;

pub use sequence::SequenceId;
pub use state::{ScheduleLimits, State, Step};
