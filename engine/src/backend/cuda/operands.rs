#![expect(unsafe_code, reason = "launches whose indices were checked by their callers")]
//! Tensors as places in device memory.

use sparkherd_kernels::{self as kernels, Device, DeviceMemory, Recording};

use crate::backend::{Activation, BackendError, Weight};

/// The arenas of a backend, on its device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) weights: DeviceMemory,
    pub(super) kv: DeviceMemory,
    pub(super) workspace: DeviceMemory,
}

/// A size as kernels take it.
pub(super) fn count(operation: &'static str, got: usize) -> Result<u32, BackendError> {
    let limit = u32::MAX as usize;
    u32::try_from(got).map_err(|_| BackendError::OutOfRange { operation, what: "a size", got, limit })
}

impl Memory {
    pub(super) fn weight(
        &self,
        operation: &'static str,
        weight: Weight,
    ) -> Result<DeviceMemory, BackendError> {
        let Weight { offset_bytes, dtype, rows, columns } = weight;
        let row_bytes =
            dtype.row_bytes(columns as u64).map_err(|source| BackendError::Row { operation, source })?;
        let arena_bytes = self.weights.bytes();
        let outside = BackendError::Weight { operation, rows, columns, offset_bytes, arena_bytes };
        let bytes = usize::try_from(row_bytes).ok().and_then(|bytes| bytes.checked_mul(rows));
        bytes.and_then(|bytes| self.weights.part(offset_bytes, bytes).ok()).ok_or(outside)
    }

    pub(super) fn activation(
        &self,
        operation: &'static str,
        activation: Activation,
    ) -> Result<DeviceMemory, BackendError> {
        let range = activation.range();
        let elements = self.workspace.bytes() / size_of::<f32>();
        let part = self.workspace.part(range.start * size_of::<f32>(), range.len() * size_of::<f32>());
        part.map_err(|_| BackendError::Overlap { operation, elements })
    }

    /// Two activations that have nothing in common.
    pub(super) fn disjoint(
        &self,
        operation: &'static str,
        activations: [Activation; 2],
    ) -> Result<[DeviceMemory; 2], BackendError> {
        let [first, second] = activations.map(Activation::range);
        if first.start < second.end && second.start < first.end {
            let elements = self.workspace.bytes() / size_of::<f32>();
            return Err(BackendError::Overlap { operation, elements });
        }
        Ok([self.activation(operation, activations[0])?, self.activation(operation, activations[1])?])
    }
}

/// Of an operation whose `check` has passed, as all of these.
pub(super) fn embed(device: &mut dyn Device, launch: kernels::Embed) -> Result<(), BackendError> {
    // SAFETY: `check` found every token below the table's rows, and they have been uploaded as they were checked.
    Ok(unsafe { launch.launch(device) }?)
}

pub(super) fn gather_rows(device: &mut dyn Device, launch: kernels::GatherRows) -> Result<(), BackendError> {
    // SAFETY: `check` found every row below those of `x`.
    Ok(unsafe { launch.launch(device) }?)
}

pub(super) fn kv_write(device: &mut dyn Device, launch: kernels::KvWrite) -> Result<(), BackendError> {
    // SAFETY: `check` found every slot within the pool; a step's rows are of other sequences or positions, so slots differ.
    Ok(unsafe { launch.launch(device) }?)
}

pub(super) fn attention_inputs(
    device: &mut dyn Device,
    launch: kernels::AttentionInputs,
) -> Result<(), BackendError> {
    // SAFETY: as in `kv_write`; the caller found queries apart from the other operands.
    Ok(unsafe { launch.launch(device) }?)
}

pub(super) fn attention(device: &mut dyn Device, launch: kernels::Attention) -> Result<(), BackendError> {
    // SAFETY: `check` found every block within the pool, and for every sequence as many as its last position needs.
    Ok(unsafe { launch.launch(device) }?)
}

pub(super) fn replay(device: &mut dyn Device, recording: Recording) -> Result<(), BackendError> {
    // SAFETY: every launch was checked when it was recorded, on operands that are still there. The numbers it reads now are those of
    // a step that `Step::fill` has checked, in lists of the same lengths at the same places.
    Ok(unsafe { device.replay(recording) }?)
}

pub(super) fn attention_rows(
    device: &mut dyn Device,
    launch: kernels::AttentionRows,
) -> Result<(), BackendError> {
    // SAFETY: as in `attention`; `check` found the sequences' rows one after the other, and the caller counted their tiles so.
    Ok(unsafe { launch.launch(device) }?)
}

/// Of words that `SampleWords` made for rows that a step's answer has.
pub(super) fn sample(device: &mut dyn Device, launch: kernels::Sample) -> Result<(), BackendError> {
    // SAFETY: the words were uploaded as they were made, and their rows are checked to be of the logits, each once.
    Ok(unsafe { launch.launch(device) }?)
}

pub(super) fn logprobs(device: &mut dyn Device, launch: kernels::Logprobs) -> Result<(), BackendError> {
    // SAFETY: as in `sample`, which was launched.
    Ok(unsafe { launch.launch(device) }?)
}
