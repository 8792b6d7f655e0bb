use std::time::Duration;

use sparkherd_footprint::QUEUE_CONTEXTS;

use crate::admission::QueueLimits;

/// Requests of one account that may run or wait. At a few seconds an answer and 16 at a time, the last of them waits about
/// a minute, which is as long as clients do.
const QUEUE_REQUESTS: u32 = 256;

/// The queue holds as much as so many accounts may have: whatever one does, another finds room.
const QUEUE_ACCOUNTS: u32 = 2;

/// What the engine was loaded for, and what it takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLimits {
    /// Tokens one sequence may hold, prompt and answer together.
    pub context: u32,
    /// Blocks of [`sparkherd_footprint::BLOCK_TOKENS`] tokens in the KV pool.
    pub kv_blocks: u32,
    /// Rows of the embedding; every prompt token is below it.
    pub vocab_size: u32,
    /// Whether requests may share the blocks of a common beginning.
    pub prefix_cache: bool,
    pub queue: QueueLimits,
    pub timeouts: Timeouts,
}

/// What the KV pool was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSize {
    pub block_tokens: u32,
    pub blocks: u32,
    /// Whether requests may share the blocks of a common beginning.
    pub prefix_cache: bool,
}

/// How long anything may take. A request's times count from its acceptance, and one that runs out of them ends with
/// `GenerationError::TimedOut`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Waiting to run for the first time.
    pub queue: Duration,
    pub first_token: Duration,
    /// To the last token.
    pub total: Duration,
    /// One step of the engine: a longer one makes it unhealthy.
    pub step: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            // OpenAI's clients give up after 10 minutes without a byte; whoever waited half of that in the queue can still
            // get a first token before.
            queue: Duration::from_mins(5),
            first_token: Duration::from_mins(10),
            // A context of 128 thousand tokens at 40 a second, which nobody is likely to still read.
            total: Duration::from_hours(1),
            // Milliseconds on a GPU, a few seconds on the CPU backend with a large model; a minute is neither.
            step: Duration::from_mins(1),
        }
    }
}

impl EngineLimits {
    /// Sizes as given, and the usual queue and time-outs.
    pub fn new(context: u32, kv_blocks: u32, vocab_size: u32) -> Self {
        // For one account half of it: as many long conversations as a batch usually holds.
        let prompt_tokens = u64::from(context) * QUEUE_CONTEXTS;
        let queue = QueueLimits {
            requests: QUEUE_REQUESTS * QUEUE_ACCOUNTS,
            prompt_tokens,
            client_requests: QUEUE_REQUESTS,
            client_prompt_tokens: prompt_tokens / u64::from(QUEUE_ACCOUNTS),
        };
        Self { context, kv_blocks, vocab_size, prefix_cache: true, queue, timeouts: Timeouts::default() }
    }
}
