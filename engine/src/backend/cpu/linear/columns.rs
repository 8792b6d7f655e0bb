#![expect(unsafe_code, reason = "pieces write disjoint columns of one matrix")]
//! What a piece of a product computes: all rows of some outputs, whatever the weights are stored as.
//!
//! ```text
//! outputs  two groups of sixteen at a time, then one, then the last that is not whole
//!   rows     some tiles whose sums stay in the first-level cache where a slice ends
//!     inputs   a slice whose weights stay there too
//!       rows     tile after tile, sums in registers
//! ```

use std::ops::Range;

use super::super::{
    layout::GROUP,
    operand::{Height, Tile, Tiles},
    shared_slice::SharedSlice,
    simd::{Kernel, LANES, Simd},
};

/// Tiles that go through all inputs together: sums of twelve rows of two groups take 1.5 KiB, so these some 12 KiB. In the
/// result itself they would lie a whole row apart, which is most often a power of two, and push each other out of the cache.
const KEPT_TILES: usize = 8;
const KEPT_ROWS: usize = KEPT_TILES * Height::Twelve.rows();

/// How weights of one format are multiplied with packed rows.
pub(super) trait Format {
    /// What packed rows consist of.
    type X;
    /// What stored weights consist of.
    type W;
    /// A narrow group's weights of [`Format::NARROW_INPUTS`], widened to a whole group.
    type Padded: AsMut<[Self::W]>;
    const UNPADDED: Self::Padded;
    /// Inputs that all rows go through before the next.
    const SLICE_INPUTS: usize;
    /// The same in a narrow group.
    const NARROW_INPUTS: usize;
    /// How many `X` so many inputs are packed as.
    fn packed(inputs: usize) -> usize;
    /// How many `W` so many inputs are stored as.
    fn stored(inputs: usize) -> usize;
    /// Fills up a group of `width` outputs with zeros.
    fn pad(stored: &[Self::W], width: usize, padded: &mut [Self::W]);
    /// `sums[r][g] += Σ x[k][r] · weights[g][k]`, inputs in order.
    fn multiply_add<S: Simd, const R: usize, const G: usize>(
        simd: S,
        weights: [&[Self::W]; G],
        x: &[Self::X],
        sums: [[S::Lanes; G]; R],
    ) -> [[S::Lanes; G]; R];
}

