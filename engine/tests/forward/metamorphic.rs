//! I20 on the CPU backend: alone or in a batch, in any chunks, with the prefix cache or without, preempted or not, each
//! sequence's logits are bit-equal at every place where a token is sampled.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use sparkherd_engine::backend::cases::Random;
use sparkherd_engine::{
    BackendChoice, ClientKey, ForwardPass, LoadedModel, Priority,
    kv::BlockPool,
    schedule::{Arrival, Purpose, ScheduleLimits, SequenceId, State},
};
use sparkherd_footprint::{BLOCK_TOKENS, KvDtype};

use crate::session::{bits, config, greedy, load};

/// Sequences of a batch.
const SEQUENCES: usize = 6;

/// Tokens each sequence samples.
const ANSWER: usize = 24;

/// The bits of the logits a token was sampled from, by sequence and tokens known.
type Sampled = BTreeMap<(u64, usize), Vec<u32>>;

/// How a run differs from another.
#[derive(Clone, Copy, Debug)]
struct Setting {
    tokens_per_step: usize,
    sequences: usize,
    blocks: u32,
    prefix_cache: bool,
}

/// Prompts of several lengths, two of which begin alike.
fn prompts(vocab_size: u32) -> Vec<Vec<u32>> {
    let mut random = Random::new(11);
    let mut tokens = |count: usize| random.tokens(count, vocab_size as usize);
    let stem = tokens(40);
    let lengths = [1, 9, 17, 33, 5, 20];
    lengths
        .iter()
        .enumerate()
        .map(|(index, length)| {
            let own = tokens(*length);
            if index.is_multiple_of(2) { [stem.clone(), own].concat() } else { own }
        })
        .collect()
}

/// Runs all prompts to their end; tells the logits, and the counts of preemptions and of tokens found.
fn run(model: &mut LoadedModel, prompts: &[Vec<u32>], setting: Setting) -> (Sampled, u64, u64) {
    let Setting { tokens_per_step, sequences, blocks, prefix_cache } = setting;
    let limits = ScheduleLimits { tokens_per_step, sequences, logit_rows: sequences, prefix_cache };
    let mut state = State::new(limits, BlockPool::new(blocks));
    let mut known = BTreeMap::new();
    for (id, tokens) in (0..).zip(prompts) {
        let (client, priority) = (ClientKey::default(), Priority::default());
        known.insert(id, tokens.len());
        state.enqueue(Arrival {
            id: SequenceId(id),
            client,
            priority,
            cache_salt: 0,
            purpose: Purpose::Generate,
            tokens: tokens.clone(),
        });
    }
    let mut sampled = Sampled::new();
    while !state.is_empty() {
        let step = state.step();
        let logits = model.forward(&step.batch).unwrap().logits;
        let complete = step.parts.iter().filter(|part| part.complete);
        for (row, part) in complete.enumerate() {
            let id = part.id.0;
            let row = logits.row(row).unwrap();
            sampled.insert((id, known[&id]), bits(row));
            *known.get_mut(&id).unwrap() += 1;
            if known[&id] == prompts[id as usize].len() + ANSWER {
                state.remove(part.id);
            } else {
                state.append(part.id, greedy(row));
            }
        }
    }
    assert_eq!(state.pool().free_blocks(), blocks as usize);
    (sampled, state.counts().preemptions, state.counts().cache_hits)
}

fn logits_do_not_depend_on_the_company(directory: &Path, kv_dtype: KvDtype) {
    let config = config(directory, BackendChoice::Cpu, kv_dtype, SEQUENCES as u32);
    let mut model = load(&config).unwrap();
    let vocab_size = model.checkpoint().inspection.facts.vocab_size;
    let prompts = prompts(vocab_size);
    let tokens_max = model.tokens_max();
    let all = (config.serving.kv_tokens / u64::from(BLOCK_TOKENS)) as u32;
    let alone = Setting { tokens_per_step: tokens_max, sequences: 1, blocks: all, prefix_cache: false };
    let (expected, preemptions, hits) = run(&mut model, &prompts, alone);
    assert_eq!((expected.len(), preemptions, hits), (prompts.len() * ANSWER, 0, 0));
    let together = Setting { sequences: SEQUENCES, ..alone };
    let longest = (40 + 33 + ANSWER).div_ceil(BLOCK_TOKENS as usize) as u32;
    let settings = [
        together,
        Setting { tokens_per_step: 7, ..together },
        Setting { tokens_per_step: 33, ..together },
        Setting { prefix_cache: true, ..alone },
        Setting { prefix_cache: true, ..together },
        Setting { blocks: longest + 3, ..together },
        Setting { blocks: longest + 3, tokens_per_step: 19, prefix_cache: true, ..together },
    ];
    let mut seen = BTreeSet::new();
    for setting in settings {
        let (sampled, preemptions, hits) = run(&mut model, &prompts, setting);
        assert!(sampled == expected, "{setting:?} on {}", directory.display());
        seen.extend([("preempted", preemptions > 0), ("found", hits > 0)]);
    }
    assert_eq!(seen.len(), 4, "the settings differ: {seen:?}");
}

#[test]
fn logits_are_bit_equal_alone_batched_chunked_cached_and_preempted() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("goldens");
    for name in ["tiny-llama3-bf16", "tiny-tied-f16", "tiny-untied-f32"] {
        for kv_dtype in [KvDtype::F32, KvDtype::Bf16] {
            logits_do_not_depend_on_the_company(&goldens.join(name), kv_dtype);
        }
    }
}
