use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{NONE, free};
use crate::{
    request::{Ends, Sampling},
    sample::{Adjustments, Draw, Penalties, RequestSampler, SampleError, Sampler, TokenCounts, TokenMask},
};

const DRAW: Draw = Draw { seed: 1, position: 1 };

/// The greedy choice after adjusting.
fn greedy(logits: &[f32], adjustments: Adjustments<'_>) -> Result<u32, SampleError> {
    Sampler::default().choose(logits, adjustments, &Sampling::default(), DRAW)
}

/// By a table over the whole vocabulary, term by term.
fn adjusted(logits: &[f32], sampling: &Sampling, prompt: &[u32], answer: &[u32]) -> Vec<f32> {
    (0..)
        .zip(logits)
        .map(|(token, logit)| {
            let mut logit = logit + sampling.logit_bias.get(&token).unwrap_or(&0.0);
            let count = answer.iter().filter(|other| **other == token).count();
            if count > 0 || prompt.contains(&token) {
                let factor = sampling.repetition_penalty;
                logit = if logit > 0.0 { logit / factor } else { logit * factor };
            }
            if count > 0 {
                logit -= sampling.frequency_penalty * count as f32 + sampling.presence_penalty;
            }
            logit
        })
        .collect()
}

#[test]
fn repetition_counts_prompt_and_answer_the_others_the_answer_only() {
    let logits = [3.0, 2.9, 2.8, -0.1];
    let chosen = |sampling: &Sampling, answer: &[u32]| {
        let mut penalties = Penalties::new(sampling, &[0]);
        for token in answer {
            penalties.observe(*token);
        }
        greedy(&logits, Adjustments { penalties: Some(&penalties), ..NONE }).unwrap()
    };
    let repetition = Sampling { repetition_penalty: 1.5, ..Sampling::default() };
    assert_eq!(chosen(&repetition, &[]), 1, "token 0 is in the prompt");
    assert_eq!(chosen(&repetition, &[1]), 2);
    let presence = Sampling { presence_penalty: 0.15, ..Sampling::default() };
    assert_eq!(chosen(&presence, &[]), 0, "the prompt does not count");
    assert_eq!(chosen(&presence, &[0]), 1);
    assert_eq!(chosen(&presence, &[0, 1, 1, 1, 1]), 0, "once, however often");
    let frequency = Sampling { frequency_penalty: 0.08, ..Sampling::default() };
    assert_eq!(chosen(&frequency, &[0]), 0);
    assert_eq!(chosen(&frequency, &[0, 0]), 1);
    let encouraged = Sampling { presence_penalty: -2.0, ..Sampling::default() };
    assert_eq!(chosen(&encouraged, &[2]), 2);
}

#[test]
fn a_bias_bans_a_token_or_leaves_no_other() {
    let bias = |token, bias| Sampling { logit_bias: BTreeMap::from([(token, bias)]), ..Sampling::default() };
    for (sampling, wanted) in [(bias(0, -100.0), 1), (bias(2, 100.0), 2), (bias(99, 100.0), 0)] {
        let penalties = Penalties::new(&sampling, &[]);
        assert_eq!(greedy(&[5.0, 4.0, 3.0], Adjustments { penalties: Some(&penalties), ..NONE }), Ok(wanted));
    }
}

#[test]
fn settings_that_are_off_change_nothing_and_keep_nothing() {
    let mut penalties = Penalties::new(&Sampling::default(), &[1, 2, 3]);
    penalties.observe(4);
    assert!(penalties.is_idle());
    assert_eq!(penalties, Penalties::new(&Sampling::default(), &[]));
}

#[test]
fn counts_hold_each_different_token_once() {
    let mut counts = TokenCounts::of_prompt(&[7, 3, 7, 7]);
    for token in [3, 9, 9, 1] {
        counts.add(token);
    }
    assert_eq!(counts.entries(), [(1, 1), (3, 1), (7, 0), (9, 2)]);
}

#[test]
fn a_mask_leaves_only_what_it_allows() {
    let mask: TokenMask = [1, 33].into_iter().collect();
    let mut logits = vec![2.0; 40];
    logits[33] = 1.0;
    logits[1] = 0.5;
    let masked = Adjustments { mask: Some(&mask), ..NONE };
    assert_eq!(greedy(&logits, masked), Ok(33));
    for position in 0..200 {
        let draw = Draw { seed: 3, position };
        let token = Sampler::default().choose(&logits, masked, &free(), draw).unwrap();
        assert!([1, 33].contains(&token));
    }
    let shorter: TokenMask = [0].into_iter().collect();
    assert_eq!(greedy(&[1.0, 9.0], Adjustments { mask: Some(&shorter), ..NONE }), Ok(0));
    let nothing: TokenMask = [50].into_iter().collect();
    let refused = greedy(&logits, Adjustments { mask: Some(&nothing), ..NONE });
    assert_eq!(refused, Err(SampleError::NothingAllowed));
    let banned = Adjustments { banned: &[1, 33], mask: Some(&mask), ..NONE };
    assert_eq!(greedy(&logits, banned), Err(SampleError::NothingAllowed));
}