/// All rows of some groups of outputs.
pub(super) struct Columns<'a, F: Format> {
    pub(super) x: &'a [F::X],
    pub(super) tiles: Tiles,
    pub(super) weight: &'a [F::W],
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) range: Range<usize>,
    pub(super) out: &'a SharedSlice<'a>,
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl<F: Format> Kernel for Columns<'_, F> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        let mut output = self.range.start;
        while S::WIDE && output + 2 * GROUP <= self.range.end {
            self.groups::<S, 2>(simd, [output, output + GROUP]);
            output += 2 * GROUP;
        }
        while output + GROUP <= self.range.end {
            self.groups::<S, 1>(simd, [output]);
            output += GROUP;
        }
        if output < self.range.end {
            self.narrow_group(simd, output);
        }
    }
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl<F: Format> Columns<'_, F> {
    #[inline(always)]
    fn groups<S: Simd, const G: usize>(&self, simd: S, outputs: [usize; G]) {
        let tiles = self.tiles.count();
        if tiles == 1 {
            // Nothing needs to stay in a cache.
            self.slice::<S, G>(
                simd,
                self.weights(outputs, &(0..self.inputs)),
                &(0..self.inputs),
                outputs,
                GROUP,
            );
            return;
        }
        let mut kept = [[[0.0; LANES]; G]; KEPT_ROWS];
        for first_tile in (0..tiles).step_by(KEPT_TILES) {
            let together = first_tile..tiles.min(first_tile + KEPT_TILES);
            for first in (0..self.inputs).step_by(F::SLICE_INPUTS) {
                let inputs = first..self.inputs.min(first + F::SLICE_INPUTS);
                let weights = self.weights(outputs, &inputs);
                let mut kept = kept.as_mut_slice();
                for index in together.clone() {
                    let tile = self.tiles.get(index);
                    let (of_tile, rest) = kept.split_at_mut(tile.height.rows());
                    kept = rest;
                    self.tile(simd, weights, &inputs, &Place { tile, outputs, width: GROUP }, Some(of_tile));
                }
            }
        }
    }

    /// The weights of whole groups for some inputs.
    #[inline(always)]
    fn weights<const G: usize>(&self, outputs: [usize; G], inputs: &Range<usize>) -> [&[F::W]; G] {
        outputs.map(|output| {
            let group = &self.weight[F::stored(output * self.inputs + inputs.start * GROUP)..];
            &group[..F::stored(inputs.len() * GROUP)]
        })
    }

    /// The last group, which is not whole: its weights are padded on the way.
    #[inline(always)]
    fn narrow_group<S: Simd>(&self, simd: S, output: usize) {
        let width = self.range.end - output;
        let mut padded = F::UNPADDED;
        for first in (0..self.inputs).step_by(F::NARROW_INPUTS) {
            let inputs = first..self.inputs.min(first + F::NARROW_INPUTS);
            let stored = &self.weight[F::stored(output * self.inputs + first * width)..];
            let padded = &mut padded.as_mut()[..F::stored(inputs.len() * GROUP)];
            F::pad(&stored[..F::stored(inputs.len() * width)], width, padded);
            self.slice::<S, 1>(simd, [padded], &inputs, [output], width);
        }
    }

    /// Adds the products of these inputs to all rows of the first `width` outputs of each group.
    #[inline(always)]
    pub(super) fn slice<S: Simd, const G: usize>(
        &self,
        simd: S,
        weights: [&[F::W]; G],
        inputs: &Range<usize>,
        outputs: [usize; G],
        width: usize,
    ) {
        for index in 0..self.tiles.count() {
            let tile = self.tiles.get(index);
            self.tile(simd, weights, inputs, &Place { tile, outputs, width }, None);
        }
    }

    /// Sums are in `kept` between slices of the inputs, or in the result.
    #[inline(always)]
    fn tile<S: Simd, const G: usize>(
        &self,
        simd: S,
        weights: [&[F::W]; G],
        inputs: &Range<usize>,
        at: &Place<G>,
        kept: Option<&mut [[[f32; LANES]; G]]>,
    ) {
        match at.tile.height {
            Height::One => self.rows::<S, 1, G>(simd, weights, inputs, at, kept),
            Height::Two => self.rows::<S, 2, G>(simd, weights, inputs, at, kept),
            Height::Four => self.rows::<S, 4, G>(simd, weights, inputs, at, kept),
            Height::Eight => self.rows::<S, 8, G>(simd, weights, inputs, at, kept),
            Height::Twelve => self.rows::<S, 12, G>(simd, weights, inputs, at, kept),
        }
    }

    #[inline(always)]
    fn rows<S: Simd, const R: usize, const G: usize>(
        &self,
        simd: S,
        weights: [&[F::W]; G],
        inputs: &Range<usize>,
        at: &Place<G>,
        kept: Option<&mut [[[f32; LANES]; G]]>,
    ) {
        let x = &self.x[F::packed(at.tile.first_row * self.inputs)..];
        let x = &x[F::packed(inputs.start * R)..F::packed(inputs.end * R)];
        let mut kept = kept.and_then(|kept| kept.first_chunk_mut::<R>());
        let mut sums = [[simd.splat(0.0); G]; R];
        if inputs.start > 0 {
            for (row, sums) in sums.iter_mut().enumerate() {
                for (group, sum) in sums.iter_mut().enumerate() {
                    *sum = match &kept {
                        Some(kept) => simd.load(&kept[row][group]),
                        None if row < at.tile.rows => load(simd, self.out(at, row, at.outputs[group])),
                        None => *sum,
                    };
                }
            }
        }
        let sums = F::multiply_add(simd, weights, x, sums);
        // To memory in a loop of its own: whatever else touched the sums would keep them there during the products.
        let mut lanes = [[[0.0; LANES]; G]; R];
        for (lanes, sums) in lanes.iter_mut().zip(&sums) {
            for (lanes, sum) in lanes.iter_mut().zip(sums) {
                *lanes = simd.to_array(*sum);
            }
        }
        if let Some(kept) = kept.as_mut().filter(|_| inputs.end < self.inputs) {
            **kept = lanes;
            return;
        }
        for (row, lanes) in lanes.iter().enumerate().take(at.tile.rows) {
            for (lanes, output) in lanes.iter().zip(at.outputs) {
                let out = self.out(at, row, output);
                out.copy_from_slice(&lanes[..out.len()]);
            }
        }
    }

    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "each part is this piece's alone, taken one at a time")]
    fn out<const G: usize>(&self, at: &Place<G>, row: usize, output: usize) -> &mut [f32] {
        let first = (at.tile.first_row + row) * self.outputs + output;
        // SAFETY: columns of this piece's range, which no other piece has; callers drop the slice before they take another.
        unsafe { self.out.range(first..first + at.width) }
    }
}

/// Where a tile's results go.
struct Place<const G: usize> {
    tile: Tile,
    outputs: [usize; G],
    width: usize,
}

/// The sums so far; lanes beyond the width are 0.
#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
#[inline(always)]
fn load<S: Simd>(simd: S, values: &[f32]) -> S::Lanes {
    if let Some(values) = values.first_chunk() {
        return simd.load(values);
    }
    let mut lanes = [0.0; LANES];
    lanes[..values.len()].copy_from_slice(values);
    simd.load(&lanes)
}
