//! Parts that architectures are made of, each with its weights and its order of operations.

mod attention;
mod feed_forward;
mod rope;

pub use attention::{AttentionLayer, Projection};
pub use feed_forward::GatedFeedForward;
pub use rope::RotaryEmbedding;
