//! Logits to a token, to log-probabilities, and hidden states to an embedding.
//!
//! ```text
//! logits ─► logit_bias ─► penalties ─► min_tokens ─► grammar mask ─► temperature ─► top_k ─► min_p ─► top_p ─► token
//!    └────► log-softmax ─► log-probabilities
//! ```
//!
//! The choice is a function of the logits, the settings, the request's own tokens, its seed and the token's position, and
//! of nothing else: what else is in the batch, or whether the sequence was preempted on the way, cannot change it (I20).
//!
//! A device that has the logits may choose by itself (`kernels/cu/sample.cu`); what is here says what it has to choose.
//!
//! The order is vLLM's. Log-probabilities are those of the model itself, as OpenAI and vLLM tell them: nothing a request
//! sets changes them.

mod counts;
mod logprobs;
mod mask;
mod penalties;
mod pooling;
mod prompt;
mod random;
mod request;
mod sampler;
#[cfg(test)]
mod tests;

pub use counts::TokenCounts;
pub use logprobs::token_logprob;
pub use mask::TokenMask;
pub use penalties::Penalties;
pub use pooling::{Pool, Pooling};
pub use prompt::PromptLogprobs;
pub use random::uniform;
pub use request::{Chosen, NoTokens, RequestSampler, TokenRequest, TokenRequests};
pub use sampler::{Adjustments, Draw, SampleError, Sampler};
