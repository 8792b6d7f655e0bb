//! The reference: each operation as its formula in plain f32 loops, nothing shared and nothing clever.

mod attention;
mod elementwise;
mod fp8;

use std::f32::consts::PI;

use half::bf16;
use sparkherd_footprint::KvDtype;
use sparkherd_kernels::GateFunction;

pub(super) use elementwise::{add, add_bias, embed, gather_rows, read_pair, rope, write};

use super::{
    Activation, Add, AddBias, AddRmsNorm, Attention, Backend, BackendError, Embed, GateMultiply, GatherRows,
    HeadRmsNorm, HostMemory, KvShape, KvWrite, Linear, RmsNorm, Rope, Weight,
    check::{WeightValues, disjoint},
};

#[derive(Debug)]
pub struct Oracle {
    memory: HostMemory,
    kv: KvShape,
}

impl Oracle {
    pub fn new(memory: HostMemory, kv: KvShape) -> Result<Self, BackendError> {
        kv.check(&memory.kv)?;
        Ok(Self { memory, kv })
    }
}

impl Backend for Oracle {
    fn prepare(&mut self, _weights: &[Weight]) -> Result<(), BackendError> {
        Ok(())
    }

    fn write(&mut self, to: Activation, values: &[f32]) -> Result<(), BackendError> {
        write(&mut self.memory, to, values)
    }

    fn read_pair(&mut self, from: [Activation; 2]) -> Result<[&[f32]; 2], BackendError> {
        read_pair(&self.memory, from)
    }

    fn embed(&mut self, args: Embed<'_>) -> Result<(), BackendError> {
        embed(&mut self.memory, args)
    }

    fn gather_rows(&mut self, args: GatherRows<'_>) -> Result<(), BackendError> {
        gather_rows(&mut self.memory, args)
    }

    fn rms_norm(&mut self, args: RmsNorm) -> Result<(), BackendError> {
        args.check()?;
        let weight = WeightValues::of(&self.memory.weights, "rms_norm", args.weight)?;
        let [x, out] = disjoint(self.memory.workspace.as_mut_slice(), "rms_norm", [args.x, args.out])?;
        let width = args.x.columns;
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let mean = x.iter().map(|value| value * value).sum::<f32>() / width as f32;
            let scale = 1.0 / (mean + args.epsilon).sqrt();
            for (column, (x, out)) in x.iter().zip(out).enumerate() {
                *out = x * scale * weight.at(column);
            }
        }
        Ok(())
    }

    fn add_rms_norm(&mut self, args: AddRmsNorm) -> Result<(), BackendError> {
        args.check()?;
        self.add(Add { x: args.residual, delta: args.x })?;
        self.rms_norm(RmsNorm { x: args.residual, weight: args.weight, epsilon: args.epsilon, out: args.x })
    }

    fn add(&mut self, args: Add) -> Result<(), BackendError> {
        add(&mut self.memory, args)
    }

    fn linear(&mut self, args: Linear) -> Result<(), BackendError> {
        args.check()?;
        let weight = WeightValues::of(&self.memory.weights, "linear", args.weight)?;
        let [x, out] = disjoint(self.memory.workspace.as_mut_slice(), "linear", [args.x, args.out])?;
        let inputs = args.x.columns;
        for (x, out) in x.chunks_exact(inputs).zip(out.chunks_exact_mut(args.out.columns)) {
            for (output, out) in out.iter_mut().enumerate() {
                *out = x.iter().enumerate().map(|(k, x)| x * weight.at(output * inputs + k)).sum();
            }
        }
        Ok(())
    }

    fn add_bias(&mut self, args: AddBias) -> Result<(), BackendError> {
        add_bias(&mut self.memory, args)
    }

    fn head_rms_norm(&mut self, args: HeadRmsNorm) -> Result<(), BackendError> {
        args.check()?;
        let weight = WeightValues::of(&self.memory.weights, "head_rms_norm", args.weight)?;
        let [x] = disjoint(self.memory.workspace.as_mut_slice(), "head_rms_norm", [args.x])?;
        for head in x.chunks_exact_mut(args.weight.columns) {
            let mean = head.iter().map(|value| value * value).sum::<f32>() / head.len() as f32;
            let scale = 1.0 / (mean + args.epsilon).sqrt();
            for (column, x) in head.iter_mut().enumerate() {
                *x *= scale * weight.at(column);
            }
        }
        Ok(())
    }

    fn rope(&mut self, args: Rope) -> Result<(), BackendError> {
        rope(&mut self.memory, args)
    }

    fn kv_write(&mut self, args: KvWrite<'_>) -> Result<(), BackendError> {
        args.check(&self.kv)?;
        match self.kv.dtype {
            KvDtype::F32 => attention::kv_write::<f32>(&mut self.memory, &self.kv, args, |value| value),
            KvDtype::Bf16 => attention::kv_write(&mut self.memory, &self.kv, args, bf16::from_f32),
            KvDtype::Fp8 => attention::kv_write(&mut self.memory, &self.kv, args, fp8::narrow),
        }
    }

    fn attention(&mut self, args: Attention<'_>) -> Result<(), BackendError> {
        args.check(&self.kv)?;
        match self.kv.dtype {
            KvDtype::F32 => attention::attention::<f32>(&mut self.memory, &self.kv, args, |value| value),
            KvDtype::Bf16 => attention::attention(&mut self.memory, &self.kv, args, bf16::to_f32),
            KvDtype::Fp8 => attention::attention(&mut self.memory, &self.kv, args, fp8::widen),
        }
    }

    fn gate_multiply(&mut self, args: GateMultiply) -> Result<(), BackendError> {
        args.check()?;
        let [gate, up] =
            disjoint(self.memory.workspace.as_mut_slice(), "gate_multiply", [args.gate, args.up])?;
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate = gate_value(args.function, *gate) * *up;
        }
        Ok(())
    }
}

fn gate_value(function: GateFunction, gate: f32) -> f32 {
    match function {
        GateFunction::Silu => gate / (1.0 + (-gate).exp()),
        GateFunction::GeluTanh => {
            let of: f32 = (2.0_f32 / PI).sqrt() * (gate + 0.044_715 * gate.powi(3));
            0.5 * gate * (1.0 + of.tanh())
        }
    }
}