#[test]
fn min_p_is_relative_to_the_likeliest() {
    // Weights 1, 0.5 and 0.05.
    let logits = [0.0, 0.5_f32.ln(), 0.05_f32.ln()];
    for (min_p, wanted) in [(0.0, 3), (0.04, 3), (0.06, 2), (0.49, 2), (0.6, 1), (1.0, 1)] {
        let sampling = Sampling { min_p, ..free() };
        let mut seen = [false; 3];
        for position in 0..500 {
            let draw = Draw { seed: 5, position };
            let token = Sampler::default().choose(&logits, NONE, &sampling, draw).unwrap();
            seen[token as usize] = true;
        }
        assert_eq!(seen.iter().filter(|seen| **seen).count(), wanted, "min_p {min_p}");
    }
}

#[test]
fn ends_are_not_chosen_before_min_tokens_unless_the_grammar_has_nothing_else() {
    let ends = Ends { min_tokens: 2, stop_token_ids: vec![1], ..Ends::default() };
    let logits = [1.0, 3.0, 2.0];
    let new = || RequestSampler::new(&Sampling::default(), 0, &[0], &ends, &[2], None);
    let mut sampler = Sampler::default();
    let mut request = new();
    let tokens: Vec<u32> =
        (0..3).map(|_| request.choose(&mut sampler, &logits, None).unwrap().token).collect();
    assert_eq!(tokens, [0, 0, 1]);
    let only_end: TokenMask = [2].into_iter().collect();
    assert_eq!(new().choose(&mut sampler, &logits, Some(&only_end)).unwrap().token, 2);
    let both: TokenMask = [0, 2].into_iter().collect();
    assert_eq!(new().choose(&mut sampler, &logits, Some(&both)).unwrap().token, 0);
}

proptest! {
    #[test]
    fn penalties_are_those_of_a_table_over_the_vocabulary(
        logits in prop::collection::vec(-8.0..8.0_f32, 20),
        prompt in prop::collection::vec(0..20_u32, 0..30),
        answer in prop::collection::vec(0..20_u32, 0..30),
        repetition_penalty in 0.5..2.0_f32,
        presence_penalty in -2.0..2.0_f32,
        frequency_penalty in -2.0..2.0_f32,
        logit_bias in prop::collection::btree_map(0..20_u32, -5.0..5.0_f32, 0..4),
    ) {
        let sampling = Sampling {
            repetition_penalty, presence_penalty, frequency_penalty, logit_bias, ..Sampling::default()
        };
        let mut penalties = Penalties::new(&sampling, &prompt);
        for token in &answer {
            penalties.observe(*token);
        }
        let mut candidates: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        penalties.apply(&mut candidates);
        let got: Vec<f32> = candidates.iter().map(|(_, logit)| *logit).collect();
        for (got, wanted) in got.iter().zip(adjusted(&logits, &sampling, &prompt, &answer)) {
            prop_assert!((got - wanted).abs() < 1e-5, "{got} is not {wanted}");
        }
    }

    /// A request's tokens are a function of its own arguments: a sampler shared with others gives the same.
    #[test]
    fn a_request_draws_the_same_tokens_whoever_draws_between(
        rows in prop::collection::vec(prop::collection::vec(-4.0..4.0_f32, 30), 1..8),
        other in prop::collection::vec(-4.0..4.0_f32, 50),
        seed in any::<u64>(),
        frequency_penalty in -1.0..1.0_f32,
    ) {
        let sampling = Sampling { frequency_penalty, ..free() };
        let new = |seed| RequestSampler::new(&sampling, seed, &[1, 2], &Ends::default(), &[], None);
        let (mut alone, mut shared) = (Sampler::default(), Sampler::default());
        let (mut first, mut second, mut neighbour) = (new(seed), new(seed), new(seed ^ 1));
        for row in &rows {
            neighbour.choose(&mut shared, &other, None).unwrap();
            let wanted = first.choose(&mut alone, row, None).unwrap();
            prop_assert_eq!(second.choose(&mut shared, row, None).unwrap(), wanted);
        }
    }
}
