//! Operations that one launch does, where the trait has several.

use sparkherd_kernels as kernels;
use sparkherd_kernels::Device;

use super::{
    Cuda,
    numbers::List,
    operands::{self, count},
};
use crate::backend::{AttentionInputs, BackendError, Gated, Weight};

/// More rows are better off with the tensor cores, which take one matrix at a time; and there is no kernel for two types.
pub(super) fn has_launch(args: &Gated) -> bool {
    let Gated { x, gate_weight, up_weight, .. } = args;
    x.rows <= kernels::LINEAR_ROWS_MAX as usize && gate_weight.dtype == up_weight.dtype
}

impl<D: Device> Cuda<D> {
    pub(super) fn launch_gated(&mut self, args: Gated) -> Result<(), BackendError> {
        args.check()?;
        let Gated { function, x, gate_weight, up_weight, gate, up: _ } = args;
        let [input, out] = self.memory.disjoint("gated", [x, gate])?;
        let launch = kernels::LinearGated {
            x: input,
            gate: self.memory.weight("gated", gate_weight)?,
            up: self.memory.weight("gated", up_weight)?,
            dtype: gate_weight.dtype,
            out,
            rows: count("gated", x.rows)?,
            inputs: count("gated", x.columns)?,
            outputs: count("gated", gate.columns)?,
            function,
        };
        Ok(launch.launch(&mut self.device)?)
    }

    pub(super) fn launch_attention_inputs(&mut self, args: &AttentionInputs<'_>) -> Result<(), BackendError> {
        args.check(&self.kv)?;
        let operation = "attention_inputs";
        let AttentionInputs { layer, queries, keys, values, biases, head_norms, rotations, slots } = *args;
        for other in [values, rotations] {
            self.memory.disjoint(operation, [queries, other])?;
        }
        let [query_memory, key_memory] = self.memory.disjoint(operation, [queries, keys])?;
        let [query_bias, key_bias, value_bias] = biases;
        let launch = kernels::AttentionInputs {
            pool: self.layer(layer)?,
            queries: query_memory,
            keys: key_memory,
            values: self.memory.activation(operation, values)?,
            rotations: self.memory.activation(operation, rotations)?,
            slots: self.numbers.place(&mut self.device, List::Slots, slots)?,
            query_bias: self.vector(query_bias)?,
            key_bias: self.vector(key_bias)?,
            value_bias: self.vector(value_bias)?,
            query_norm: self.vector(head_norms.map(|norms| norms.query))?,
            key_norm: self.vector(head_norms.map(|norms| norms.key))?,
            epsilon: head_norms.map_or(0.0, |norms| norms.epsilon),
            rows: count(operation, queries.rows)?,
            query_heads: count(operation, queries.columns / self.kv.head_dim.max(1))?,
        };
        operands::attention_inputs(&mut self.device, launch)
    }

    pub(super) fn vector(&self, weight: Option<Weight>) -> Result<Option<kernels::Vector>, BackendError> {
        let Some(weight) = weight else { return Ok(None) };
        let values = self.memory.weight("vector", weight)?;
        Ok(Some(kernels::Vector { values, dtype: weight.dtype }))
    }
}
