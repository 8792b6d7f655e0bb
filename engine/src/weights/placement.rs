use std::{collections::BTreeMap, sync::Arc};

use sparkherd_checkpoint::{
    ClaimError, Dtype, ModelConfig, Requantize, RowOrder, TENSOR_ALIGNMENT_BYTES, TensorIndex,
};
use thiserror::Error;

use crate::backend::Weight;

#[derive(Debug, Error)]
pub enum PlacementError {
    #[error("tensors do not match the configuration: {0}")]
    Claim(#[from] ClaimError),
    #[error("tensor {tensor} of shape {shape:?} is neither a vector nor a matrix")]
    Dimensions { tensor: String, shape: Vec<u64> },
    #[error("tensor {tensor} of {bytes} bytes does not fit this machine's address space")]
    TooLarge { tensor: String, bytes: u64 },
    #[error("model needs tensor {tensor}, which was not claimed")]
    NotClaimed { tensor: String },
    #[error("{count} claimed tensors are not used by the model, the first is {tensor}")]
    NotUsed { count: usize, tensor: String },
}

/// A tensor, where it is and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedTensor {
    pub name: String,
    pub file: Arc<str>,
    pub file_offset_bytes: u64,
    /// In the file.
    pub file_bytes: usize,
    /// How the file has its elements; another type than the weight's is converted while it is read.
    pub stored: Dtype,
    /// In which order the file has the rows.
    pub row_order: RowOrder,
    /// In the arena.
    pub bytes: usize,
    pub weight: Weight,
}

/// All tensors one after the other in the arena, each at a multiple of [`TENSOR_ALIGNMENT_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub tensors: Vec<PlacedTensor>,
    /// Size of the arena, the last tensor's padding included.
    pub arena_bytes: u64,
}

impl Placement {
    /// Claims every tensor of the configuration, in the order a forward pass meets them.
    pub fn new(
        index: &TensorIndex,
        config: &ModelConfig,
        requantize: Requantize,
    ) -> Result<Self, PlacementError> {
        let mut arena_bytes = 0_u64;
        let mut tensors = Vec::new();
        for claimed in index.claim(config)? {
            let (dtype, arena_tensor_bytes) =
                (requantize.dtype(config, &claimed), requantize.bytes(config, &claimed));
            let (name, tensor) = (claimed.name, claimed.tensor);
            let (rows, columns) = match *tensor.shape.as_slice() {
                [columns] => (1, columns),
                [rows, columns] => (rows, columns),
                _ => return Err(PlacementError::Dimensions { tensor: name, shape: tensor.shape.clone() }),
            };
            let size = |value: u64| {
                usize::try_from(value)
                    .map_err(|_| PlacementError::TooLarge { tensor: name.clone(), bytes: tensor.bytes })
            };
            let weight = Weight {
                offset_bytes: size(arena_bytes)?,
                dtype,
                rows: size(rows)?,
                columns: size(columns)?,
            };
            let (file_bytes, bytes) = (size(tensor.bytes)?, size(arena_tensor_bytes)?);
            arena_bytes += arena_tensor_bytes.next_multiple_of(TENSOR_ALIGNMENT_BYTES);
            size(arena_bytes)?;
            tensors.push(PlacedTensor {
                name,
                file: Arc::clone(&tensor.file),
                file_offset_bytes: tensor.offset_bytes,
                file_bytes,
                stored: tensor.dtype,
                row_order: tensor.row_order,
                bytes,
                weight,
            });
        }
        Ok(Self { tensors, arena_bytes })
    }

    /// Bytes to read: the tensors without their padding.
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.file_bytes as u64).sum()
    }

    /// The tensors by name, for the model to take.
    pub fn weights(&self) -> UnclaimedWeights {
        UnclaimedWeights {
            by_name: self.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.weight)).collect(),
        }
    }
}

/// Weights that the model has not taken yet: each is taken once, and none may be left.
#[derive(Clone, Debug)]
pub struct UnclaimedWeights {
    by_name: BTreeMap<String, Weight>,
}

impl UnclaimedWeights {
    pub fn take(&mut self, name: &str) -> Result<Weight, PlacementError> {
        self.by_name.remove(name).ok_or_else(|| PlacementError::NotClaimed { tensor: name.to_owned() })
    }

    pub fn finish(self) -> Result<(), PlacementError> {
        let count = self.by_name.len();
        match self.by_name.into_keys().next() {
            Some(tensor) => Err(PlacementError::NotUsed { count, tensor }),
            None => Ok(()),
        }
    }
}
