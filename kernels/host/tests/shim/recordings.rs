//! Steps that are launched whole, as they were recorded before the first request.

use sparkherd_engine::backend::cuda::CudaLimits;
use sparkherd_engine::{Batch, BatchSequence, ForwardPass, LoadedModel, Wants, load_model_on_device};
use sparkherd_footprint::{KvDtype, Platform};
use sparkherd_kernels::Device;

use crate::models::{checkpoint, config, short_runs};

const SEQUENCES: u32 = 3;
/// Of a sequence's share of the pool.
const BLOCKS: u32 = 4;

fn load(device: impl Device + 'static, recorded_rows: usize) -> LoadedModel {
    let config = config(&checkpoint("tiny-llama3-bf16"), KvDtype::Bf16, Platform::cuda(2), SEQUENCES);
    let limits = |limits| CudaLimits { recorded_rows, ..short_runs(limits) };
    load_model_on_device(&config, device, limits, &mut |_| {}).unwrap()
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

/// Prompts of one and of several tokens, decodes of one, two and all sequences, a prompt beside decodes.
fn answers(mut model: LoadedModel) -> Vec<Vec<f32>> {
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

#[test]
fn a_step_that_is_repeated_gives_the_same_bits() {
    let wanted = answers(load(crate::device(), 0));
    assert_eq!(answers(load(crate::device(), 3)), wanted);
    // Two are repeated, three are launched one by one.
    assert_eq!(answers(load(crate::device(), 2)), wanted);
    assert_eq!(answers(load(crate::gpu(), 3)), wanted);
}
