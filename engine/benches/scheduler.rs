//! CPU time of one step of the scheduler: which tokens are next, and taking 32 sampled ones in.
//!
//! `cargo bench --workspace --bench scheduler`; the bar is 150 µs a step at 32 sequences. With `--profile dev` the engine is
//! as optimised and nothing else is built anew.

#![expect(clippy::print_stdout, reason = "prints its result")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "all counts here are small")]

use std::time::{Duration, Instant};

use sparkherd_engine::{
    ClientKey, Priority,
    kv::BlockPool,
    schedule::{Arrival, Purpose, ScheduleLimits, SequenceId, State},
};

const SEQUENCES: usize = 32;
const STEPS: usize = 2_000;
const LIMITS: ScheduleLimits = ScheduleLimits {
    tokens_per_step: 2_048,
    sequences: SEQUENCES,
    logit_rows: SEQUENCES,
    prefix_cache: true,
};
/// Enough for every sequence's prompt, answer, and as much again to be remembered.
const BLOCKS: u32 = 16_384;

/// Prompts of different clients; half of each is common to all.
fn arrival(id: u64, prompt_tokens: usize) -> Arrival {
    let token =
        |position: usize| if position < prompt_tokens / 2 { position } else { position + 31 * id as usize };
    Arrival {
        id: SequenceId(id),
        client: ClientKey(id % 8),
        priority: Priority::Interactive,
        cache_salt: 0,
        purpose: Purpose::Generate,
        tokens: (0..prompt_tokens).map(|position| token(position) as u32).collect(),
    }
}

/// The times of `STEPS` steps; every `answer` steps of a sequence it ends and another comes.
fn times(prompt_tokens: usize, answer: usize) -> Vec<Duration> {
    let mut state = State::new(LIMITS, BlockPool::new(BLOCKS));
    let mut sampled = vec![0_usize; SEQUENCES];
    let mut next_id = SEQUENCES as u64;
    (0..next_id).for_each(|id| state.enqueue(arrival(id, prompt_tokens)));
    let mut times = Vec::with_capacity(STEPS);
    // The first prompts are not a steady state.
    for index in 0..STEPS + 100 {
        let start = Instant::now();
        let step = state.step();
        for part in step.parts.iter().filter(|part| part.complete) {
            let place = part.id.0 as usize;
            sampled[place] += 1;
            // Those of the beginning end one after the other, not all at once.
            let early = if place < SEQUENCES { place * answer / SEQUENCES } else { 0 };
            if sampled[place] + early >= answer {
                state.remove(part.id);
                state.enqueue(arrival(next_id, prompt_tokens));
                next_id += 1;
                sampled.push(0);
            } else {
                state.append(part.id, sampled[place] as u32);
            }
        }
        if index >= 100 {
            times.push(start.elapsed());
        }
    }
    times.sort_unstable();
    times
}

fn main() {
    println!("one step at {SEQUENCES} sequences, µs: median, 90 %, 99 %");
    for (prompt_tokens, answer) in [(2_048, 3_000), (512, 256), (2_048, 256), (2_048, 32)] {
        let times = times(prompt_tokens, answer);
        let at = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e6;
        println!(
            "  prompts of {prompt_tokens:4}, answers of {answer:4}: {:7.1} {:7.1} {:7.1}",
            at(0.5),
            at(0.9),
            at(0.99)
        );
    }
}
