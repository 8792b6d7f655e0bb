//! Logits to a token.
//!
//! The choice is a function of the logits, the settings, the request's seed and the token's position, and of nothing else:
//! what else is in the batch, or whether the sequence was preempted on the way, cannot change it (I20).
//!
//! Order of the filters, as in transformers and vLLM: temperature, then `top_k`, then `top_p`.

mod random;
mod sampler;
#[cfg(test)]
mod tests;

pub use random::uniform;
pub use sampler::{Draw, SampleError, Sampler};
