//! The weights on this node.
//!
//! ```text
//! Model.spec.source ──locate──► Located {directory, root, fingerprint}   cheap, every few seconds
//!                                   │ new fingerprint, or back-off over
//!                                   ▼
//!                        `sparkherd inspect` child ──► ModelCopy: whole, with its digest, or why not
//! ```
//!
//! This version serves `file://` only: weights stay where they lie, below a root that the admin allowed.

mod copy;
mod inspect;
mod locate;

pub use copy::{CopyFacts, ModelCopy, Weights, mismatch, reason};
pub use inspect::Inspector;
pub use locate::{LocateError, Located, Roots};
