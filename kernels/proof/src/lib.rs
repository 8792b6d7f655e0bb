//! What needs a GPU to be proven, on any device: the host shim in tests, a GPU in `sparkherd-proof`.
//!
//! ```text
//! operation cases ──► device ──► within the bound of the oracle?
//! tiny checkpoints ─► device ──► the CPU's tokens, or a near-tie? recorded = one by one?
//! shapes of models ─► device ──► microseconds, of the bandwidth or the peak measured in the same run
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
pub mod models;
pub mod nvfp4;
pub mod operations;
pub mod recordings;
pub mod report;
