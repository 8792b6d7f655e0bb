//! Which rows of a step give logits and hidden states.

use sparkherd_engine::backend::cases::Random;
use sparkherd_engine::{BackendChoice, Batch, BatchSequence, ForwardError, ForwardPass, LoadedModel, Wants};
use sparkherd_footprint::KvDtype;
use tempfile::TempDir;

use crate::{
    checkpoint::{self, VOCAB_SIZE},
    session::{bits, config, load},
};

const TOKENS: usize = 30;

fn model(directory: &TempDir, backend: BackendChoice) -> LoadedModel {
    load(&config(directory.path(), backend, KvDtype::Bf16, 3)).unwrap()
}

fn tiny() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    checkpoint::write(directory.path(), &checkpoint::tensors(11));
    directory
}

fn part(position: usize, count: usize, first_block: u32, wants: Wants) -> BatchSequence {
    BatchSequence {
        token_count: count as u32,
        position: position as u32,
        block_table: vec![first_block, first_block + 1],
        wants,
    }
}

/// Logits and hidden states of every token, in steps of `chunk`.
fn every_row(model: &mut LoadedModel, tokens: &[u32], chunk: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut logits, mut hidden) = (Vec::new(), Vec::new());
    for (wants, rows) in [(Wants::EveryLogits, &mut logits), (Wants::EveryHidden, &mut hidden)] {
        for (index, tokens) in tokens.chunks(chunk).enumerate() {
            let sequences = vec![part(index * chunk, tokens.len(), 0, wants)];
            let output = model.forward(&Batch { tokens: tokens.to_vec(), sequences }).unwrap();
            rows.extend_from_slice(output.logits.values);
            rows.extend_from_slice(output.hidden.values);
        }
    }
    (logits, hidden)
}

#[test]
fn every_row_is_bit_equal_to_the_last_of_its_prefix() {
    let directory = tiny();
    let mut model = model(&directory, BackendChoice::Cpu);
    let tokens = Random::new(5).tokens(TOKENS, VOCAB_SIZE);
    let (logits, hidden) = every_row(&mut model, &tokens, TOKENS);
    let width = hidden.len() / TOKENS;
    for chunk in [1, 7, 16] {
        let (again, states) = every_row(&mut model, &tokens, chunk);
        assert_eq!(bits(&again), bits(&logits), "chunks of {chunk}");
        assert_eq!(bits(&states), bits(&hidden), "chunks of {chunk}");
    }
    for (end, wants) in [(1, Wants::LastLogits), (TOKENS, Wants::LastLogits), (9, Wants::LastHidden)] {
        let batch = Batch { tokens: tokens[..end].to_vec(), sequences: vec![part(0, end, 2, wants)] };
        let output = model.forward(&batch).unwrap();
        let last = end - 1;
        if wants == Wants::LastLogits {
            assert_eq!(bits(output.logits.values), bits(&logits[last * VOCAB_SIZE..end * VOCAB_SIZE]));
        } else {
            assert_eq!(bits(output.hidden.values), bits(&hidden[last * width..end * width]));
        }
    }
}

/// The head, applied here, gives the logits: so the states are those after the final norm.
#[test]
fn hidden_states_are_what_the_head_reads() {
    let directory = tiny();
    let head = &checkpoint::tensors(11)["lm_head.weight"].1;
    let tokens = Random::new(5).tokens(TOKENS, VOCAB_SIZE);
    for backend in [BackendChoice::Oracle, BackendChoice::Cpu] {
        let (logits, hidden) = every_row(&mut model(&directory, backend), &tokens, 11);
        let width = hidden.len() / TOKENS;
        for (state, logits) in hidden.chunks(width).zip(logits.chunks(VOCAB_SIZE)) {
            for (row, logit) in head.chunks(width).zip(logits) {
                let weights = row.iter().map(|weight| half::bf16::from_f32(*weight).to_f64());
                let dot: f64 = weights.zip(state).map(|(weight, value)| weight * f64::from(*value)).sum();
                assert!((dot - f64::from(*logit)).abs() < 1e-4, "{dot} is not {logit}");
            }
        }
    }
}

/// Each of a batch's sequences gets what it wanted, and more logits than were planned are refused.
#[test]
fn shares_are_told_apart_and_bounded() {
    let directory = tiny();
    let mut model = model(&directory, BackendChoice::Cpu);
    let tokens = Random::new(5).tokens(TOKENS, VOCAB_SIZE);
    let (logits, hidden) = every_row(&mut model, &tokens, TOKENS);
    let width = hidden.len() / TOKENS;
    let batch = Batch {
        tokens: [&tokens[..4], &tokens[..6], &tokens[..5]].concat(),
        sequences: vec![
            part(0, 4, 2, Wants::EveryHidden),
            part(0, 6, 4, Wants::EveryLogits),
            part(0, 5, 6, Wants::LastLogits),
        ],
    };
    let shares: Vec<_> = model.forward(&batch).unwrap().by_sequence(&batch).map(Result::unwrap).collect();
    assert_eq!(bits(shares[0].hidden.values), bits(&hidden[..4 * width]));
    assert!(shares[0].logits.values.is_empty() && shares[1].hidden.values.is_empty());
    assert_eq!(bits(shares[1].logits.values), bits(&logits[..6 * VOCAB_SIZE]));
    assert_eq!(bits(shares[2].logits.values), bits(&logits[4 * VOCAB_SIZE..5 * VOCAB_SIZE]));
    let rows_max = model.logit_rows_max();
    let many = Batch {
        tokens: vec![1; rows_max + 1],
        sequences: vec![BatchSequence {
            block_table: (0..8).collect(),
            ..part(0, rows_max + 1, 0, Wants::EveryLogits)
        }],
    };
    let refused = model.forward(&many).unwrap_err();
    assert!(matches!(refused, ForwardError::TooManyLogits { rows, .. } if rows == rows_max + 1));
    let short = Batch { tokens: tokens[..3].to_vec(), sequences: vec![part(0, 3, 2, Wants::Nothing)] };
    let output = model.forward(&short).unwrap();
    let asked = Batch { sequences: vec![part(0, 3, 2, Wants::LastLogits)], ..short };
    assert!(output.by_sequence(&asked).next().unwrap().is_err());
}
