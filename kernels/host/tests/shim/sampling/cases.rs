//! Rows of logits and what is asked of them: each setting by itself and together, on shapes that sorting and sums find hard.

use std::collections::BTreeMap;

use sparkherd_engine::sample::{RequestSampler, TokenMask, TokenRequest, TokenRequests};
use sparkherd_engine::{Ends, Sampling};

use sparkherd_engine::backend::cases::Random;

pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) logits: Vec<f32>,
    sampler: RequestSampler,
    mask: Option<TokenMask>,
}

impl Row {
    pub(crate) fn request(&self) -> TokenRequest<'_> {
        self.sampler.next(self.mask.as_ref())
    }
}

/// Asks of every row.
pub(crate) struct All<'a>(pub(crate) &'a [Row]);

impl TokenRequests for All<'_> {
    fn of(&mut self, sequence: usize) -> Option<TokenRequest<'_>> {
        self.0.get(sequence).map(Row::request)
    }
}

/// What is asked of a row. Where the vocabulary is small some tokens are beyond it.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) name: &'static str,
    pub(crate) sampling: Sampling,
    pub(crate) seed: u64,
    pub(crate) prompt: Vec<u32>,
    pub(crate) answer: Vec<u32>,
    /// Not chosen, as the answer may not end yet.
    pub(crate) banned: Vec<u32>,
    pub(crate) mask: Option<TokenMask>,
    pub(crate) top_logprobs: Option<u32>,
}

impl Settings {
    pub(crate) fn of(&self, name: String, logits: Vec<f32>) -> Row {
        let ends = Ends { min_tokens: u32::MAX, stop_token_ids: self.banned.clone(), ..Ends::default() };
        let Self { sampling, seed, prompt, answer, mask, top_logprobs, .. } = self;
        let mut sampler = RequestSampler::new(sampling, *seed, prompt, &ends, &[], *top_logprobs);
        for token in answer {
            sampler.observe(*token);
        }
        Row { name, logits, sampler, mask: mask.clone() }
    }
}

/// Rows, those of one vocabulary together.
pub(crate) fn all() -> Vec<Vec<Row>> {
    let mut random = Random::new(3);
    // No multiple of anything, of a warp, and fewer than a warp has lanes; a block has 1024 threads.
    let mut all: Vec<Vec<Row>> =
        [1, 29, 256, 2051].map(|vocabulary| each_setting(&mut random, vocabulary)).into();
    // As large as vocabularies are, and as kernels take.
    all.extend([152_064, 1 << 19].map(|vocabulary| large(&mut random, vocabulary)));
    all.push(draws(&mut random));
    all
}

fn each_setting(random: &mut Random, vocabulary: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for (shape, logits) in logits(random, vocabulary) {
        for settings in settings(random, &logits) {
            rows.push(settings.of(format!("sample {vocabulary} {shape}, {}", settings.name), logits.clone()));
        }
    }
    rows
}

/// Of the flat ones every weight is 1.
fn large(random: &mut Random, vocabulary: usize) -> Vec<Row> {
    let spread = (0..vocabulary).map(|_| 4.0 * (random.value() + random.value())).collect();
    let mut rows = Vec::new();
    for (shape, logits) in [("spread", spread), ("flat", vec![1.5; vocabulary])] {
        for top_p in [1.0, 0.9] {
            let sampling = Sampling { top_p, top_k: 100_000, ..free() };
            let settings =
                Settings { sampling, seed: random.next_u64(), top_logprobs: Some(20), ..Settings::default() };
            rows.push(settings.of(format!("large {vocabulary} {shape} {top_p}"), Vec::clone(&logits)));
        }
    }
    rows
}

/// Many of the same row. In a tail, most tokens have weights of less than 2^-12, whose sums go beyond what one bin of 32 bits has.
fn draws(random: &mut Random) -> Vec<Row> {
    const VOCABULARY: usize = 2053;
    const DRAWS: usize = 50;
    let spread: Vec<f32> = (0..VOCABULARY).map(|_| 7.0 * (random.value() + random.value())).collect();
    let tail: Vec<f32> = (0..VOCABULARY).map(|token| if token == 700 { 0.0 } else { -8.5 }).collect();
    let draws = [
        ("of all", free(), &spread),
        ("of a nucleus", Sampling { temperature: 0.8, top_p: 0.95, ..free() }, &spread),
        ("filtered", Sampling { temperature: 1.2, top_k: 50, top_p: 0.9, min_p: 0.01, ..free() }, &spread),
        ("of a tail", Sampling { top_p: 0.999, ..free() }, &tail),
    ];
    let mut rows = Vec::new();
    for (name, sampling, logits) in draws {
        for draw in 0..DRAWS {
            let settings =
                Settings { sampling: sampling.clone(), seed: random.next_u64(), ..Settings::default() };
            rows.push(settings.of(format!("draw {draw} {name}"), logits.clone()));
        }
    }
    rows
}

