#![expect(unsafe_code, reason = "pieces write disjoint heads")]
//! Attention over the paged pool with a running softmax.
//!
//! A query walks its sequence's blocks from position 0 and folds four of them, 64 tokens, at a time into (largest score, sum
//! of exponentials, weighted values). The blocks and their order depend on the position alone, so the result is the same
//! whether the query was decoded or part of a chunk, alone or in a batch (I20).
//!
//! Pool layout: keys `[block][kv_head][head_dim][16 tokens]`, so that the lanes are tokens and a block's scores need no
//! sum across lanes; values `[block][kv_head][16 tokens][head_dim]`, so that the lanes are the output's elements.

mod softmax;

use std::ops::Range;

use self::softmax::{Running, soften};
use super::{
    pool::Pool,
    shared_slice::SharedSlice,
    simd::{Element, Kernel, LANES, Path, Simd},
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
const SCORED_TOGETHER: usize = 4;

/// Blocks between two corrections of the running softmax, which cost a query as much as a block's products.
const FOLD_BLOCKS: usize = 4;

/// Keys (or values) of a block that are widened once for all queries of a walk: heads of up to 256 elements, 16 KiB.
const WIDENED_ELEMENTS: usize = 256 * BLOCK;

pub(super) fn kv_write<T: Element + Plain>(
    pool: &mut Pool,
    memory: &mut HostMemory,
    kv: &KvShape,
    args: KvWrite<'_>,
) -> Result<(), BackendError> {
    let [keys, values] = disjoint(memory.workspace.as_mut_slice(), "kv_write", [args.keys, args.values])?;
    let (pool_keys, pool_values) = kv.layer_mut::<T>(&mut memory.kv, args.layer);
    let (pool_keys, pool_values) = (SharedSlice::new(pool_keys), SharedSlice::new(pool_values));
    let (head_dim, block_elements) = (kv.head_dim, kv.head_dim * BLOCK);
    // A step of few tokens is done sooner than another thread is told of it.
    let heads_of_piece = if args.slots.len() < BLOCK { kv.kv_heads } else { 1 };
    pool.run(kv.kv_heads.div_ceil(heads_of_piece), &|piece| {
        for (row, slot) in args.slots.iter().enumerate() {
            let (block, token) = (*slot as usize / BLOCK, *slot as usize % BLOCK);
            for kv_head in piece * heads_of_piece..kv.kv_heads.min((piece + 1) * heads_of_piece) {
                let from = row * kv.token_elements() + kv_head * head_dim;
                let first = (block * kv.kv_heads + kv_head) * block_elements;
                let range = first..first + block_elements;
                // SAFETY: what belongs to a key head is written by one piece, which takes one block at a time.
                let (stored_keys, stored_values) =
                    unsafe { (pool_keys.range(range.clone()), pool_values.range(range)) };
                for (stored, key) in stored_keys.chunks_exact_mut(BLOCK).zip(&keys[from..]) {
                    stored[token] = T::narrow(*key);
                }
                let stored = &mut stored_values[token * head_dim..][..head_dim];
                for (stored, value) in stored.iter_mut().zip(&values[from..]) {
                    *stored = T::narrow(*value);
                }
            }
        }
    })
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
        let is_shared = block_elements <= WIDENED_ELEMENTS && self.range.len() > 1;
        let mut wide = [0.0; WIDENED_ELEMENTS];
        let mut fold = Fold::EMPTY;
        let last_position = self.sequence.position + (self.range.end - 1) / self.group;
        for (index, blocks) in self.blocks[..=last_position / BLOCK].chunks(FOLD_BLOCKS).enumerate() {
            for (block, scores) in blocks.iter().zip(&mut fold.weights) {
                let keys = self.block(self.keys, *block);
                if is_shared {
                    widen(simd, keys, &mut wide);
                    self.score(simd, &wide[..block_elements], scores);
                } else {
                    self.score(simd, keys, scores);
                }
            }
            self.soften(simd, index * FOLD_BLOCKS * BLOCK, &mut fold, &mut running);
            for (block, at) in blocks.iter().zip(0..) {
                let values = self.block(self.values, *block);
                if is_shared {
                    widen(simd, values, &mut wide);
                    self.accumulate(simd, at, &fold, &wide[..block_elements]);
                } else {
                    self.accumulate(simd, at, &fold, values);
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

/// What is known of the tokens of some blocks, for each query of a walk.
struct Fold {
    /// Scores, then weights: `[block][query][token]`.
    weights: [[[f32; BLOCK]; PIECE_QUERIES]; FOLD_BLOCKS],
    /// Tokens that the query may see.
    visible: [usize; PIECE_QUERIES],
    /// What earlier weighted values are to be multiplied with.
    corrections: [f32; PIECE_QUERIES],
}

impl Fold {
    const EMPTY: Self = Self {
        weights: [[[0.0; BLOCK]; PIECE_QUERIES]; FOLD_BLOCKS],
        visible: [0; PIECE_QUERIES],
        corrections: [1.0; PIECE_QUERIES],
    };
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl<T: Element> Walk<'_, T> {
    /// Keys or values of a block.
    #[inline(always)]
    fn block<'a>(&self, pool: &'a [T], block: u32) -> &'a [T] {
        let elements = self.kv.head_dim * BLOCK;
        &pool[(block as usize * self.kv.kv_heads + self.kv_head) * elements..][..elements]
    }

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

    /// Scores of every query for a block's tokens, whether it may see them or not.
    #[inline(always)]
    fn score<S: Simd, U: Element>(&self, simd: S, keys: &[U], into: &mut [[f32; BLOCK]; PIECE_QUERIES]) {
        let (keys, count) = (keys.as_chunks().0, self.range.len());
        let query = |index: usize| &self.queries[self.elements(self.range.start + index)];
        let mut index = 0;
        while S::WIDE && index + SCORED_TOGETHER <= count {
            let queries: [&[f32]; SCORED_TOGETHER] = std::array::from_fn(|next| query(index + next));
            let found = scores(simd, queries, keys, self.scale);
            into[index..index + SCORED_TOGETHER].copy_from_slice(&found);
            index += SCORED_TOGETHER;
        }
        for (index, into) in into.iter_mut().enumerate().take(count).skip(index) {
            [*into] = scores(simd, [query(index)], keys, self.scale);
        }
    }

    /// Turns the scores of tokens from `position` on into weights.
    #[inline(always)]
    fn soften<S: Simd>(
        &self,
        simd: S,
        position: usize,
        fold: &mut Fold,
        running: &mut [Running; PIECE_QUERIES],
    ) {
        let Fold { weights, visible, corrections } = fold;
        for (index, running) in running.iter_mut().enumerate().take(self.range.len()) {
            let last = self.sequence.position + (self.range.start + index) / self.group;
            visible[index] = (last + 1).saturating_sub(position).min(FOLD_BLOCKS * BLOCK);
            corrections[index] = soften(simd, index, weights, visible[index], running);
        }
    }

    /// Adds the weighted values of the fold's block `at` to every query that sees it.
    #[inline(always)]
    fn accumulate<S: Simd, U: Element>(&self, simd: S, at: usize, fold: &Fold, values: &[U]) {
        let weights = &fold.weights[at];
        // Earlier values are corrected once, with the fold's first block.
        let correction = |index: usize| if at == 0 { fold.corrections[index] } else { 1.0 };
        let seen = |index: usize| fold.visible[index].saturating_sub(at * BLOCK).min(BLOCK);
        let (count, mut index) = (self.range.len(), 0);
        while index < count {
            let is_pair = S::WIDE && index + 2 <= count && seen(index) == seen(index + 1);
            if seen(index) > 0 {
                let tokens = seen(index);
                if is_pair {
                    let pair = [index, index + 1];
                    let weights = pair.map(|index| &weights[index][..tokens]);
                    self.add_values(simd, index, pair.map(correction), weights, values);
                } else {
                    self.add_values(simd, index, [correction(index)], [&weights[index][..tokens]], values);
                }
            }
            index += 1 + usize::from(is_pair);
        }
    }

    /// `out = out · correction + Σ weight · value`, token by token, of `Q` queries from `index` on.
    #[inline(always)]
    fn add_values<S: Simd, U: Element, const Q: usize>(
        &self,
        simd: S,
        index: usize,
        corrections: [f32; Q],
        weights: [&[f32]; Q],
        values: &[U],
    ) {
        let (first, head_dim) = (self.range.start + index, self.kv.head_dim);
        let mut column = 0;
        while column + 4 * LANES <= head_dim {
            self.add_lanes::<S, U, Q, 4>(simd, [first, column], corrections, weights, values);
            column += 4 * LANES;
        }
        while column + LANES <= head_dim {
            self.add_lanes::<S, U, Q, 1>(simd, [first, column], corrections, weights, values);
            column += LANES;
        }
        for (query, (weights, correction)) in weights.iter().zip(corrections).enumerate() {
            for (column, out) in self.output(first + query).iter_mut().enumerate().skip(column) {
                let mut sum = *out * correction;
                for (weight, values) in weights.iter().zip(values.chunks_exact(head_dim)) {
                    sum = weight.mul_add(values[column].widen(), sum);
                }
                *out = sum;
            }
        }
    }

    /// `C` times sixteen elements from `column` on, which `Q` queries read once.
    #[inline(always)]
    fn add_lanes<S: Simd, U: Element, const Q: usize, const C: usize>(
        &self,
        simd: S,
        [first, column]: [usize; 2],
        corrections: [f32; Q],
        weights: [&[f32]; Q],
        values: &[U],
    ) {
        let mut sums = [[simd.splat(0.0); C]; Q];
        for (query, (sums, correction)) in sums.iter_mut().zip(corrections).enumerate() {
            let out = self.output(first + query)[column..].as_chunks().0.iter();
            for (sum, out) in sums.iter_mut().zip(out) {
                *sum = simd.multiply(simd.load(out), simd.splat(correction));
            }
        }
        let tokens = weights.map(<[f32]>::len)[0];
        for (token, values) in values.chunks_exact(self.kv.head_dim).enumerate().take(tokens) {
            let values = &values[column..].as_chunks::<LANES>().0[..C];
            let mut wide = [simd.splat(0.0); C];
            for (wide, values) in wide.iter_mut().zip(values) {
                *wide = U::lanes(simd, values);
            }
            for (sums, weights) in sums.iter_mut().zip(weights) {
                let weight = simd.splat(weights[token]);
                for (sum, values) in sums.iter_mut().zip(wide) {
                    *sum = simd.multiply_add(weight, values, *sum);
                }
            }
        }
        for (query, sums) in sums.into_iter().enumerate() {
            let out = self.output(first + query)[column..].as_chunks_mut().0.iter_mut();
            for (out, sum) in out.zip(sums) {
                *out = simd.to_array(sum);
            }
        }
    }
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
