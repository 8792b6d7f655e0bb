//! Steps that are launched whole, as they were recorded before the first request.

use sparkherd_engine::backend::cuda::CudaLimits;
use sparkherd_engine::{Batch, BatchSequence, ForwardPass, LoadedModel, Wants, load_model_on_device};
use sparkherd_footprint::KvDtype;
use sparkherd_kernels::Device;

use crate::checkpoints;
use crate::models::{CUDA, config_of, short_runs};
use crate::report::Check;

/// More than are recorded one by one would say nothing new: up to so many are.
pub const SEQUENCES: u32 = 32;
/// Sequences of a decode: on both sides of the 8 rows up to which kernels of few rows run and positions are shared, and of the 16
/// rows of a tile.
const DECODES: [usize; 6] = [3, 8, 9, 16, 31, SEQUENCES as usize];
/// Of a sequence's share of the pool.
const BLOCKS: u32 = 4;

/// Prompts of one and of several tokens, decodes of one, two and three sequences, a prompt beside decodes, then decodes of many:
/// all logits, on a device that records steps of up to so many sequences.
pub fn answers(device: impl Device + 'static, recorded_rows: usize) -> Vec<Vec<f32>> {
    let directory = tempfile::tempdir().unwrap();
    checkpoints::named("tiny-llama3-bf16").unpack(directory.path()).unwrap();
    let config = config_of(directory.path(), KvDtype::Bf16, CUDA, SEQUENCES);
    let limits = |limits| CudaLimits { recorded_rows, ..short_runs(limits) };
    let mut model = load_model_on_device(&config, device, limits, &mut |_| {}).unwrap();
    let steps: [&[(u32, u32, u32)]; 7] = [
        &[(0, 0, 20)],
        &[(0, 20, 1)],
        &[(0, 21, 1), (1, 0, 1)],
        &[(0, 22, 1), (1, 1, 1), (2, 0, 9)],
        &[(0, 23, 1), (1, 2, 1), (2, 9, 1)],
        &[(2, 10, 1), (0, 24, 1)],
        &[(1, 3, 1)],
    ];
    let mut answers: Vec<_> = steps.iter().flat_map(|parts| step(&mut model, parts)).collect();
    // Prompts of several lengths, and each goes on where it is.
    let mut positions: Vec<u32> = (0..SEQUENCES).map(|sequence| 1 + sequence % 3).collect();
    let prompts: Vec<_> =
        (0..SEQUENCES).zip(&positions).map(|(sequence, count)| (sequence, 0, *count)).collect();
    answers.extend(step(&mut model, &prompts));
    for sequences in DECODES {
        let parts: Vec<_> = (0..)
            .zip(&positions)
            .take(sequences)
            .map(|(sequence, position)| (sequence, *position, 1))
            .collect();
        answers.extend(step(&mut model, &parts));
        positions.iter_mut().take(sequences).for_each(|position| *position += 1);
    }
    answers
}

/// Whether steps that are launched whole give what they give launch by launch: all of them recorded, and some.
pub fn check<D: Device + 'static>(device: impl Fn() -> D) -> Check {
    let mut check = Check { name: "recorded steps as launch by launch", passed: 0, wrong: Vec::new() };
    let wanted = answers(device(), 0);
    for recorded in [2, 9, SEQUENCES as usize] {
        let got = answers(device(), recorded);
        if got.len() != wanted.len() {
            check.wrong.push(format!("{} answers, not {}", got.len(), wanted.len()));
        }
        for (index, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
            if bits(got) == bits(wanted) && got.iter().all(|logit| logit.is_finite()) {
                check.passed += 1;
            } else {
                check.wrong.push(format!("answer {index} with steps of {recorded} sequences recorded"));
            }
        }
    }
    check
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

/// Some tokens of some sequences: each a number, how far it is, and how many tokens.
fn step(model: &mut LoadedModel, parts: &[(u32, u32, u32)]) -> Vec<Vec<f32>> {
    let sequences = parts.iter().map(|&(sequence, position, token_count)| BatchSequence {
        token_count,
        position,
        block_table: (sequence * BLOCKS..(sequence + 1) * BLOCKS).rev().collect(),
        wants: Wants::LastLogits,
    });
    let tokens = parts.iter().flat_map(|&(sequence, position, count)| {
        (position..position + count).map(move |position| (7 * sequence + 3 * position + 5) % 200)
    });
    let batch = Batch { tokens: tokens.collect(), sequences: sequences.collect() };
    model.forward(&batch).unwrap().logits.iter().map(<[f32]>::to_vec).collect()
}
