#![expect(clippy::cast_possible_truncation, reason = "the sizes of these cases are small")]

use crate::{
    batch::{Rows, Wants},
    sample::{Pool, Pooling, SampleError},
};

const WIDTH: usize = 5;
const TOKENS: usize = 9;

fn states() -> Vec<f32> {
    (0..TOKENS * WIDTH).map(|index| ((index * 37 + 11) % 23) as f32 * 0.31 - 3.0).collect()
}

/// In chunks of `chunk` tokens, with only the rows the pooling asks for.
fn pooled(pooling: Pooling, chunk: usize) -> Vec<f32> {
    let states = states();
    let mut pool = Pool::new(pooling);
    let mut next = 0;
    while next < TOKENS {
        let end = (next + chunk).min(TOKENS);
        let count = (end - next) as u32;
        let rows = pooling.wants(end == TOKENS).hidden(count);
        let values = &states[(next + rows.start as usize) * WIDTH..(next + rows.end as usize) * WIDTH];
        pool.push(next as u32, Rows { values, width: WIDTH });
        next = end;
    }
    pool.finish().unwrap()
}

fn normalised(values: &[f64]) -> Vec<f64> {
    let length = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    values.iter().map(|value| value / length).collect()
}

#[test]
fn mean_and_last_are_bit_equal_whatever_the_chunks() {
    let states: Vec<f64> = states().iter().copied().map(f64::from).collect();
    let mean: Vec<f64> = (0..WIDTH)
        .map(|column| states.iter().skip(column).step_by(WIDTH).sum::<f64>() / TOKENS as f64)
        .collect();
    let last = &states[(TOKENS - 1) * WIDTH..];
    for (pooling, wanted) in [(Pooling::Mean, &mean[..]), (Pooling::Last, last)] {
        let whole = pooled(pooling, TOKENS);
        for (got, wanted) in whole.iter().zip(normalised(wanted)) {
            assert!((f64::from(*got) - wanted).abs() < 1e-6, "{pooling:?}");
        }
        for chunk in 1..TOKENS {
            assert_eq!(pooled(pooling, chunk), whole, "{pooling:?} in chunks of {chunk}");
        }
    }
}

#[test]
fn states_given_twice_count_once() {
    let states = states();
    let mut pool = Pool::new(Pooling::Mean);
    pool.push(0, Rows { values: &states[..4 * WIDTH], width: WIDTH });
    pool.push(0, Rows { values: &states, width: WIDTH });
    assert_eq!(pool.finish().unwrap(), pooled(Pooling::Mean, TOKENS));
}

#[test]
fn what_has_no_direction_is_an_error() {
    for values in [vec![0.0; WIDTH], vec![f32::NAN; WIDTH], vec![f32::INFINITY; WIDTH]] {
        let mut pool = Pool::new(Pooling::Mean);
        pool.push(0, Rows { values: &values, width: WIDTH });
        assert!(matches!(pool.finish(), Err(SampleError::Embedding { .. })));
    }
    assert!(Pool::new(Pooling::Last).finish().is_err());
}

#[test]
fn only_the_last_step_of_last_token_pooling_gives_states() {
    assert_eq!(Pooling::Last.wants(false), Wants::Nothing);
    assert_eq!(Pooling::Last.wants(true), Wants::LastHidden);
    assert_eq!(Pooling::Mean.wants(false), Wants::EveryHidden);
}
