//! A checkpoint's tensors, from files into one arena.
//!
//! ```text
//! TensorIndex ─ claim ─► placed: (file, offset) ─► (arena offset) ─► read by a few threads ─► Weight by name
//! ```

mod directory;
mod placement;
mod read;
mod rows;
mod source;

pub use directory::ModelDirectory;
pub use placement::{PlacedTensor, Placement, PlacementError, UnclaimedWeights};
pub use read::{ReadError, Target, WEIGHT_BUFFERS_BYTES, WeightSink, read};
