use sparkherd_checkpoint::Facts;

use crate::{BLOCK_TOKENS, Footprint, Platform, Serving, kv_tokens_default, plan};

/// Contexts that are tried, largest first, where the user did not say: enough for agents reading code at the top, a short
/// chat at the bottom.
const CONTEXTS: [u32; 4] = [32_768, 16_384, 8192, 4096];

/// A context that is told to a person is a multiple of this, where it is at least as large.
const ROUND_CONTEXT_TOKENS: u32 = 256;

/// Contexts to choose from where the user did not say, largest first: 32768, 16384, 8192 and 4096, each cut to the model's
/// maximum, each once.
pub fn context_candidates(facts: &Facts) -> Vec<u32> {
    let mut candidates = CONTEXTS.map(|context| context.min(facts.max_context)).to_vec();
    candidates.dedup();
    candidates
}

/// The largest context whose footprint `fits` accepts, with the pool sized by [`kv_tokens_default`] and all else as in
/// `template`: the model's maximum, or a round number below it. `None` where not even one block does.
///
/// `fits` must accept whatever is smaller in every part than something it accepts.
pub fn largest_context(
    facts: &Facts,
    template: &Serving,
    platform: &Platform,
    fits: impl Fn(&Footprint) -> bool,
) -> Option<u32> {
    let accepted = |context: u32| {
        let kv_tokens = kv_tokens_default(context, template.concurrency);
        let serving = Serving { context, kv_tokens, ..template.clone() };
        plan(facts, &serving, platform).is_ok_and(|footprint| fits(&footprint))
    };
    if accepted(facts.max_context) {
        return Some(facts.max_context);
    }
    // Bisection over blocks: `low` blocks are accepted (0 stands for none), `high` are not or are the maximum.
    let (mut low, mut high) = (0, facts.max_context.div_ceil(BLOCK_TOKENS));
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if accepted(middle * BLOCK_TOKENS) { low = middle } else { high = middle }
    }
    let context = low * BLOCK_TOKENS;
    let round = context - context % ROUND_CONTEXT_TOKENS;
    [round, context].into_iter().find(|context| *context > 0)
}

/// [`largest_context`] in one pool of `room_bytes` that device and host share.
pub fn largest_context_fitting(
    facts: &Facts,
    template: &Serving,
    platform: &Platform,
    room_bytes: u64,
) -> Option<u32> {
    largest_context(facts, template, platform, |footprint| footprint.total_bytes() <= room_bytes)
}
