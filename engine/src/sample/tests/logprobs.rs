#![expect(clippy::cast_possible_truncation, reason = "the sizes of these cases are small")]

use crate::{
    batch::Rows,
    sample::{PromptLogprobs, SampleError, token_logprob},
};

const VOCAB: usize = 7;

/// A row of logits that differs by position.
fn row(position: usize) -> Vec<f32> {
    (0..VOCAB).map(|token| ((token * 5 + position * 3) % 11) as f32 * 0.7 - 3.0).collect()
}

/// log-softmax, written out.
fn expected(logits: &[f32], token: usize) -> f64 {
    let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
    (f64::from(logits[token]).exp() / sum).ln()
}

#[test]
fn a_logprob_is_the_log_of_the_softmax() {
    let logits = row(4);
    for token in 0..VOCAB {
        let told = token_logprob(&logits, token as u32, 3).unwrap();
        assert!((f64::from(told.logprob) - expected(&logits, token)).abs() < 1e-6);
        let mut order: Vec<usize> = (0..VOCAB).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
        let top: Vec<u32> = told.top.iter().map(|(token, _)| *token).collect();
        assert_eq!(top, order[..3].iter().map(|token| *token as u32).collect::<Vec<_>>());
        for (token, logprob) in told.top {
            assert!((f64::from(logprob) - expected(&logits, token as usize)).abs() < 1e-6);
        }
    }
}

#[test]
fn equal_logits_are_told_lowest_token_first_and_no_more_than_there_are() {
    let told = token_logprob(&[1.0, 1.0, 0.0, 1.0], 2, 3).unwrap();
    assert_eq!(told.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [0, 1, 3]);
    assert_eq!(token_logprob(&[1.0, 2.0], 0, 20).unwrap().top.len(), 2);
    assert!(token_logprob(&[1.0, 2.0], 0, 0).unwrap().top.is_empty());
}

#[test]
fn extremes_are_finite_and_faults_are_errors() {
    let told = token_logprob(&[1e4, f32::NEG_INFINITY, -1e4], 1, 1).unwrap();
    assert_eq!(told.logprob.to_bits(), (-9999.0_f32).to_bits());
    assert_eq!(told.top, [(0, 0.0)]);
    assert_eq!(token_logprob(&[1.0, f32::NAN], 0, 0), Err(SampleError::NotANumber { token: 1 }));
}

/// Whatever the chunks, and also if the sequence starts over in the middle.
#[test]
fn prompt_logprobs_do_not_depend_on_where_steps_are_cut() {
    let prompt = [3_u32, 0, 6, 6, 2, 5, 1];
    let rows: Vec<Vec<f32>> = (0..prompt.len()).map(row).collect();
    let wanted: Vec<f64> =
        (1..prompt.len()).map(|index| expected(&rows[index - 1], prompt[index] as usize)).collect();
    for chunk in 1..=prompt.len() {
        for restart in [None, Some(chunk)] {
            let mut logprobs = PromptLogprobs::new(&prompt, 1);
            let mut next = 0;
            let mut restart = restart;
            while next < prompt.len() {
                let end = (next + chunk).min(prompt.len());
                let values = rows[next..end].concat();
                logprobs.push(next as u32, Rows { values: &values, width: VOCAB }).unwrap();
                next = if restart.take_if(|at| *at <= end).is_some() { 0 } else { end };
            }
            assert!(logprobs.is_complete());
            let entries = logprobs.into_entries();
            assert_eq!(entries.len(), wanted.len());
            for ((entry, wanted), token) in entries.iter().zip(&wanted).zip(&prompt[1..]) {
                assert_eq!(entry.token, *token);
                assert!((f64::from(entry.logprob) - wanted).abs() < 1e-6);
                assert_eq!(entry.top.len(), 1);
            }
        }
    }
    assert!(PromptLogprobs::new(&[1], 0).is_complete());
    assert!(!PromptLogprobs::new(&[1, 2], 0).is_complete());
}
