//! Operations that a backend may do in one go, as the operations they are made of.

use super::{
    AddBias, AttentionInputs, Backend, BackendError, GateMultiply, Gated, HeadNorms, HeadRmsNorm, KvWrite,
    Rope,
};

pub(super) fn attention_inputs<B: Backend + ?Sized>(
    backend: &mut B,
    args: &AttentionInputs<'_>,
) -> Result<(), BackendError> {
    let AttentionInputs { layer, queries, keys, values, biases, head_norms, rotations, slots } = *args;
    for (x, bias) in [queries, keys, values].into_iter().zip(biases) {
        if let Some(bias) = bias {
            backend.add_bias(AddBias { x, bias })?;
        }
    }
    if let Some(HeadNorms { query, key, epsilon }) = head_norms {
        backend.head_rms_norm(HeadRmsNorm { x: queries, weight: query, epsilon })?;
        backend.head_rms_norm(HeadRmsNorm { x: keys, weight: key, epsilon })?;
    }
    backend.rope(Rope { x: queries, rotations })?;
    backend.rope(Rope { x: keys, rotations })?;
    backend.kv_write(KvWrite { layer, keys, values, slots })
}

pub(super) fn gated<B: Backend + ?Sized>(backend: &mut B, args: Gated) -> Result<(), BackendError> {
    let Gated { function, x, gate_weight, up_weight, gate, up } = args;
    backend.linears(x, &[(gate_weight, gate), (up_weight, up)])?;
    backend.gate_multiply(GateMultiply { function, gate, up })
}
