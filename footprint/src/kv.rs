use sparkherd_checkpoint::{Dtype, Facts, Requantize};

use crate::{
    BLOCK_TOKENS, FootprintError, GRAMMAR_HOST_BYTES_PER_KV_TOKEN, KvDtype, Platform, Serving, plan,
};

/// Tokens of pool per sequence beyond the first where the user did not say: most conversations stay below this, and where
/// they do not, the scheduler preempts.
const SHARED_CONTEXT_TOKENS: u32 = 2048;

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
/// Block formats have coarser steps in every weight than BF16 adds to keys and values.
pub const fn kv_dtype_auto(dtype: Dtype) -> KvDtype {
    match dtype {
        Dtype::Bf16 | Dtype::Q8_0 | Dtype::Q4_0 | Dtype::Q4K | Dtype::Q6K => KvDtype::Bf16,
        Dtype::F32 | Dtype::F16 => KvDtype::F32,
    }
}

/// `tokens` rounded up to whole blocks of [`BLOCK_TOKENS`].
pub const fn whole_blocks(tokens: u64) -> u64 {
    let block = BLOCK_TOKENS as u64;
    tokens.div_ceil(block).saturating_mul(block)
}

/// Size of the pool where the user did not say, tokens: `context + (concurrency − 1) × min(context, 2048)`, in whole
/// blocks. Sequences share it.
pub fn kv_tokens_default(context: u32, concurrency: u32) -> u64 {
    let others = u64::from(concurrency.saturating_sub(1));
    // At most 2^32 + 2^32 × 2^11: far inside 64 bits.
    whole_blocks(u64::from(context) + others * u64::from(context.min(SHARED_CONTEXT_TOKENS)))
}

/// Settings that follow from a context and a concurrency alone.
pub fn serving_default(facts: &Facts, context: u32, concurrency: u32) -> Serving {
    Serving {
        context,
        concurrency,
        kv_tokens: kv_tokens_default(context, concurrency),
        kv_dtype: kv_dtype_auto(facts.dtype),
        requantize: Requantize::None,
    }
}

/// Settings whose whole footprint stays within `memory_bytes`: the pool gets what weights, workspace and runtime leave,
/// in whole blocks. `template.kv_tokens` is ignored.
///
/// [`FootprintError::MemoryCap`] where not even one context fits.
pub fn serving_for_memory_cap(
    facts: &Facts,
    template: &Serving,
    platform: &Platform,
    memory_bytes: u64,
) -> Result<Serving, FootprintError> {
    let smallest = Serving { kv_tokens: whole_blocks(u64::from(template.context)), ..template.clone() };
    let needed_bytes = plan(facts, &smallest, platform)?.total_bytes();
    let spare_bytes = memory_bytes.checked_sub(needed_bytes).ok_or(FootprintError::MemoryCap {
        memory_bytes,
        needed_bytes,
        context: template.context,
    })?;
    let token_bytes = kv_bytes_per_token(facts, template.kv_dtype)?;
    let block_bytes = token_bytes
        .checked_add(GRAMMAR_HOST_BYTES_PER_KV_TOKEN)
        .and_then(|bytes| bytes.checked_mul(u64::from(BLOCK_TOKENS)))
        .ok_or(FootprintError::TooLarge { part: "kv" })?;
    // A model without keys and values has nothing to spend the rest on.
    let spare_blocks = if token_bytes == 0 { 0 } else { spare_bytes / block_bytes };
    // The tokens' bytes fit into `memory_bytes`, so their number fits too.
    let kv_tokens = smallest.kv_tokens + spare_blocks * u64::from(BLOCK_TOKENS);
    Ok(Serving { kv_tokens, ..smallest })
}
