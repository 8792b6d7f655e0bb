#![expect(unsafe_code, reason = "pieces write disjoint heads of one matrix")]
//! Attention over the paged pool with a running softmax.
//!
//! A query walks its sequence's blocks from position 0 and folds each block of 16 tokens into (largest score, sum of
//! exponentials, weighted values). The blocks and their order depend on the position alone, so the result is the same
//! whether the query was decoded or part of a chunk, alone or in a batch (I20).
//!
//! Pool layout: keys `[block][kv_head][head_dim][16 tokens]`, so that the lanes are tokens and a block's scores need no
//! sum across lanes; values `[block][kv_head][16 tokens][head_dim]`, so that the lanes are the output's elements.

use std::ops::Range;

use super::{
    pool::Pool,
    shared_slice::SharedSlice,
    simd::{Element, Kernel, LANES, Path, Simd, exp},
};
use crate::backend::{
    Attention, BackendError, HostMemory, KvShape, KvWrite, SequenceRows, arena::Plain, check::disjoint,
};

/// Tokens of a block, which are the lanes: keys are stored so.
const BLOCK: usize = sparkherd_footprint::BLOCK_TOKENS as usize;
const _: () = assert!(BLOCK == LANES);

/// Queries that share one walk over the blocks of a key head: enough that a block read from memory is used many times,
/// few enough that a short prompt still gives every thread work.
const PIECE_QUERIES: usize = 32;

/// Queries whose scores are computed together: with four sums each, 16 registers.
const SIDE_BY_SIDE: usize = 4;

/// Keys (or values) of a block that are widened once for all queries of a walk: heads of up to 256 elements, 16 KiB.
const WIDENED_ELEMENTS: usize = 256 * BLOCK;

pub(super) fn kv_write<T: Element + Plain>(
    memory: &mut HostMemory,
    kv: &KvShape,
    args: KvWrite<'_>,
) -> Result<(), BackendError> {
    let [keys, values] = disjoint(memory.workspace.as_mut_slice(), "kv_write", [args.keys, args.values])?;
    let (pool_keys, pool_values) = kv.layer_mut::<T>(&mut memory.kv, args.layer);
    let head_dim = kv.head_dim;
    for (row, slot) in args.slots.iter().enumerate() {
        let (block, token) = (*slot as usize / BLOCK, *slot as usize % BLOCK);
        for kv_head in 0..kv.kv_heads {
            let from = row * kv.token_elements() + kv_head * head_dim;
            let first = (block * kv.kv_heads + kv_head) * head_dim * BLOCK;
            for (element, key) in keys[from..from + head_dim].iter().enumerate() {
                pool_keys[first + element * BLOCK + token] = T::narrow(*key);
            }
            let stored = &mut pool_values[first + token * head_dim..][..head_dim];
            for (stored, value) in stored.iter_mut().zip(&values[from..]) {
                *stored = T::narrow(*value);
            }
        }
    }
    Ok(())
}

pub(super) fn attention<T: Element + Plain>(
    path: Path,
    pool: &mut Pool,
    memory: &mut HostMemory,
    kv: &KvShape,
    args: Attention<'_>,
) -> Result<(), BackendError> {
    let [queries, out] = disjoint(memory.workspace.as_mut_slice(), "attention", [args.queries, args.out])?;
    let (keys, values) = kv.layer::<T>(&memory.kv, args.layer);
    let group = args.queries.columns / kv.token_elements();
    let walks = |sequence: &SequenceRows| (sequence.rows * group).div_ceil(PIECE_QUERIES);
    let pieces = args.sequences.iter().map(|sequence| walks(sequence) * kv.kv_heads).sum();
    let out = SharedSlice::new(out);
    pool.run(pieces, &|piece| {
        let mut piece = piece;
        for sequence in args.sequences {
            let walks = walks(sequence);
            if piece >= walks * kv.kv_heads {
                piece -= walks * kv.kv_heads;
                continue;
            }
            let first = piece % walks * PIECE_QUERIES;
            path.run(Walk {
                queries,
                out: &out,
                keys,
                values,
                blocks: &args.block_tables[sequence.first_block..],
                kv,
                kv_head: piece / walks,
                group,
                columns: args.queries.columns,
                scale: args.scale,
                sequence,
                range: first..(sequence.rows * group).min(first + PIECE_QUERIES),
            });
            return;
        }
    })
}

