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
    simd::{Element, Kernel, LANES, Path, Simd, exp, sum},
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
        let last_position = self.sequence.position + (self.range.end - 1) / self.group;
        for (index, block) in self.blocks[..=last_position / BLOCK].iter().enumerate() {
            let first = (*block as usize * self.kv.kv_heads + self.kv_head) * block_elements;
            let keys = self.keys[first..first + block_elements].as_chunks().0;
            let values = &self.values[first..first + block_elements];
            for (query, running) in self.range.clone().zip(&mut running) {
                let position = self.sequence.position + query / self.group;
                let visible = (position + 1).saturating_sub(index * BLOCK).min(BLOCK);
                if visible > 0 {
                    self.fold(simd, query, running, keys, values, visible);
                }
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

    /// Adds the first `visible` tokens of a block.
    #[inline(always)]
    fn fold<S: Simd>(
        &self,
        simd: S,
        query: usize,
        running: &mut Running,
        keys: &[[T; LANES]],
        values: &[T],
        visible: usize,
    ) {
        let mut weights = scores(simd, &self.queries[self.elements(query)], keys, self.scale);
        let mut largest = running.largest;
        for score in &weights[..visible] {
            largest = largest.max(*score);
        }
        for (lane, weight) in weights.iter_mut().enumerate() {
            let exponential = exp(*weight - largest);
            *weight = if lane < visible { exponential } else { 0.0 };
        }
        // The first block finds a total of 0, so that what `exp` makes of minus infinity does not matter.
        let correction = exp(running.largest - largest);
        running.total = running.total * correction + sum(weights);
        running.largest = largest;
        accumulate(simd, self.output(query), correction, &weights[..visible], values);
    }
}

/// `scale · query · key` for the sixteen keys of a block: element `e` of the head into sum `e mod 4`.
#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
#[inline(always)]
fn scores<S: Simd, T: Element>(simd: S, query: &[f32], keys: &[[T; LANES]], scale: f32) -> [f32; LANES] {
    let mut sums = [simd.splat(0.0); 4];
    let (query, query_rest) = query.as_chunks::<4>();
    let (keys, keys_rest) = keys.as_chunks::<4>();
    for (query, keys) in query.iter().zip(keys) {
        for ((sum, query), key) in sums.iter_mut().zip(query).zip(keys) {
            *sum = simd.multiply_add(simd.splat(*query), T::lanes(simd, key), *sum);
        }
    }
    for ((sum, query), key) in sums.iter_mut().zip(query_rest).zip(keys_rest) {
        *sum = simd.multiply_add(simd.splat(*query), T::lanes(simd, key), *sum);
    }
    let total = simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3]));
    simd.to_array(simd.multiply(total, simd.splat(scale)))
}

/// `out = out · correction + Σ weight · value`, token by token.
#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
#[inline(always)]
fn accumulate<S: Simd, T: Element>(simd: S, out: &mut [f32], correction: f32, weights: &[f32], values: &[T]) {
    let head_dim = out.len();
    let (whole, rest) = out.as_chunks_mut::<LANES>();
    let rest_start = whole.len() * LANES;
    for (index, out) in whole.iter_mut().enumerate() {
        let mut sums = simd.multiply(simd.load(out), simd.splat(correction));
        for (weight, values) in weights.iter().zip(values.chunks_exact(head_dim)) {
            if let Some(values) = values[index * LANES..].first_chunk() {
                sums = simd.multiply_add(simd.splat(*weight), T::lanes(simd, values), sums);
            }
        }
        *out = simd.to_array(sums);
    }
    for (index, out) in rest.iter_mut().enumerate() {
        let mut sum = *out * correction;
        for (weight, values) in weights.iter().zip(values.chunks_exact(head_dim)) {
            sum = weight.mul_add(values[rest_start + index].widen(), sum);
        }
        *out = sum;
    }
}
