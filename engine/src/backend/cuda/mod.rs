//! Launches of CUDA kernels, on any device that runs them.
//!
//! ```text
//! operation ─ shapes, places ─► operands in device memory ─► launcher of sparkherd-kernels ─► Device: a GPU, or the host shim
//!             numbers ─ once a step ─► their buffer
//! ```
//!
//! Everything is allocated when the backend is made. What a step is told in numbers (tokens, slots, block tables) lies in a buffer
//! of its own, sent when the step begins. A step with one token of each sequence always launches the same on the same addresses, so
//! it is recorded once for each number of sequences and launched whole.

mod attention;
mod choice_test;
mod fused;
mod limits;
mod numbers;
mod operands;
mod read;
mod sample;
mod self_test;

use std::ops::Range;

use sparkherd_footprint::KvDtype;
use sparkherd_kernels as kernels;
use sparkherd_kernels::{Device, DeviceMemory, HostBuffer, Recording};

use super::{
    Activation, Add, AddBias, AddRmsNorm, Answer, Attention, AttentionInputs, Backend, BackendError, Embed,
    GateMultiply, Gated, GatherRows, HeadRmsNorm, KvShape, KvWrite, Linear, RmsNorm, Rope, StepNumbers,
    Weight, arena::Arena, unfused,
};
use crate::weights::WeightSink;
pub use attention::AttentionLimits;
use attention::{list_first_blocks, list_positions};
pub use limits::CudaLimits;
use numbers::{List, Numbers};
use operands::{Memory, count};
use read::read_to;
use sample::Sampling;
pub use sample::SamplingLimits;
pub use self_test::{Heads, SelfTestError, SharedRows, compare_with_oracle, of_memory, self_test};

#[derive(Debug)]
pub struct Cuda<D> {
    device: D,
    memory: Memory,
    kv: KvShape,
    numbers: Numbers,
    attention: Option<(AttentionLimits, DeviceMemory)>,
    sampling: Option<Sampling>,
    /// Of steps with one token of each sequence: the first has one.
    recordings: Vec<Recording>,
    recorded_rows: usize,
    /// What attention is told of each row, on its way.
    of_rows: Vec<u32>,
    /// Values on their way to and from the device.
    transfer: Arena,
}

impl<D: Device> Cuda<D> {
    /// Allocates everything; weights are still to come.
    pub fn new(mut device: D, kv: KvShape, limits: CudaLimits) -> Result<Self, BackendError> {
        let CudaLimits {
            weights_bytes,
            workspace_bytes,
            numbers_bytes,
            transfer_elements,
            recorded_rows,
            attention,
            sampling,
        } = limits;
        let memory = Memory {
            weights: device.allocate(weights_bytes)?,
            kv: device.allocate(kv.bytes())?,
            workspace: device.allocate(workspace_bytes)?,
        };
        let attention = attention.map(|attention| {
            let partial = device.allocate(attention.partial_elements * size_of::<f32>())?;
            Ok::<_, BackendError>((attention, partial))
        });
        let transfer_elements = transfer_elements.max(sampling.map_or(0, SamplingLimits::transfer_words));
        Ok(Self {
            numbers: Numbers::new(&mut device, numbers_bytes)?,
            attention: attention.transpose()?,
            sampling: sampling.map(|limits| Sampling::new(&mut device, limits)).transpose()?,
            recordings: Vec::with_capacity(recorded_rows),
            recorded_rows,
            of_rows: Vec::new(),
            transfer: numbers::staging(transfer_elements * size_of::<f32>())?,
            device,
            memory,
            kv,
        })
    }

    /// Puts bytes of weights into their place.
    pub fn write_weights(&mut self, offset_bytes: usize, bytes: &[u8]) -> Result<(), BackendError> {
        let to = self.memory.weights.part(offset_bytes, bytes.len())?;
        Ok(self.device.write(to, bytes)?)
    }

