//! Which tokens of which sequences the next forward pass computes. Pure: no tensors, no clock, no channels.
//!
//! ```text
//!                          admit (whose turn it is, with blocks for all it knows)
//! enqueue ─► WaitingQueue ─────────────────────────────────────────────────► running ─► remove
//!                ▲                                                            │  ▲    (its blocks are free at once)
//!                └── preempt (newest of the lowest priority, loses its ───────┘  └─ append (a sampled token)
//!                    blocks, finds again those nobody needed meanwhile)
//! ```
//!
//! A sequence is (tokens computed, tokens known): one token behind is decoding, more is prefill, and that is all there is
//! to tell them apart. A step has two budgets, tokens and rows of logits, spent on decodes first, then on prefills under
//! way, then on admissions.
//!
//! Nobody starves. `running` is in order of rank: priority, then arrival. The first of it never loses its blocks, since
//! only the last does, and is served in every step; so it ends, and another is the first. Among those that wait, what was
//! preempted goes first, and clients take turns (see [`turns`]); whose turn it is waits for its blocks and is not
//! overtaken. Only a lower priority waits for as long as there is a higher one; that is what priorities say.

mod purpose;
mod queue;
mod sequence;
mod state;
#[cfg(test)]
mod tests;
mod turns;

pub use purpose::Purpose;
pub use sequence::{Arrival, SequenceId};
pub use state::{Admitted, Part, ScheduleCounts, ScheduleLimits, State, Step};
