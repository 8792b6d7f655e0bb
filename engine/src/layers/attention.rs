use crate::{
    backend::{Attention, Backend, BackendError, KvWrite, Linear, Rope, Weight},
    model::{Buffers, Step},
};

/// Grouped-query attention with rotary positions, without biases.
#[derive(Clone, Copy, Debug)]
pub struct AttentionLayer {
    /// Which layer of the pool it reads and writes.
    pub index: usize,
    /// `[query_heads · head_dim, hidden]`
    pub query: Weight,
    /// `[kv_heads · head_dim, hidden]`
    pub key: Weight,
    /// `[kv_heads · head_dim, hidden]`
    pub value: Weight,
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
        backend.linear(Linear { x: normed, weight: self.query, out: query })?;
        backend.linear(Linear { x: normed, weight: self.key, out: key })?;
        backend.linear(Linear { x: normed, weight: self.value, out: value })?;
        backend.rope(Rope { x: query, rotations })?;
        backend.rope(Rope { x: key, rotations })?;
        backend.kv_write(KvWrite { layer: self.index, keys: key, values: value, slots: step.slots() })?;
        backend.attention(Attention {
            layer: self.index,
            queries: query,
            scale: 1.0 / (rotations.columns as f32).sqrt(),
            sequences: step.sequences(),
            block_tables: step.block_tables(),
            out: attention,
        })?;
        backend.linear(Linear { x: attention, weight: self.output, out: normed })
    }
}