/// Rows by name.
fn logits(random: &mut Random, vocabulary: usize) -> Vec<(&'static str, Vec<f32>)> {
    let spread: Vec<f32> =
        (0..vocabulary).map(|_| 5.0 * (random.value() + random.value() + random.value())).collect();
    let tied = spread.iter().map(|logit| logit.round()).collect();
    let zeros = (0..vocabulary).map(|token| if token % 3 == 0 { -0.0 } else { 0.0 }).collect();
    let mut few = vec![f32::NEG_INFINITY; vocabulary];
    for _ in 0..5 {
        few[random.below(vocabulary)] = 8.0 * random.value();
    }
    let wide = spread.iter().map(|logit| logit * 6.0).collect();
    vec![("spread", spread), ("tied", tied), ("zeros", zeros), ("few", few), ("wide", wide)]
}

fn free() -> Sampling {
    Sampling { temperature: 1.0, ..Sampling::default() }
}

/// With the tokens of `logits` that matter: the likeliest, and some of all.
fn settings(random: &mut Random, logits: &[f32]) -> Vec<Settings> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
    let likeliest = order[..order.len().min(9)].to_vec();
    let some = random.tokens(40, logits.len() + 7);
    let mut all = plain();
    all.extend(changed(&likeliest, &some));
    all.extend(masked(random, &likeliest, logits.len()));
    for settings in &mut all {
        settings.seed = random.next_u64();
    }
    all
}

/// Filters alone and together.
fn plain() -> Vec<Settings> {
    let filters = [
        ("greedy", Sampling::default()),
        ("temperature", Sampling { temperature: 0.6, ..free() }),
        ("hot", Sampling { temperature: 2.0, ..free() }),
        ("top_k of one", Sampling { top_k: 1, ..free() }),
        ("top_k", Sampling { top_k: 7, ..free() }),
        ("top_k of more", Sampling { top_k: 300, temperature: 2.0, ..free() }),
        ("top_p of one", Sampling { top_p: 1e-6, ..free() }),
        ("top_p", Sampling { top_p: 0.7, ..free() }),
        ("top_p of more", Sampling { top_p: 0.9999, temperature: 2.0, ..free() }),
        ("min_p", Sampling { min_p: 0.05, ..free() }),
        ("min_p of one", Sampling { min_p: 1.0, ..free() }),
        ("filters", Sampling { temperature: 1.5, top_k: 30, top_p: 0.9, min_p: 0.01, ..free() }),
    ];
    let with = |(name, sampling)| Settings { name, sampling, ..Settings::default() };
    let mut all: Vec<_> = filters.into_iter().map(with).collect();
    for (name, top) in [("logprobs alone", 0), ("logprobs", 5), ("logprobs of most", 20)] {
        all.push(Settings { name, sampling: free(), top_logprobs: Some(top), ..Settings::default() });
    }
    all
}

/// Logits that a request changes.
fn changed(likeliest: &[u32], some: &[u32]) -> Vec<Settings> {
    let biases = |bias: f32| likeliest.iter().map(|token| (*token, bias)).collect::<BTreeMap<_, _>>();
    let twice = [likeliest, likeliest, some].concat();
    let of = |name, sampling| Settings { name, sampling, prompt: some.to_vec(), ..Settings::default() };
    vec![
        of("bias", Sampling { logit_bias: biases(-3.0), ..Sampling::default() }),
        of(
            "bias of some",
            Sampling { logit_bias: some.iter().map(|token| (*token, 4.5)).collect(), ..free() },
        ),
        of("repetition", Sampling { repetition_penalty: 1.7, ..Sampling::default() }),
        of("repetition wanted", Sampling { repetition_penalty: 0.6, temperature: 0.9, ..free() }),
        Settings {
            answer: twice.clone(),
            ..of("presence", Sampling { presence_penalty: 1.25, temperature: 0.3, ..free() })
        },
        Settings {
            answer: twice.clone(),
            ..of("frequency", Sampling { frequency_penalty: 0.8, ..Sampling::default() })
        },
        Settings { banned: likeliest.to_vec(), ..of("banned", Sampling::default()) },
        Settings {
            answer: twice,
            banned: some[..5].to_vec(),
            top_logprobs: Some(3),
            ..of(
                "changes",
                Sampling {
                    logit_bias: biases(0.75),
                    repetition_penalty: 1.2,
                    presence_penalty: 0.5,
                    frequency_penalty: -0.25,
                    top_p: 0.95,
                    top_k: 60,
                    ..free()
                },
            )
        },
    ]
}

/// Tokens that a grammar allows.
fn masked(random: &mut Random, likeliest: &[u32], vocabulary: usize) -> Vec<Settings> {
    let half: TokenMask = (0..vocabulary as u32).filter(|_| random.below(2) == 0).collect();
    let one: TokenMask = std::iter::once(random.below(vocabulary) as u32).collect();
    let first: TokenMask = likeliest.iter().copied().take(1).collect();
    let of = |name, sampling, mask: &TokenMask| Settings {
        name,
        sampling,
        mask: Some(mask.clone()),
        ..Settings::default()
    };
    vec![
        of("mask", free(), &half),
        of("mask and greedy", Sampling::default(), &half),
        of("mask and filters", Sampling { top_k: 20, top_p: 0.8, ..free() }, &half),
        of("mask of one", free(), &one),
        // What is banned is all that the grammar allows, which overrules the ban.
        Settings { banned: likeliest.to_vec(), ..of("mask of what is banned", free(), &first) },
        of("mask of nothing", free(), &TokenMask::default()),
        of("mask beyond", Sampling::default(), &std::iter::once(vocabulary as u32 + 40).collect()),
    ]
}
