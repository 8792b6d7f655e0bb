//! Names of kernels that come in several formats, as `FOR_EACH_FORMAT` of `formats.cuh` makes them.

use sparkherd_checkpoint::Dtype;

use crate::{DeviceError, DeviceMemory};

/// The kernel of a name for weights of a format, and of what else its name ends in.
macro_rules! kernel_of {
    ($name:literal, $dtype:expr) => {
        kernel_of!($name, $dtype, "")
    };
    ($name:literal, $dtype:expr, $end:literal) => {
        match $dtype {
            Dtype::F32 => concat!($name, "_f32", $end),
            Dtype::F16 => concat!($name, "_f16", $end),
            Dtype::Bf16 => concat!($name, "_bf16", $end),
            Dtype::Q8_0 => concat!($name, "_q8_0", $end),
            Dtype::Q4_0 => concat!($name, "_q4_0", $end),
            Dtype::Q4K => concat!($name, "_q4_k", $end),
            Dtype::Q6K => concat!($name, "_q6_k", $end),
        }
    };
}

/// The kernel of a name for a vector of weights, which no checkpoint has in blocks.
macro_rules! kernel_of_vector {
    ($name:literal, $dtype:expr) => {
        match $dtype {
            Dtype::F32 => Ok(concat!($name, "_f32")),
            Dtype::F16 => Ok(concat!($name, "_f16")),
            Dtype::Bf16 => Ok(concat!($name, "_bf16")),
            blocks => Err($crate::DeviceError::Format { kernel: $name, format: blocks.name() }),
        }
    };
}

pub(crate) use {kernel_of, kernel_of_vector};

/// Bytes of a row of so many values.
pub(crate) fn row_bytes(kernel: &'static str, dtype: Dtype, columns: u32) -> Result<u64, DeviceError> {
    dtype.row_bytes(u64::from(columns)).map_err(|_| DeviceError::Shape {
        kernel,
        what: "columns of a weight in blocks",
        got: columns as usize,
        wanted: "whole blocks",
    })
}

/// A vector of weights whose format a launch says, as no kernel is made for each of its own.
#[derive(Clone, Copy, Debug)]
pub struct Vector {
    pub values: DeviceMemory,
    /// F32, F16 or BF16.
    pub dtype: Dtype,
}

#[repr(C)]
pub(crate) struct VectorArguments {
    values: u64,
    format: u32,
    _end: u32,
}

impl VectorArguments {
    const NONE: Self = Self { values: 0, format: 0, _end: 0 };

    /// Of so many values.
    pub(crate) fn new(
        kernel: &'static str,
        operand: &'static str,
        vector: Option<Vector>,
        columns: u32,
    ) -> Result<Self, DeviceError> {
        let Some(Vector { values, dtype }) = vector else { return Ok(Self::NONE) };
        let format = match dtype {
            Dtype::F32 => 0,
            Dtype::F16 => 1,
            Dtype::Bf16 => 2,
            blocks => return Err(DeviceError::Format { kernel, format: blocks.name() }),
        };
        let bytes = row_bytes(kernel, dtype, columns)?;
        Ok(Self { values: values.holding(kernel, operand, 1, bytes)?, format, _end: 0 })
    }
}