    /// Waits for everything so far; a fault that no launch has told is told here.
    pub fn wait(&mut self) -> Result<(), BackendError> {
        let mut byte = [0; 1];
        Ok(self.device.read(self.memory.workspace.part(0, 1)?, &mut byte)?)
    }

    fn layer(&self, layer: usize) -> Result<kernels::KvLayer, BackendError> {
        let KvShape { layers, blocks, kv_heads, head_dim, dtype } = self.kv;
        let dtype = match dtype {
            KvDtype::F32 => kernels::KvDtype::F32,
            KvDtype::Bf16 => kernels::KvDtype::Bf16,
            KvDtype::Fp8 => kernels::KvDtype::Fp8,
        };
        let bytes = self.memory.kv.bytes() / layers.max(1);
        Ok(kernels::KvLayer {
            elements: self.memory.kv.part(layer * bytes, bytes)?,
            dtype,
            blocks: count("kv", blocks)?,
            kv_heads: count("kv", kv_heads)?,
            head_dim: count("kv", head_dim)?,
        })
    }
}

impl<D: Device> WeightSink for Cuda<D> {
    fn buffers(&mut self, count: usize, bytes: usize) -> Result<Vec<HostBuffer>, BackendError> {
        Ok(self.device.host_buffers(count, bytes)?)
    }

    fn send(
        &mut self,
        place: usize,
        buffer: HostBuffer,
        bytes: Range<usize>,
    ) -> Result<Option<HostBuffer>, BackendError> {
        let to = self.memory.weights.part(place, bytes.len())?;
        Ok(self.device.write_buffer(to, buffer, bytes)?)
    }

    fn finish(&mut self) -> Result<(), BackendError> {
        Ok(self.device.free_buffers()?)
    }
}

impl<D: Device> Backend for Cuda<D> {
    fn prepare(&mut self, _weights: &[Weight]) -> Result<(), BackendError> {
        Ok(())
    }

    fn begin_step(&mut self, numbers: StepNumbers<'_>) -> Result<(), BackendError> {
        let StepNumbers { tokens, slots, sequences, block_tables, logit_rows } = numbers;
        self.numbers.forget();
        for (list, values) in [(List::Tokens, tokens), (List::Slots, slots), (List::Rows, logit_rows)] {
            self.numbers.tell(list, values)?;
        }
        self.numbers.tell(List::Positions, list_positions(&mut self.of_rows, sequences)?)?;
        self.numbers.tell(List::FirstBlocks, list_first_blocks(&mut self.of_rows, sequences)?)?;
        // The only one whose length changes among steps of as many rows: what was recorded finds the others where they were.
        self.numbers.tell(List::BlockTables, block_tables)?;
        self.numbers.send(&mut self.device)
    }

    fn recorded_rows_max(&self) -> usize {
        self.recorded_rows
    }

    fn begin_recording(&mut self, rows: usize) -> Result<(), BackendError> {
        let (got, limit) = (rows, self.recordings.len() + 1);
        if got != limit || got > self.recorded_rows {
            return Err(BackendError::OutOfRange { operation: "record", what: "rows", got, limit });
        }
        Ok(self.device.begin_recording()?)
    }

    fn end_recording(&mut self) -> Result<(), BackendError> {
        self.recordings.push(self.device.end_recording()?);
        Ok(())
    }

    fn replay(&mut self, rows: usize) -> Result<bool, BackendError> {
        let Some(recording) = rows.checked_sub(1).and_then(|index| self.recordings.get(index)) else {
            return Ok(false);
        };
        operands::replay(&mut self.device, *recording)?;
        Ok(true)
    }

