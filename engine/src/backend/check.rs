//! Shapes and places, checked once for every host backend before anything is computed.

use half::{bf16, f16};
use sparkherd_checkpoint::Dtype;
use sparkherd_footprint::BLOCK_TOKENS;

use super::{
    Activation, Add, AddBias, AddRmsNorm, Attention, AttentionInputs, AttentionOptions, BackendError, Embed,
    GateMultiply, Gated, GatherRows, HeadNorms, HeadRmsNorm, KvShape, KvWrite, Linear, RmsNorm, Rope, Weight,
    arena::Arena, blocks::element,
};

/// A weight's values in their stored type.
#[derive(Clone, Copy, Debug)]
pub(super) enum WeightValues<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
    /// Of one of the block formats, row after row.
    Blocks(Dtype, &'a [u8]),
}

impl<'a> WeightValues<'a> {
    pub(super) fn of(
        arena: &'a Arena,
        operation: &'static str,
        weight: Weight,
    ) -> Result<Self, BackendError> {
        fn slice<T>(values: &[T], weight: Weight) -> Option<&[T]> {
            let first = weight.offset_bytes / size_of::<T>();
            values.get(first..first.checked_add(weight.rows.checked_mul(weight.columns)?)?)
        }
        match weight.dtype {
            Dtype::F32 => slice(arena.as_slice::<f32>(), weight).map(Self::F32),
            Dtype::F16 => slice(arena.as_slice::<f16>(), weight).map(Self::F16),
            Dtype::Bf16 => slice(arena.as_slice::<bf16>(), weight).map(Self::Bf16),
            Dtype::Q8_0 | Dtype::Q4_0 | Dtype::Q4K | Dtype::Q6K => {
                let row_bytes = weight.dtype.row_bytes(weight.columns as u64);
                let row_bytes = row_bytes.map_err(|source| BackendError::Row { operation, source })?;
                let bytes = usize::try_from(row_bytes).ok().and_then(|bytes| bytes.checked_mul(weight.rows));
                let end = bytes.and_then(|bytes| weight.offset_bytes.checked_add(bytes));
                end.and_then(|end| arena.as_slice::<u8>().get(weight.offset_bytes..end))
                    .map(|bytes| Self::Blocks(weight.dtype, bytes))
            }
        }
        .ok_or(BackendError::Weight {
            operation,
            rows: weight.rows,
            columns: weight.columns,
            offset_bytes: weight.offset_bytes,
            arena_bytes: arena.bytes(),
        })
    }

    /// One value, widened.
    pub(super) fn at(&self, index: usize) -> f32 {
        match self {
            Self::F32(values) => values[index],
            Self::F16(values) => values[index].to_f32(),
            Self::Bf16(values) => values[index].to_f32(),
            Self::Blocks(dtype, bytes) => element(*dtype, bytes, index),
        }
    }
}

/// The activations of one operation, which may not overlap.
pub(super) fn disjoint<'a, const N: usize>(
    workspace: &'a mut [f32],
    operation: &'static str,
    activations: [Activation; N],
) -> Result<[&'a mut [f32]; N], BackendError> {
    let elements = workspace.len();
    workspace
        .get_disjoint_mut(activations.map(Activation::range))
        .map_err(|_| BackendError::Overlap { operation, elements })
}

fn equal(operation: &'static str, what: &'static str, got: usize, wanted: usize) -> Result<(), BackendError> {
    if got == wanted { Ok(()) } else { Err(BackendError::Shape { operation, what, got, wanted }) }
}

fn below(operation: &'static str, what: &'static str, got: usize, limit: usize) -> Result<(), BackendError> {
    if got < limit { Ok(()) } else { Err(BackendError::OutOfRange { operation, what, got, limit }) }
}

fn all_below(
    operation: &'static str,
    what: &'static str,
    values: &[u32],
    limit: usize,
) -> Result<(), BackendError> {
    values.iter().max().map_or(Ok(()), |largest| below(operation, what, *largest as usize, limit))
}

fn same_shape(operation: &'static str, a: Activation, b: Activation) -> Result<(), BackendError> {
    equal(operation, "rows", a.rows, b.rows)?;
    equal(operation, "columns", a.columns, b.columns)
}

impl Embed<'_> {
    pub(super) fn check(&self) -> Result<(), BackendError> {
        equal("embed", "rows of out", self.out.rows, self.tokens.len())?;
        equal("embed", "columns of out", self.out.columns, self.table.columns)?;
        all_below("embed", "token", self.tokens, self.table.rows)
    }
}

impl GatherRows<'_> {
    pub(super) fn check(&self) -> Result<(), BackendError> {
        equal("gather_rows", "rows of out", self.out.rows, self.rows.len())?;
        equal("gather_rows", "columns of out", self.out.columns, self.x.columns)?;
        all_below("gather_rows", "row", self.rows, self.x.rows)
    }
}

impl RmsNorm {
    pub(super) fn check(&self) -> Result<(), BackendError> {
        same_shape("rms_norm", self.out, self.x)?;
        equal("rms_norm", "rows of weight", self.weight.rows, 1)?;
        equal("rms_norm", "columns of weight", self.weight.columns, self.x.columns)
    }
}

impl AddRmsNorm {
    pub(super) fn check(&self) -> Result<(), BackendError> {
        same_shape("add_rms_norm", self.x, self.residual)?;
        equal("add_rms_norm", "rows of weight", self.weight.rows, 1)?;
        equal("add_rms_norm", "columns of weight", self.weight.columns, self.x.columns)
    }
}

