use sparkherd_kernels::GateFunction;

use crate::{
    backend::{Backend, BackendError, Gated, Linear, Weight},
    model::Buffers,
};

/// `down · (silu(gate · x) ⊙ (up · x))`, without biases.
#[derive(Clone, Copy, Debug)]
pub struct GatedFeedForward {
    /// `[intermediate, hidden]`
    pub gate: Weight,
    /// `[intermediate, hidden]`
    pub up: Weight,
    /// `[hidden, intermediate]`
    pub down: Weight,
}

impl GatedFeedForward {
    /// From `buffers.normed` back into it.
    pub fn forward(&self, backend: &mut impl Backend, buffers: &Buffers) -> Result<(), BackendError> {
        let Buffers { normed, gate, up, .. } = *buffers;
        // As all families here have it.
        let function = GateFunction::Silu;
        backend.gated(Gated { function, x: normed, gate_weight: self.gate, up_weight: self.up, gate, up })?;
        backend.linear(Linear { x: gate, weight: self.down, out: normed })
    }
}