    fn write(&mut self, to: Activation, values: &[f32]) -> Result<(), BackendError> {
        let memory = self.memory.activation("write", to)?;
        if values.len() != to.rows * to.columns {
            let (got, wanted) = (values.len(), to.rows * to.columns);
            return Err(BackendError::Shape { operation: "write", what: "values", got, wanted });
        }
        let places = self.transfer.as_mut_slice::<f32>();
        let (got, limit) = (values.len(), places.len());
        let places = places.get_mut(..got).ok_or(BackendError::OutOfRange {
            operation: "write",
            what: "values",
            got,
            limit,
        })?;
        places.copy_from_slice(values);
        Ok(self.device.write(memory, &self.transfer.as_slice::<u8>()[..size_of_val(values)])?)
    }

    fn read_pair(&mut self, from: [Activation; 2]) -> Result<[&[f32]; 2], BackendError> {
        let mut ends = [0; 2];
        for (index, activation) in from.into_iter().enumerate() {
            let memory = self.memory.activation("read", activation)?;
            ends[index] = read_to(&mut self.device, memory, &mut self.transfer, ends[0])?;
        }
        let (first, second) = self.transfer.as_slice::<f32>()[..ends[1]].split_at(ends[0]);
        Ok([first, second])
    }

    fn answer(&mut self, args: Answer<'_>) -> Result<[&[f32]; 2], BackendError> {
        self.choose_and_read(args)
    }

    fn embed(&mut self, args: Embed<'_>) -> Result<(), BackendError> {
        args.check()?;
        let launch = kernels::Embed {
            tokens: self.numbers.place(&mut self.device, List::Tokens, args.tokens)?,
            table: self.memory.weight("embed", args.table)?,
            dtype: args.table.dtype,
            out: self.memory.activation("embed", args.out)?,
            rows: count("embed", args.out.rows)?,
            vocabulary: count("embed", args.table.rows)?,
            width: count("embed", args.table.columns)?,
        };
        operands::embed(&mut self.device, launch)
    }

    fn gather_rows(&mut self, args: GatherRows<'_>) -> Result<(), BackendError> {
        args.check()?;
        let [x, out] = self.memory.disjoint("gather_rows", [args.x, args.out])?;
        let launch = kernels::GatherRows {
            x,
            rows: self.numbers.place(&mut self.device, List::Rows, args.rows)?,
            out,
            x_rows: count("gather_rows", args.x.rows)?,
            out_rows: count("gather_rows", args.out.rows)?,
            width: count("gather_rows", args.x.columns)?,
        };
        operands::gather_rows(&mut self.device, launch)
    }

    fn rms_norm(&mut self, args: RmsNorm) -> Result<(), BackendError> {
        args.check()?;
        let [x, out] = self.memory.disjoint("rms_norm", [args.x, args.out])?;
        let launch = kernels::RmsNorm {
            x,
            weight: self.memory.weight("rms_norm", args.weight)?,
            dtype: args.weight.dtype,
            out,
            rows: count("rms_norm", args.x.rows)?,
            width: count("rms_norm", args.x.columns)?,
            epsilon: args.epsilon,
        };
        Ok(launch.launch(&mut self.device)?)
    }

    fn add_rms_norm(&mut self, args: AddRmsNorm) -> Result<(), BackendError> {
        args.check()?;
        let [residual, x] = self.memory.disjoint("add_rms_norm", [args.residual, args.x])?;
        let launch = kernels::AddRmsNorm {
            residual,
            x,
            weight: self.memory.weight("add_rms_norm", args.weight)?,
            dtype: args.weight.dtype,
            rows: count("add_rms_norm", args.x.rows)?,
            width: count("add_rms_norm", args.x.columns)?,
            epsilon: args.epsilon,
        };
        Ok(launch.launch(&mut self.device)?)
    }

    fn add(&mut self, args: Add) -> Result<(), BackendError> {
        args.check()?;
        let [x, delta] = self.memory.disjoint("add", [args.x, args.delta])?;
        let count = (args.x.rows * args.x.columns) as u64;
        Ok(kernels::Add { x, delta, count }.launch(&mut self.device)?)
    }

