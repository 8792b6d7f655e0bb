use crate::{
    backend::{
        Attention, AttentionInputs, AttentionOptions, Backend, BackendError, HeadNorms, Linear, Weight,
    },
    model::{Buffers, Step},
};

/// A matrix, and what is added after it.
#[derive(Clone, Copy, Debug)]
pub struct Projection {
    /// `[outputs, inputs]`
    pub weight: Weight,
    /// `[outputs]`
    pub bias: Option<Weight>,
}

/// Grouped-query attention with rotary positions.
#[derive(Clone, Copy, Debug)]
pub struct AttentionLayer {
    /// Which layer of the pool it reads and writes.
    pub index: usize,
    /// To `query_heads · head_dim`.
    pub query: Projection,
    /// To `kv_heads · head_dim`.
    pub key: Projection,
    /// To `kv_heads · head_dim`.
    pub value: Projection,
    pub head_norms: Option<HeadNorms>,
    /// `[hidden, query_heads · head_dim]`
    pub output: Weight,
}

impl AttentionLayer {
    /// From `buffers.normed` back into it. Keys and values of the whole step are stored before any query reads.
    pub fn forward(
        &self,
        backend: &mut impl Backend,
        buffers: &Buffers,
        step: &Step,
    ) -> Result<(), BackendError> {
        let Buffers { normed, query, key, value, attention, rotations, .. } = *buffers;
        let projections = [(self.query, query), (self.key, key), (self.value, value)];
        backend.linears(normed, &projections.map(|(projection, out)| (projection.weight, out)))?;
        backend.attention_inputs(&AttentionInputs {
            layer: self.index,
            queries: query,
            keys: key,
            values: value,
            biases: projections.map(|(projection, _)| projection.bias),
            head_norms: self.head_norms,
            rotations,
            slots: step.slots(),
        })?;
        backend.attention(Attention {
            layer: self.index,
            queries: query,
            scale: 1.0 / (rotations.columns as f32).sqrt(),
            options: AttentionOptions::default(),
            sequences: step.sequences(),
            block_tables: step.block_tables(),
            out: attention,
        })?;
        backend.linear(Linear { x: attention, weight: self.output, out: normed })
    }
}
