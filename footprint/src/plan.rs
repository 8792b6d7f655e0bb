use sparkherd_checkpoint::{Facts, Requantize};
use thiserror::Error;

use crate::{
    BLOCK_TOKENS, Backend, Footprint, GrammarRoom, Parts, Platform, Serving, kv_bytes_per_token, workspace,
};

/// Host bytes of a parsed tokenizer per byte of `tokenizer.json`.
///
/// The parsed form keeps every token twice (text to id, id to text) and every merge as a pair of ids in a hash map. Measured
/// with `tokenizers` 0.23, glibc's allocator and freed pages given back (`cargo bench --bench vocabulary_memory`), beyond the
/// 6.9 MiB that even a tokenizer of 291 tokens takes, which are part of [`Platform::runtime_host_bytes`]: 6.9 bytes with
/// Llama 3's (128 256 tokens), 7.7 with Qwen2's (151 936), 8.8 with Llama 2's (32 000).
pub const TOKENIZER_HOST_BYTES_PER_FILE_BYTE: u64 = 9;

/// Host bytes of the grammar compiler per token of the vocabulary: a trie of all tokens' bytes, its slices and the map back
/// to tokens.
///
/// Measured with `llguidance` 1.9 in the same way: 369 bytes with Llama 3's and Qwen2's vocabularies, 384 with Llama 2's, 606
/// with 128 thousand words of random letters, which share less than any language's. The rest is for longer tokens.
pub const GRAMMAR_HOST_BYTES_PER_VOCABULARY_TOKEN: u64 = 512;

/// Prompts that may wait to be computed, in full contexts.
pub const QUEUE_CONTEXTS: u64 = 32;

/// Host bytes of a token of a prompt that waits: its number, in the queue and beside the answer that is being written.
const PROMPT_HOST_BYTES_PER_TOKEN: u64 = 8;

/// Tokens of one step on CPU cores: the matrix work stops gaining from more rows well before this, and a chunk of 512
/// keeps the pause between two decode steps short while a long prompt is read.
const CPU_STEP_TOKENS: u32 = 512;

/// Tokens of one step on a GPU: enough rows to be bound by arithmetic and not by reading the weights.
const CUDA_STEP_TOKENS: u32 = 2048;

/// Why settings give no footprint.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FootprintError {
    #[error("context is {context} tokens, the model allows 1 to {context_max}")]
    Context { context: u32, context_max: u32 },
    #[error("concurrency is 0, needs at least 1")]
    NoConcurrency,
    #[error("platform has 0 threads, needs at least 1")]
    NoThreads,
    #[error("KV pool of {kv_tokens} tokens is not a multiple of the block of {BLOCK_TOKENS}")]
    KvPartialBlock { kv_tokens: u64 },
    #[error("KV pool of {kv_tokens} tokens is smaller than one context of {context} tokens")]
    KvPoolTooSmall { kv_tokens: u64, context: u32 },
    #[error("bytes of {part} exceed 64 bits")]
    TooLarge { part: &'static str },
    #[error(
        "memory cap of {memory_bytes} bytes is too small: weights, workspace, runtime and a KV pool of one context of \
         {context} tokens take {needed_bytes} bytes"
    )]
    MemoryCap { memory_bytes: u64, needed_bytes: u64, context: u32 },
}

