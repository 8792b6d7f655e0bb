//! The bytes a replica takes: the product's promise, as arithmetic.
//!
//! ```text
//! Facts (checkpoint) + Serving (settings) + Platform (backend, threads) ──► Footprint {device, host, parts}
//!                                                                      └──► Workspace: every buffer by name, which the
//!                                                                           engine allocates exactly
//! ```
//!
//! The planner, the agent, `sparkherd fit` and the engine's own loader call the same function; the loader fails when what
//! it allocated differs. Pure and total: any facts and settings give bytes or a [`FootprintError`].

mod context;
mod grammars;
mod kv;
mod plan;
mod platform;
mod serving;
mod sizes;
mod workspace;

pub use context::{context_candidates, largest_context, largest_context_fitting};
pub use grammars::{GRAMMAR_HOST_BYTES_PER_KV_TOKEN, GrammarRoom};
pub use kv::{
    kv_bytes_per_token, kv_dtype_auto, kv_tokens_default, serving_default, serving_for_memory_cap,
    whole_blocks,
};
pub use plan::{
    FootprintError, GRAMMAR_HOST_BYTES_PER_VOCABULARY_TOKEN, QUEUE_CONTEXTS,
    TOKENIZER_HOST_BYTES_PER_FILE_BYTE, plan, step_tokens_max,
};
pub use platform::{
    Backend, CPU_RUNTIME_HOST_BYTES, CUDA_RUNTIME_DEVICE_BYTES, CUDA_RUNTIME_HOST_BYTES, PINNED_HOST_BYTES,
    Platform,
};
pub use serving::{KvDtype, Serving};
pub use sizes::{Footprint, Parts};
pub use workspace::{ATTENTION_SPLITS_MAX, Buffer, SAMPLE_CHANGES, Workspace, logit_rows_max, workspace};

/// Tokens in one block of the paged KV pool.
pub const BLOCK_TOKENS: u32 = 16;
