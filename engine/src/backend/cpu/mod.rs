//! This machine's cores: a pool of threads, and SIMD chosen at run time.
//!
//! Two promises beyond the formulas. A row's result does not depend on the other rows of a step (I20). And it does not
//! depend on the instructions: every [`Path`] gives the same bits.

mod attention;
mod choice;
mod embed;
mod layout;
mod linear;
mod operand;
mod pool;
mod read_speed;
mod rows;
mod shared_slice;
mod simd;

use half::bf16;
use sparkherd_footprint::KvDtype;

pub use choice::{PathSpeed, UnknownPath, measure_paths};
pub use read_speed::{ReadSpeed, ReadSpeedError};
pub use simd::Path;

use super::{
    Activation, Add, AddBias, AddRmsNorm, Attention, AttentionOptions, Backend, BackendError, Embed,
    GateMultiply, GatherRows, HeadRmsNorm, HostMemory, KvShape, KvWrite, Linear, RmsNorm, Rope, Weight,
    check::{WeightValues, disjoint},
    oracle,
};
use linear::{Part, Rows};
use pool::Pool;
use rows::Normalise;

/// Products that share one packing of their rows: queries, keys and values.
const SHARING_MAX: usize = 3;

#[derive(Debug)]
pub struct Cpu {
    memory: HostMemory,
    kv: KvShape,
    path: Path,
    pool: Pool,
}

impl Cpu {
    /// Computes with `threads` threads, the caller's included.
    pub fn new(memory: HostMemory, kv: KvShape, path: Path, threads: usize) -> Result<Self, BackendError> {
        if kv.dtype == KvDtype::Fp8 {
            return Err(BackendError::KvDtype("FP8"));
        }
        kv.check(&memory.kv)?;
        Ok(Self { memory, kv, path, pool: Pool::start(threads)? })
    }
}

impl Cpu {
    /// Up to [`SHARING_MAX`] products of the same rows.
    fn multiply(&mut self, x: Activation, parts: &[(Weight, Activation)]) -> Result<(), BackendError> {
        const NONE: Activation = Activation { offset: 0, rows: 0, columns: 0 };
        let memory = &mut self.memory;
        let mut places = [NONE; SHARING_MAX + 1];
        places[SHARING_MAX] = x;
        for (place, (weight, out)) in places.iter_mut().zip(parts) {
            Linear { x, weight: *weight, out: *out }.check()?;
            *place = *out;
        }
        let [outs @ .., x_values] = disjoint(memory.workspace.as_mut_slice(), "linear", places)?;
        let rows = Rows { x: x_values, inputs: x.columns };
        let mut parts = parts
            .iter()
            .zip(outs)
            .map(|((weight, _), out)| {
                let values = WeightValues::of(&memory.weights, "linear", *weight)?;
                Ok(Part { weight: values, outputs: weight.rows, out })
            })
            .collect::<Result<Vec<_>, BackendError>>()?;
        linear::linear(self.path, &mut self.pool, &mut memory.packed, rows, &mut parts)
    }
}

impl Backend for Cpu {
    fn prepare(&mut self, weights: &[Weight]) -> Result<(), BackendError> {
        weights
            .iter()
            .filter(|weight| weight.rows > 1)
            .try_for_each(|weight| layout::reorder(&mut self.pool, &mut self.memory.weights, *weight))
    }

    fn write(&mut self, to: Activation, values: &[f32]) -> Result<(), BackendError> {
        oracle::write(&mut self.memory, to, values)
    }

    fn read_pair(&mut self, from: [Activation; 2]) -> Result<[&[f32]; 2], BackendError> {
        oracle::read_pair(&self.memory, from)
    }

    fn embed(&mut self, args: Embed<'_>) -> Result<(), BackendError> {
        embed::embed(&mut self.memory, args)
    }

    fn gather_rows(&mut self, args: GatherRows<'_>) -> Result<(), BackendError> {
        oracle::gather_rows(&mut self.memory, args)
    }