/// Some queries of one sequence that read the same key head. Query `q` is row `q / group`, head `q % group` of the group.
struct Walk<'a, T> {
    queries: &'a [f32],
    out: &'a SharedSlice<'a>,
    keys: &'a [T],
    values: &'a [T],
    /// The sequence's blocks, in order.
    blocks: &'a [u32],
    kv: &'a KvShape,
    kv_head: usize,
    /// Query heads per key head.
    group: usize,
    /// Elements of a row of `queries` and `out`.
    columns: usize,
    scale: f32,
    sequence: &'a SequenceRows,
    range: Range<usize>,
}

/// The running softmax of one query, beside the weighted values in its output row.
#[derive(Clone, Copy)]
struct Running {
    largest: f32,
    total: f32,
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl<T: Element> Kernel for Walk<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        let mut running = [Running { largest: f32::NEG_INFINITY, total: 0.0 }; PIECE_QUERIES];
        for query in self.range.clone() {
            self.output(query).fill(0.0);
        }
        let block_elements = self.kv.head_dim * BLOCK;
        let (mut wide_keys, mut wide_values) = ([0.0; WIDENED_ELEMENTS], [0.0; WIDENED_ELEMENTS]);
        let last_position = self.sequence.position + (self.range.end - 1) / self.group;
        for (index, block) in self.blocks[..=last_position / BLOCK].iter().enumerate() {
            let first = (*block as usize * self.kv.kv_heads + self.kv_head) * block_elements;
            let keys = &self.keys[first..first + block_elements];
            let values = &self.values[first..first + block_elements];
            if block_elements <= WIDENED_ELEMENTS && self.range.len() > 1 {
                widen(simd, keys, &mut wide_keys);
                widen(simd, values, &mut wide_values);
                self.fold_block(simd, index, &wide_keys, &wide_values[..block_elements], &mut running);
            } else {
                self.fold_block(simd, index, keys, values, &mut running);
            }
        }
        for (query, running) in self.range.clone().zip(&running) {
            for value in self.output(query) {
                *value /= running.total;
            }
        }
    }
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl<T: Element> Walk<'_, T> {
    #[inline(always)]
    fn elements(&self, query: usize) -> Range<usize> {
        let row = self.sequence.first_row + query / self.group;
        let head = self.kv_head * self.group + query % self.group;
        let first = row * self.columns + head * self.kv.head_dim;
        first..first + self.kv.head_dim
    }

    #[inline(always)]
    #[expect(
        clippy::mut_from_ref,
        reason = "each query's elements are this piece's alone, taken one at a time"
    )]
    fn output(&self, query: usize) -> &mut [f32] {
        // SAFETY: a query's elements belong to one piece, and callers drop the slice before they take the next.
        unsafe { self.out.range(self.elements(query)) }
    }

    /// Adds a block's visible tokens to every query.
    #[inline(always)]
    fn fold_block<S: Simd, U: Element>(
        &self,
        simd: S,
        index: usize,
        keys: &[U],
        values: &[U],
        running: &mut [Running; PIECE_QUERIES],
    ) {
        let keys = &keys.as_chunks().0[..self.kv.head_dim];
        let mut query = self.range.start;
        while S::WIDE && query + SIDE_BY_SIDE <= self.range.end {
            self.fold::<S, U, SIDE_BY_SIDE>(simd, index, query, keys, values, running);
            query += SIDE_BY_SIDE;
        }
        while query < self.range.end {
            self.fold::<S, U, 1>(simd, index, query, keys, values, running);
            query += 1;
        }
    }

    /// Adds a block's visible tokens to `Q` queries from `first` on. Side by side, they wait for their own chains of
    /// operations only; no operation of one reads another's.
    #[inline(always)]
    fn fold<S: Simd, U: Element, const Q: usize>(
        &self,
        simd: S,
        index: usize,
        first: usize,
        keys: &[[U; LANES]],
        values: &[U],
        running: &mut [Running; PIECE_QUERIES],
    ) {
        let mut visible = [0; Q];
        let mut queries: [&[f32]; Q] = [&[]; Q];
        for (offset, (visible, query)) in visible.iter_mut().zip(&mut queries).enumerate() {
            let position = self.sequence.position + (first + offset) / self.group;
            *visible = (position + 1).saturating_sub(index * BLOCK).min(BLOCK);
            *query = &self.queries[self.elements(first + offset)];
        }
        let mut weights = scores(simd, queries, keys, self.scale);
        let mut corrections = [1.0; Q];
        let running = &mut running[first - self.range.start..][..Q];
        for (((weights, visible), running), correction) in
            weights.iter_mut().zip(visible).zip(running).zip(&mut corrections)
        {
            if visible > 0 {
                *correction = soften(simd, weights, visible, running);
            }
        }
        for (offset, ((weights, visible), correction)) in
            weights.iter().zip(visible).zip(corrections).enumerate()
        {
            if visible > 0 {
                accumulate(simd, self.output(first + offset), correction, &weights[..visible], values);
            }
        }
    }
}

