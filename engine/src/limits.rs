use crate::admission::QueueLimits;

/// Requests that may wait beside those that run. At a few seconds an answer and 16 at a time, the last of them waits about
/// a minute, which is as long as clients do.
const QUEUE_REQUESTS: u32 = 256;

/// Prompt tokens that may wait, in full contexts: as many long conversations as a batch usually holds.
const QUEUE_CONTEXTS: u64 = 16;

/// What the engine was loaded for, and what it takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLimits {
    /// Tokens one sequence may hold, prompt and answer together.
    pub context: u32,
    /// Blocks of [`sparkherd_footprint::BLOCK_TOKENS`] tokens in the KV pool.
    pub kv_blocks: u32,
    /// Rows of the embedding; every prompt token is below it.
    pub vocab_size: u32,
    pub queue: QueueLimits,
}

impl EngineLimits {
    /// Sizes as given, and the usual queue: one client may fill it, as long as it is alone.
    pub fn new(context: u32, kv_blocks: u32, vocab_size: u32) -> Self {
        let prompt_tokens = u64::from(context) * QUEUE_CONTEXTS;
        let queue = QueueLimits {
            requests: QUEUE_REQUESTS,
            prompt_tokens,
            client_requests: QUEUE_REQUESTS,
            client_prompt_tokens: prompt_tokens,
        };
        Self { context, kv_blocks, vocab_size, queue }
    }
}