    fn rms_norm(&mut self, args: RmsNorm) -> Result<(), BackendError> {
        args.check()?;
        let weight = WeightValues::of(&self.memory.weights, "rms_norm", args.weight)?;
        let [x, out] = disjoint(self.memory.workspace.as_mut_slice(), "rms_norm", [args.x, args.out])?;
        let normalise = Normalise { weight, epsilon: args.epsilon, width: args.x.columns };
        normalise.copy(self.path, &mut self.pool, x, out)
    }

    fn add_rms_norm(&mut self, args: AddRmsNorm) -> Result<(), BackendError> {
        args.check()?;
        let weight = WeightValues::of(&self.memory.weights, "add_rms_norm", args.weight)?;
        let [residual, x] =
            disjoint(self.memory.workspace.as_mut_slice(), "add_rms_norm", [args.residual, args.x])?;
        let normalise = Normalise { weight, epsilon: args.epsilon, width: args.x.columns };
        normalise.add(self.path, &mut self.pool, residual, x)
    }

    fn add(&mut self, args: Add) -> Result<(), BackendError> {
        oracle::add(&mut self.memory, args)
    }

    fn linear(&mut self, args: Linear) -> Result<(), BackendError> {
        self.linears(args.x, &[(args.weight, args.out)])
    }

    fn linears(&mut self, x: Activation, parts: &[(Weight, Activation)]) -> Result<(), BackendError> {
        parts.chunks(SHARING_MAX).try_for_each(|parts| self.multiply(x, parts))
    }

    fn add_bias(&mut self, args: AddBias) -> Result<(), BackendError> {
        oracle::add_bias(&mut self.memory, args)
    }

    fn head_rms_norm(&mut self, args: HeadRmsNorm) -> Result<(), BackendError> {
        args.check()?;
        let weight = WeightValues::of(&self.memory.weights, "head_rms_norm", args.weight)?;
        let [x] = disjoint(self.memory.workspace.as_mut_slice(), "head_rms_norm", [args.x])?;
        let normalise = Normalise { weight, epsilon: args.epsilon, width: args.weight.columns };
        normalise.in_place(self.path, &mut self.pool, x)
    }

    fn rope(&mut self, args: Rope) -> Result<(), BackendError> {
        oracle::rope(&mut self.memory, args)
    }

    fn kv_write(&mut self, args: KvWrite<'_>) -> Result<(), BackendError> {
        args.check(&self.kv)?;
        let (pool, memory) = (&mut self.pool, &mut self.memory);
        match self.kv.dtype {
            KvDtype::F32 => attention::kv_write::<f32>(pool, memory, &self.kv, args),
            KvDtype::Bf16 => attention::kv_write::<bf16>(pool, memory, &self.kv, args),
            KvDtype::Fp8 => Err(BackendError::KvDtype("FP8")),
        }
    }

    fn attention(&mut self, args: Attention<'_>) -> Result<(), BackendError> {
        args.check(&self.kv)?;
        if args.options != AttentionOptions::default() {
            return Err(BackendError::AttentionOption("a window, sinks or a cap of scores"));
        }
        let (path, pool, memory) = (self.path, &mut self.pool, &mut self.memory);
        match self.kv.dtype {
            KvDtype::F32 => attention::attention::<f32>(path, pool, memory, &self.kv, args),
            KvDtype::Bf16 => attention::attention::<bf16>(path, pool, memory, &self.kv, args),
            KvDtype::Fp8 => Err(BackendError::KvDtype("FP8")),
        }
    }

    fn gate_multiply(&mut self, args: GateMultiply) -> Result<(), BackendError> {
        args.check()?;
        let [gate, up] =
            disjoint(self.memory.workspace.as_mut_slice(), "gate_multiply", [args.gate, args.up])?;
        rows::gate_multiply(self.path, &mut self.pool, args.function, gate, up)
    }
}