/// Bytes a replica of this model takes with these settings on this platform.
///
/// `weights = Σ tensors as kept, padded`, `kv = kv_tokens × `[`kv_bytes_per_token`], `workspace =` [`workspace`],
/// `runtime = platform's constants + tokenizer + grammar compiler + grammars + waiting prompts + transfers`. On CUDA the first three and
/// `runtime_device_bytes` are device memory; on the CPU everything is host memory.
pub fn plan(facts: &Facts, serving: &Serving, platform: &Platform) -> Result<Footprint, FootprintError> {
    check(facts, serving, platform)?;
    let kv_bytes = kv_bytes_per_token(facts, serving.kv_dtype)?
        .checked_mul(serving.kv_tokens)
        .ok_or(FootprintError::TooLarge { part: "kv" })?;
    let workspace = workspace(facts, serving, platform)?;
    let workspace_bytes = workspace.bytes()?;
    let transfer_bytes = match platform.backend {
        Backend::Cuda => workspace.transfer_bytes().ok_or(FootprintError::TooLarge { part: "workspace" })?,
        Backend::Cpu => 0,
    };
    let grammar_bytes = u64::from(facts.vocab_size) * GRAMMAR_HOST_BYTES_PER_VOCABULARY_TOKEN;
    let runtime_host_bytes = facts
        .tokenizer_bytes
        .checked_mul(TOKENIZER_HOST_BYTES_PER_FILE_BYTE)
        .and_then(|tokenizer| tokenizer.checked_add(grammar_bytes))
        .and_then(|text| text.checked_add(GrammarRoom::new(serving.concurrency, serving.kv_tokens).bytes()?))
        .and_then(|text| {
            text.checked_add(u64::from(serving.context) * QUEUE_CONTEXTS * PROMPT_HOST_BYTES_PER_TOKEN)
        })
        .and_then(|text| text.checked_add(platform.runtime_host_bytes))
        .and_then(|host| host.checked_add(transfer_bytes))
        .ok_or(FootprintError::TooLarge { part: "runtime" })?;
    let runtime_device_bytes = match platform.backend {
        Backend::Cuda => platform.runtime_device_bytes,
        Backend::Cpu => 0,
    };
    let runtime_bytes = runtime_host_bytes
        .checked_add(runtime_device_bytes)
        .ok_or(FootprintError::TooLarge { part: "runtime" })?;
    let weights_bytes = weights_bytes(facts, serving.requantize);
    let arenas_bytes = weights_bytes
        .checked_add(kv_bytes)
        .and_then(|sum| sum.checked_add(workspace_bytes))
        .ok_or(FootprintError::TooLarge { part: "total" })?;
    let total_bytes =
        arenas_bytes.checked_add(runtime_bytes).ok_or(FootprintError::TooLarge { part: "total" })?;
    let device_bytes = match platform.backend {
        Backend::Cuda => total_bytes - runtime_host_bytes,
        Backend::Cpu => 0,
    };
    Ok(Footprint {
        device_bytes,
        host_bytes: total_bytes - device_bytes,
        parts: Parts { weights_bytes, kv_bytes, state_bytes: 0, workspace_bytes, runtime_bytes },
    })
}

/// Facts from before requantising existed bound it from above: a Q8_0 block is smaller than the same elements in any type
/// that becomes one.
fn weights_bytes(facts: &Facts, requantize: Requantize) -> u64 {
    match requantize {
        Requantize::None => facts.weight_bytes,
        Requantize::Int8 => facts.int8_weight_bytes.unwrap_or(facts.weight_bytes),
    }
}

fn check(facts: &Facts, serving: &Serving, platform: &Platform) -> Result<(), FootprintError> {
    let Serving { context, concurrency, kv_tokens, .. } = *serving;
    if context == 0 || context > facts.max_context {
        return Err(FootprintError::Context { context, context_max: facts.max_context });
    }
    if concurrency == 0 {
        return Err(FootprintError::NoConcurrency);
    }
    if platform.threads == 0 {
        return Err(FootprintError::NoThreads);
    }
    if !kv_tokens.is_multiple_of(u64::from(BLOCK_TOKENS)) {
        return Err(FootprintError::KvPartialBlock { kv_tokens });
    }
    if kv_tokens < u64::from(context) {
        return Err(FootprintError::KvPoolTooSmall { kv_tokens, context });
    }
    Ok(())
}

/// Most tokens of one step, decodes and prefill chunks together: at least one per sequence, so that every running
/// sequence can decode in each step, and never more than all sequences' contexts hold.
pub fn step_tokens_max(serving: &Serving, backend: Backend) -> u32 {
    let budget = match backend {
        Backend::Cpu => CPU_STEP_TOKENS,
        Backend::Cuda => CUDA_STEP_TOKENS,
    };
    budget.min(serving.concurrency.saturating_mul(serving.context)).max(serving.concurrency)
}