impl Add {
    pub(super) fn check(&self) -> Result<(), BackendError> {
        same_shape("add", self.delta, self.x)
    }
}

impl Linear {
    pub(super) fn check(&self) -> Result<(), BackendError> {
        equal("linear", "rows of out", self.out.rows, self.x.rows)?;
        equal("linear", "columns of out", self.out.columns, self.weight.rows)?;
        equal("linear", "columns of weight", self.weight.columns, self.x.columns)
    }
}

impl AddBias {
    pub(super) fn check(&self) -> Result<(), BackendError> {
        equal("add_bias", "rows of bias", self.bias.rows, 1)?;
        equal("add_bias", "columns of bias", self.bias.columns, self.x.columns)
    }
}

impl HeadRmsNorm {
    pub(super) fn check(&self) -> Result<(), BackendError> {
        let operation = "head_rms_norm";
        equal(operation, "rows of weight", self.weight.rows, 1)?;
        below(operation, "size of a head", self.weight.columns, self.x.columns + 1)?;
        equal(operation, "columns modulo the size of a head", self.x.columns % self.weight.columns.max(1), 0)
    }
}

impl Rope {
    pub(super) fn check(&self) -> Result<(), BackendError> {
        equal("rope", "rows of rotations", self.rotations.rows, self.x.rows)?;
        below("rope", "size of a head modulo 2", self.rotations.columns % 2, 1)?;
        below("rope", "size of a head", self.rotations.columns, self.x.columns + 1)?;
        equal("rope", "columns modulo the size of a head", self.x.columns % self.rotations.columns.max(1), 0)
    }
}

impl KvWrite<'_> {
    pub(super) fn check(&self, kv: &KvShape) -> Result<(), BackendError> {
        same_shape("kv_write", self.values, self.keys)?;
        equal("kv_write", "columns of keys", self.keys.columns, kv.token_elements())?;
        equal("kv_write", "slots", self.slots.len(), self.keys.rows)?;
        below("kv_write", "layer", self.layer, kv.layers)?;
        all_below("kv_write", "slot", self.slots, kv.blocks * BLOCK_TOKENS as usize)
    }
}

impl AttentionInputs<'_> {
    /// As each of its parts is checked by itself.
    pub(super) fn check(&self, kv: &KvShape) -> Result<(), BackendError> {
        let Self { layer, queries, keys, values, biases, head_norms, rotations, slots } = *self;
        for (x, bias) in [queries, keys, values].into_iter().zip(biases) {
            bias.map_or(Ok(()), |bias| AddBias { x, bias }.check())?;
        }
        if let Some(HeadNorms { query, key, epsilon }) = head_norms {
            for (x, weight) in [(queries, query), (keys, key)] {
                equal("head_rms_norm", "columns of weight", weight.columns, kv.head_dim)?;
                HeadRmsNorm { x, weight, epsilon }.check()?;
            }
        }
        equal("rope", "columns of rotations", rotations.columns, kv.head_dim)?;
        Rope { x: queries, rotations }.check()?;
        Rope { x: keys, rotations }.check()?;
        KvWrite { layer, keys, values, slots }.check(kv)
    }
}

impl AttentionOptions {
    fn check(&self, query_heads: usize) -> Result<(), BackendError> {
        let Self { window, sinks, softcap } = *self;
        if window == Some(0) {
            return Err(BackendError::AttentionOption("a window of no positions"));
        }
        if softcap.is_some_and(|softcap| softcap.is_nan() || softcap <= 0.0) {
            return Err(BackendError::AttentionOption("a cap of scores that is not above 0"));
        }
        let Some(sinks) = sinks else { return Ok(()) };
        equal("attention", "rows of sinks", sinks.rows, 1)?;
        equal("attention", "columns of sinks", sinks.columns, query_heads)
    }
}

impl Attention<'_> {
    pub(super) fn check(&self, kv: &KvShape) -> Result<(), BackendError> {
        let operation = "attention";
        same_shape(operation, self.out, self.queries)?;
        equal(
            operation,
            "columns modulo those of keys",
            self.queries.columns % kv.token_elements().max(1),
            0,
        )?;
        self.options.check(self.queries.columns / kv.head_dim.max(1))?;
        below(operation, "layer", self.layer, kv.layers)?;
        all_below(operation, "block", self.block_tables, kv.blocks)?;
        let mut next_row = 0;
        for sequence in self.sequences {
            equal(operation, "first row of a sequence", sequence.first_row, next_row)?;
            next_row += sequence.rows;
            let blocks = (sequence.position + sequence.rows).div_ceil(BLOCK_TOKENS as usize);
            below(
                operation,
                "blocks of the sequences",
                sequence.first_block + blocks,
                self.block_tables.len() + 1,
            )?;
        }
        equal(operation, "rows of the sequences", next_row, self.queries.rows)
    }
}

impl GateMultiply {
    pub(super) fn check(&self) -> Result<(), BackendError> {
        same_shape("gate_multiply", self.up, self.gate)
    }
}

impl Gated {
    pub(super) fn check(&self) -> Result<(), BackendError> {
        let Self { function: _, x, gate_weight, up_weight, gate, up } = *self;
        Linear { x, weight: gate_weight, out: gate }.check()?;
        Linear { x, weight: up_weight, out: up }.check()
    }
}
