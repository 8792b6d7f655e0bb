//! A layer's keys and values in the pool: `[layer][keys, values][block · 16 tokens · kv_heads · head_dim]`.

use std::ops::Range;

use sparkherd_footprint::{BLOCK_TOKENS, KvDtype};

use super::{
    BackendError, KvShape,
    arena::{Arena, Plain},
};

impl KvShape {
    /// Elements of the keys (or of the values) of one layer.
    pub(super) const fn layer_elements(&self) -> usize {
        self.blocks * BLOCK_TOKENS as usize * self.token_elements()
    }

    /// Bytes of the whole pool.
    pub const fn bytes(&self) -> usize {
        let element_bytes = match self.dtype {
            KvDtype::F32 => 4,
            KvDtype::Bf16 => 2,
            KvDtype::Fp8 => 1,
        };
        2 * self.layers * self.layer_elements() * element_bytes
    }

    /// Whether this pool has the size of its arena.
    pub(super) fn check(&self, arena: &Arena) -> Result<(), BackendError> {
        if arena.bytes() == self.bytes() {
            Ok(())
        } else {
            Err(BackendError::KvBytes { got: arena.bytes(), wanted: self.bytes() })
        }
    }

    fn range(&self, layer: usize) -> Range<usize> {
        2 * layer * self.layer_elements()..2 * (layer + 1) * self.layer_elements()
    }

    /// Keys and values of one layer.
    pub(super) fn layer<'a, T: Plain>(&self, arena: &'a Arena, layer: usize) -> (&'a [T], &'a [T]) {
        arena.as_slice::<T>()[self.range(layer)].split_at(self.layer_elements())
    }

    /// Keys and values of one layer, to write.
    pub(super) fn layer_mut<'a, T: Plain>(
        &self,
        arena: &'a mut Arena,
        layer: usize,
    ) -> (&'a mut [T], &'a mut [T]) {
        arena.as_mut_slice::<T>()[self.range(layer)].split_at_mut(self.layer_elements())
    }
}
