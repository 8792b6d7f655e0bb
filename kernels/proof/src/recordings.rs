//! Steps that are launched whole, as they were recorded before the first request.

use sparkherd_engine::backend::cuda::CudaLimits;
use sparkherd_engine::{Batch, BatchSequence, ForwardPass, LoadedModel, Wants, load_model_on_device};
use sparkherd_footprint::KvDtype;
use sparkherd_kernels::Device;

use crate::checkpoints;
use crate::models::{CUDA, config_of, short_runs};
use crate::report::Check;

pub const SEQUENCES: u32 = 3;
/// Of a sequence's share of the pool.
const BLOCKS: u32 = 4;

/// Prompts of one and of several tokens, decodes of one, two and all sequences, a prompt beside decodes: all logits, on a device
/// that records steps of up to so many sequences.
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
    steps.iter().flat_map(|parts| step(&mut model, parts)).collect()
}

/// Whether steps that are launched whole give what they give launch by launch: all of them recorded, and some.
pub fn check<D: Device + 'static>(device: impl Fn() -> D) -> Check {
    let mut check = Check { name: "recorded steps as launch by launch", passed: 0, wrong: Vec::new() };
    let wanted = answers(device(), 0);
    for recorded in [2, SEQUENCES as usize] {
        let got = answers(device(), recorded);
        for (index, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
            if got == wanted {
                check.passed += 1;
            } else {
                check.wrong.push(format!("answer {index} with steps of {recorded} sequences recorded"));
            }
        }
    }
    check
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