/// Turns scores into weights, and returns what earlier weighted values are to be multiplied with.
#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
#[inline(always)]
fn soften<S: Simd>(simd: S, weights: &mut [f32; LANES], visible: usize, running: &mut Running) -> f32 {
    for (lane, score) in weights.iter_mut().enumerate() {
        *score = if lane < visible { *score } else { f32::NEG_INFINITY };
    }
    let largest = running.largest.max(simd.maximum(simd.load(weights)));
    for (lane, weight) in weights.iter_mut().enumerate() {
        let exponential = exp(*weight - largest);
        *weight = if lane < visible { exponential } else { 0.0 };
    }
    // The first block finds a total of 0, so that what `exp` makes of minus infinity does not matter.
    let correction = exp(running.largest - largest);
    running.total = running.total * correction + simd.sum(simd.load(weights));
    running.largest = largest;
    correction
}

/// Widening is exact, so that who does it, and when, changes nothing.
#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
#[inline(always)]
fn widen<S: Simd, T: Element>(simd: S, stored: &[T], wide: &mut [f32; WIDENED_ELEMENTS]) {
    for (stored, wide) in stored.as_chunks().0.iter().zip(wide.as_chunks_mut().0) {
        *wide = simd.to_array(T::lanes(simd, stored));
    }
}

/// `scale · query · key` of each query for the sixteen keys of a block: element `e` of the head into sum `e mod 4`.
#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
#[inline(always)]
fn scores<S: Simd, T: Element, const Q: usize>(
    simd: S,
    queries: [&[f32]; Q],
    keys: &[[T; LANES]],
    scale: f32,
) -> [[f32; LANES]; Q] {
    let mut sums = [[simd.splat(0.0); 4]; Q];
    for (element, keys) in keys.chunks(4).enumerate() {
        for (part, key) in keys.iter().enumerate() {
            let key = T::lanes(simd, key);
            for (sums, query) in sums.iter_mut().zip(queries) {
                sums[part] = simd.multiply_add(simd.splat(query[4 * element + part]), key, sums[part]);
            }
        }
    }
    let mut scores = [[0.0; LANES]; Q];
    for (scores, sums) in scores.iter_mut().zip(sums) {
        let total = simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3]));
        *scores = simd.to_array(simd.multiply(total, simd.splat(scale)));
    }
    scores
}

/// `out = out · correction + Σ weight · value`, token by token.
#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
#[inline(always)]
fn accumulate<S: Simd, T: Element>(simd: S, out: &mut [f32], correction: f32, weights: &[f32], values: &[T]) {
    let head_dim = out.len();
    let mut first = 0;
    while first + 4 * LANES <= head_dim {
        accumulate_lanes::<S, T, 4>(simd, &mut out[first..], correction, weights, &values[first..], head_dim);
        first += 4 * LANES;
    }
    while first + LANES <= head_dim {
        accumulate_lanes::<S, T, 1>(simd, &mut out[first..], correction, weights, &values[first..], head_dim);
        first += LANES;
    }
    for (index, out) in out.iter_mut().enumerate().skip(first) {
        let mut sum = *out * correction;
        for (weight, values) in weights.iter().zip(values.chunks_exact(head_dim)) {
            sum = weight.mul_add(values[index].widen(), sum);
        }
        *out = sum;
    }
}

/// The first `C` times sixteen elements; a token's are `head_dim` after those of the one before.
#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
#[inline(always)]
fn accumulate_lanes<S: Simd, T: Element, const C: usize>(
    simd: S,
    out: &mut [f32],
    correction: f32,
    weights: &[f32],
    values: &[T],
    head_dim: usize,
) {
    let out = &mut out.as_chunks_mut::<LANES>().0[..C];
    let mut sums = [simd.splat(0.0); C];
    for (sum, out) in sums.iter_mut().zip(&*out) {
        *sum = simd.multiply(simd.load(out), simd.splat(correction));
    }
    for (weight, values) in weights.iter().zip(values.chunks(head_dim)) {
        let weight = simd.splat(*weight);
        let values = &values.as_chunks::<LANES>().0[..C];
        for (sum, values) in sums.iter_mut().zip(values) {
            *sum = simd.multiply_add(weight, T::lanes(simd, values), *sum);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = simd.to_array(sum);
    }
}
