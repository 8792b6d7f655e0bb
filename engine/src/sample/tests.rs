use std::collections::BTreeSet;

use proptest::prelude::*;

mod adjustments;
mod logprobs;
mod pooling;

use super::{Adjustments, Draw, SampleError, Sampler, uniform};
use crate::request::Sampling;

const NONE: Adjustments<'static> = Adjustments { penalties: None, banned: &[], mask: None };

fn free() -> Sampling {
    Sampling { temperature: 1.0, ..Sampling::default() }
}

/// How often each token is chosen in `draws` draws.
fn counts(logits: &[f32], sampling: &Sampling, draws: u64) -> Vec<u64> {
    let mut sampler = Sampler::default();
    let mut counts = vec![0; logits.len()];
    for position in 0..draws {
        let token = sampler.choose(logits, NONE, sampling, Draw { seed: 7, position }).unwrap();
        counts[token as usize] += 1;
    }
    counts
}

/// Probabilities after the filters, by sorting everything.
fn expected(logits: &[f32], sampling: &Sampling) -> Vec<f64> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k as usize);
    }
    let weight = |token: &usize| f64::from(logits[*token] / sampling.temperature).exp();
    let total: f64 = order.iter().map(weight).sum();
    let mut reached = 0.0;
    let crossing = order.iter().position(|token| {
        reached += weight(token) / total;
        reached >= f64::from(sampling.top_p)
    });
    order.truncate(crossing.map_or(order.len(), |last| last + 1));
    let kept: f64 = order.iter().map(weight).sum();
    let mut probabilities = vec![0.0; logits.len()];
    for token in &order {
        probabilities[*token] = weight(token) / kept;
    }
    probabilities
}

#[test]
fn greedy_takes_the_largest_and_the_lowest_of_equals() {
    let greedy = Sampling { temperature: 0.0, ..free() };
    let draw = Draw { seed: 1, position: 1 };
    let mut sampler = Sampler::default();
    assert_eq!(sampler.choose(&[0.5, 2.0, 2.0, -1.0], NONE, &greedy, draw), Ok(1));
    assert_eq!(sampler.choose(&[f32::NEG_INFINITY, -3.0], NONE, &greedy, draw), Ok(1));
}

#[test]
fn a_fault_in_the_logits_is_an_error_under_every_setting() {
    let draw = Draw { seed: 1, position: 1 };
    for temperature in [0.0, 1.0] {
        let sampling = Sampling { temperature, ..free() };
        let choose = |logits: &[f32]| Sampler::default().choose(logits, NONE, &sampling, draw);
        assert_eq!(choose(&[1.0, f32::NAN]), Err(SampleError::NotANumber { token: 1 }));
        assert_eq!(choose(&[1.0, f32::INFINITY]), Err(SampleError::NoFinite { count: 2 }));
        assert_eq!(choose(&[f32::NEG_INFINITY; 3]), Err(SampleError::NoFinite { count: 3 }));
        assert_eq!(choose(&[]), Err(SampleError::NoFinite { count: 0 }));
    }
}

/// Over 20 thousand draws each share is within 0.02 of its probability: more than five standard deviations.
#[test]
fn shares_follow_the_filtered_probabilities() {
    const DRAWS: u64 = 20_000;
    let logits = [2.0, 1.0, 0.0, 1.0, -1.0, f32::NEG_INFINITY, 0.5];
    for (temperature, top_k, top_p) in [
        (1.0, 0, 1.0),
        (0.7, 0, 1.0),
        (1.5, 3, 1.0),
        (1.0, 0, 0.8),
        (1.0, 4, 0.9),
        (2.0, 0, 0.01),
        (1.0, 99, 1.0),
    ] {
        let sampling = Sampling { temperature, top_p, top_k, ..free() };
        let shares = counts(&logits, &sampling, DRAWS);
        for (token, (count, probability)) in shares.iter().zip(expected(&logits, &sampling)).enumerate() {
            let share = *count as f64 / DRAWS as f64;
            assert!(
                (share - probability).abs() < 0.02,
                "token {token}: {share} is not {probability}, {sampling:?}"
            );
            assert!(probability > 0.0 || *count == 0, "token {token} was filtered, {sampling:?}");
        }
    }
}

/// A nucleus larger than the first guess is found whole.
#[test]
fn a_flat_distribution_keeps_its_share_of_a_large_vocabulary() {
    let logits = vec![0.0; 4000];
    let sampling = Sampling { top_p: 0.5, ..free() };
    let counts = counts(&logits, &sampling, 3000);
    assert!(counts[2000..].iter().all(|count| *count == 0));
    assert!(counts[1000..2000].iter().any(|count| *count > 0));
}

#[test]
fn uniform_numbers_are_even_and_differ_by_seed_and_position() {
    let mut buckets = [0_u32; 16];
    for position in 0..16_000 {
        let number = uniform(3, position);
        assert!((0.0..1.0).contains(&number));
        let bucket = (1..16).filter(|edge| number * 16.0 >= f64::from(*edge)).count();
        buckets[bucket] += 1;
    }
    // Expected 1000 each with a standard deviation of 31.
    assert!(buckets.iter().all(|count| (850..1150).contains(count)), "{buckets:?}");
    let all: BTreeSet<u64> =
        (0..100).flat_map(|seed| (0..100).map(move |position| uniform(seed, position).to_bits())).collect();
    assert_eq!(all.len(), 100 * 100);
}

proptest! {
    /// The scratch of earlier choices has no influence (I20), and only what the filters keep is chosen.
    #[test]
    fn a_choice_depends_on_its_own_arguments_only(
        logits in prop::collection::vec(-8.0..8.0_f32, 1..600),
        before in prop::collection::vec(-8.0..8.0_f32, 1..600),
        temperature in 0.01..2.0_f32, top_p in 0.01..1.0_f32, top_k in 0..700_u32,
        seed in any::<u64>(), position in any::<u64>(),
    ) {
        let sampling = Sampling { temperature, top_p, top_k, ..free() };
        let draw = Draw { seed, position };
        let fresh = Sampler::default().choose(&logits, NONE, &sampling, draw).unwrap();
        let mut used = Sampler::default();
        used.choose(&before, NONE, &sampling, draw).unwrap();
        prop_assert_eq!(used.choose(&logits, NONE, &sampling, draw).unwrap(), fresh);
        let logit = logits[fresh as usize];
        if top_k > 0 {
            prop_assert!(logits.iter().filter(|other| **other > logit).count() < top_k as usize);
        }
    }
}
