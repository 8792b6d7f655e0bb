use sparkherd_checkpoint::{Dtype, Facts};
use thiserror::Error;

use crate::{BLOCK_TOKENS, Backend, Footprint, KvDtype, Parts, Platform, Serving, workspace};

/// Host bytes of a parsed tokenizer per byte of `tokenizer.json`.
///
/// The parsed form keeps every token twice (text to id, id to text), every merge as a pair of ids, and a trie of the
/// special tokens; the JSON text itself is dropped after parsing. Eight covers what `tokenizers` 0.23 held for
/// vocabularies of 2 000 to 128 000 entries (about 5 to 7 bytes per byte of file).
pub const TOKENIZER_HOST_BYTES_PER_FILE_BYTE: u64 = 8;

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
/// `weights = Σ stored tensors, padded`, `kv = kv_tokens × `[`kv_bytes_per_token`], `workspace =` [`workspace`],
/// `runtime = platform's constants + tokenizer`. On CUDA the first three and `runtime_device_bytes` are device memory;
/// on the CPU everything is host memory.
pub fn plan(facts: &Facts, serving: &Serving, platform: &Platform) -> Result<Footprint, FootprintError> {
    check(facts, serving, platform)?;
    let kv_bytes = kv_bytes_per_token(facts, serving.kv_dtype)?
        .checked_mul(serving.kv_tokens)
        .ok_or(FootprintError::TooLarge { part: "kv" })?;
    let workspace_bytes = workspace(facts, serving, platform)?.bytes()?;
    let runtime_host_bytes = facts
        .tokenizer_bytes
        .checked_mul(TOKENIZER_HOST_BYTES_PER_FILE_BYTE)
        .and_then(|tokenizer| tokenizer.checked_add(platform.runtime_host_bytes))
        .ok_or(FootprintError::TooLarge { part: "runtime" })?;
    let runtime_device_bytes = match platform.backend {
        Backend::Cuda => platform.runtime_device_bytes,
        Backend::Cpu => 0,
    };
    let runtime_bytes = runtime_host_bytes
        .checked_add(runtime_device_bytes)
        .ok_or(FootprintError::TooLarge { part: "runtime" })?;
    let arenas_bytes = facts
        .weight_bytes
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
        parts: Parts {
            weights_bytes: facts.weight_bytes,
            kv_bytes,
            state_bytes: 0,
            workspace_bytes,
            runtime_bytes,
        },
    })
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

/// Bytes that one token takes in the KV pool over all layers: `2 × layers × kv_heads × head_dim × element`.
pub fn kv_bytes_per_token(facts: &Facts, kv_dtype: KvDtype) -> Result<u64, FootprintError> {
    [facts.kv_heads, facts.head_dim]
        .iter()
        .try_fold(2 * u64::from(facts.layers), |product, size| product.checked_mul(u64::from(*size)))
        .and_then(|elements| elements.checked_mul(kv_dtype.bytes()))
        .ok_or(FootprintError::TooLarge { part: "kv" })
}

/// How the KV cache stores its elements where the user did not say.
///
/// A BF16 checkpoint was trained with keys and values rounded to BF16, so storing them so loses nothing the model
/// relied on and halves the pool. BF16 has 8 bits of significand against F16's 11 and F32's 24: for those checkpoints
/// BF16 would add an error that their own arithmetic does not have, so the pool stays in F32, the type the CPU computes in.
pub const fn kv_dtype_auto(dtype: Dtype) -> KvDtype {
    match dtype {
        Dtype::Bf16 => KvDtype::Bf16,
        Dtype::F32 | Dtype::F16 => KvDtype::F32,
    }
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
