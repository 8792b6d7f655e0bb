//! The running softmax of one query.

use super::{
    super::simd::{Simd, exp},
    BLOCK, FOLD_BLOCKS, PIECE_QUERIES,
};

/// The running softmax of one query, beside the weighted values in its output row.
#[derive(Clone, Copy)]
pub(super) struct Running {
    pub(super) largest: f32,
    pub(super) total: f32,
}

/// Turns a query's scores of `visible` tokens into weights, and returns what earlier weighted values are to be multiplied
/// with.
#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
#[inline(always)]
pub(super) fn soften<S: Simd>(
    simd: S,
    query: usize,
    weights: &mut [[[f32; BLOCK]; PIECE_QUERIES]; FOLD_BLOCKS],
    visible: usize,
    running: &mut Running,
) -> f32 {
    if visible == 0 {
        return 1.0;
    }
    let mut tops = simd.splat(f32::NEG_INFINITY);
    let blocks = visible.div_ceil(BLOCK);
    for (at, weights) in weights.iter_mut().enumerate().take(blocks) {
        tops = hide(simd, &mut weights[query], visible - at * BLOCK, tops);
    }
    let largest = running.largest.max(simd.maximum(tops));
    let mut total = simd.splat(0.0);
    for (at, weights) in weights.iter_mut().enumerate().take(blocks) {
        let weights = &mut weights[query];
        weigh(weights, visible - at * BLOCK, largest);
        total = simd.add(total, simd.load(weights));
    }
    // The first block finds a total of 0, so that what `exp` makes of minus infinity does not matter.
    let correction = exp(running.largest - largest);
    running.total = running.total * correction + simd.sum(total);
    running.largest = largest;
    correction
}

/// Makes scores of tokens from `seen` on the lowest there are; returns the larger of each lane and `tops`.
#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
#[inline(always)]
fn hide<S: Simd>(simd: S, scores: &mut [f32; BLOCK], seen: usize, tops: S::Lanes) -> S::Lanes {
    let mut tops = simd.to_array(tops);
    for (lane, (score, top)) in scores.iter_mut().zip(&mut tops).enumerate() {
        *score = if lane < seen { *score } else { f32::NEG_INFINITY };
        *top = if *score > *top { *score } else { *top };
    }
    simd.load(&tops)
}

/// Turns scores into weights; those of tokens from `seen` on are 0.
#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
#[inline(always)]
fn weigh(scores: &mut [f32; BLOCK], seen: usize, largest: f32) {
    for (lane, score) in scores.iter_mut().enumerate() {
        let exponential = exp(*score - largest);
        *score = if lane < seen { exponential } else { 0.0 };
    }
}
