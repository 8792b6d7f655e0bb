//! The scheduler against lists ([`reference`]), in rules of its own ([`rules`]), and the turns of clients ([`turns`]).

mod agreement;
mod reference;
mod rules;
mod turns;

use super::{Arrival, Purpose, ScheduleLimits, SequenceId};
use crate::request::{ClientKey, Priority};

const BLOCK: usize = sparkherd_footprint::BLOCK_TOKENS as usize;

const LIMITS: ScheduleLimits =
    ScheduleLimits { tokens_per_step: 64, sequences: 4, logit_rows: 4, prefix_cache: true };

/// A prompt that begins like all of its stem, and goes on like no other.
fn prompt(id: u64, stem: u32, shared: usize, length: usize) -> Vec<u32> {
    let token = |position: usize| {
        let position = u32::try_from(position).unwrap();
        if (position as usize) < shared { stem * 1_000 + position } else { own_token(id, position as usize) }
    };
    (0..length).map(token).collect()
}

/// The token of a sequence at a position: no other sequence has it.
fn own_token(id: u64, position: usize) -> u32 {
    u32::try_from(1_000_000 + id * 10_000).unwrap() + u32::try_from(position).unwrap()
}

fn arrival(id: u64, tokens: Vec<u32>) -> Arrival {
    let (client, priority) = (ClientKey::default(), Priority::default());
    Arrival { id: SequenceId(id), client, priority, cache_salt: 0, purpose: Purpose::Generate, tokens }
}
