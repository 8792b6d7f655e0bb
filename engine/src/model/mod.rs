//! One file per architecture: its order of operations, generic over the backend.

mod buffers;
mod limits;
mod llama;
mod step;

pub use buffers::Buffers;
pub use limits::StepLimits;
pub use llama::Llama;
pub use step::Step;
