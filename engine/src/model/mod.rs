//! One file per order of operations, generic over the backend.

mod buffers;
mod decoder;
mod limits;
mod step;

pub use buffers::Buffers;
pub use decoder::Decoder;
pub use limits::StepLimits;
pub use step::Step;