    fn linear(&mut self, args: Linear) -> Result<(), BackendError> {
        args.check()?;
        let [x, out] = self.memory.disjoint("linear", [args.x, args.out])?;
        let Linear {
            x: Activation { rows, columns: inputs, .. },
            weight,
            out: Activation { columns: outputs, .. },
        } = args;
        let matrix = self.memory.weight("linear", weight)?;
        let dtype = weight.dtype;
        let (rows, inputs, outputs) =
            (count("linear", rows)?, count("linear", inputs)?, count("linear", outputs)?);
        if rows > kernels::LINEAR_ROWS_MAX {
            let launch = kernels::LinearRows { x, weight: matrix, dtype, out, rows, inputs, outputs };
            return Ok(launch.launch(&mut self.device)?);
        }
        let launch = kernels::Linear { x, weight: matrix, dtype, out, rows, inputs, outputs };
        Ok(launch.launch(&mut self.device)?)
    }

    fn add_bias(&mut self, args: AddBias) -> Result<(), BackendError> {
        args.check()?;
        let launch = kernels::AddBias {
            x: self.memory.activation("add_bias", args.x)?,
            bias: self.memory.weight("add_bias", args.bias)?,
            dtype: args.bias.dtype,
            rows: count("add_bias", args.x.rows)?,
            width: count("add_bias", args.x.columns)?,
        };
        Ok(launch.launch(&mut self.device)?)
    }

    fn head_rms_norm(&mut self, args: HeadRmsNorm) -> Result<(), BackendError> {
        args.check()?;
        let heads = args.x.rows * (args.x.columns / args.weight.columns.max(1));
        let launch = kernels::HeadRmsNorm {
            x: self.memory.activation("head_rms_norm", args.x)?,
            weight: self.memory.weight("head_rms_norm", args.weight)?,
            dtype: args.weight.dtype,
            heads: count("head_rms_norm", heads)?,
            head_dim: count("head_rms_norm", args.weight.columns)?,
            epsilon: args.epsilon,
        };
        Ok(launch.launch(&mut self.device)?)
    }

    fn rope(&mut self, args: Rope) -> Result<(), BackendError> {
        args.check()?;
        let [x, rotations] = self.memory.disjoint("rope", [args.x, args.rotations])?;
        let head_dim = args.rotations.columns;
        let launch = kernels::Rope {
            x,
            rotations,
            rows: count("rope", args.x.rows)?,
            heads: count("rope", args.x.columns / head_dim.max(1))?,
            head_dim: count("rope", head_dim)?,
        };
        Ok(launch.launch(&mut self.device)?)
    }

    fn kv_write(&mut self, args: KvWrite<'_>) -> Result<(), BackendError> {
        args.check(&self.kv)?;
        let launch = kernels::KvWrite {
            pool: self.layer(args.layer)?,
            keys: self.memory.activation("kv_write", args.keys)?,
            values: self.memory.activation("kv_write", args.values)?,
            slots: self.numbers.place(&mut self.device, List::Slots, args.slots)?,
            rows: count("kv_write", args.keys.rows)?,
        };
        operands::kv_write(&mut self.device, launch)
    }

    fn attention(&mut self, args: Attention<'_>) -> Result<(), BackendError> {
        self.launch_attention(args)
    }

    fn gate_multiply(&mut self, args: GateMultiply) -> Result<(), BackendError> {
        args.check()?;
        let [gate, up] = self.memory.disjoint("gate_multiply", [args.gate, args.up])?;
        let count = (args.gate.rows * args.gate.columns) as u64;
        Ok(kernels::GateMultiply { gate, up, count, function: args.function }.launch(&mut self.device)?)
    }

    fn attention_inputs(&mut self, args: &AttentionInputs<'_>) -> Result<(), BackendError> {
        self.launch_attention_inputs(args)
    }

    fn gated(&mut self, args: Gated) -> Result<(), BackendError> {
        if fused::has_launch(&args) { self.launch_gated(args) } else { unfused::gated(self, args) }
    }
}
