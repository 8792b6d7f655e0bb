//! What needs a GPU to be proven, on any device: the host shim in tests, a GPU in `sparkherd-proof`.
//!
//! ```text
//! operation cases ──► device ──► within the bound of the oracle?
//! tiny checkpoints ─► device ──► the CPU's log-probabilities within a bound, its tokens? recorded = one by one?
//! a load, some steps ──────────► has memory moved by no more than the footprint?
//! shapes of models ─► device ──► microseconds, of the bandwidth or the peak measured in the same run, of the goal
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a proof that cannot be carried out has failed"
)]
#![expect(clippy::cast_possible_truncation, reason = "the sizes of these cases are small")]

pub mod bench;
pub mod checkpoints;
pub mod choices;
pub mod goal;
pub mod memory;
pub mod models;
pub mod nvfp4;
pub mod operations;
pub mod random_model;
pub mod recordings;
pub mod report;
pub mod sanitizer;
