use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;

use crate::claim;
use crate::header::{RowOrder, Shard, Tensor};
use crate::json::{JsonError, UniqueMap, shown_name};

/// Most shards that are opened; the largest published checkpoints have about 200.
const SHARDS_MAX: usize = 1024;

/// Longest file name that common file systems store.
const FILE_NAME_BYTES_MAX: usize = 255;

/// Why an index is refused, or disagrees with its shards.
#[derive(Debug, Error)]
pub enum IndexError {
    #[error("not valid JSON: {0}")]
    Json(#[from] JsonError),
    #[error("{file} is not a plain .safetensors file name")]
    FileName { file: String },
    #[error("{shards} shards, allowed are 1 to {SHARDS_MAX}")]
    Shards { shards: usize },
    #[error("tensor {tensor} is in {file}, where the index does not place it")]
    NotPlaced { tensor: String, file: String },
    #[error("tensor {tensor} is placed in {file}, which does not have it")]
    NotFound { tensor: String, file: String },
    #[error("tensor {tensor} occurs in more than one file")]
    Duplicate { tensor: String },
}

/// `model.safetensors.index.json`: which file has which tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMap {
    weight_map: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexFile {
    weight_map: UniqueMap<String>,
    /// Its `total_size` is wrong in many published files (tied weights counted or not), so nothing is taken from it.
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
}

impl ShardMap {
    /// Reads the bytes of `model.safetensors.index.json`. Its file names are plain names: nothing outside the directory.
    pub fn parse(index_json: &[u8]) -> Result<Self, IndexError> {
        let IndexFile { weight_map: UniqueMap(weight_map), .. } =
            serde_json::from_slice(index_json).map_err(JsonError::from)?;
        let map = Self { weight_map };
        let files = map.files();
        if files.is_empty() || files.len() > SHARDS_MAX {
            return Err(IndexError::Shards { shards: files.len() });
        }
        match files.iter().find(|file| !is_plain_weight_file(file)) {
            Some(file) => Err(IndexError::FileName { file: shown_name(file) }),
            None => Ok(map),
        }
    }

    /// The shards' file names, ascending.
    pub fn files(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }
}

fn is_plain_weight_file(name: &str) -> bool {
    name.len() <= FILE_NAME_BYTES_MAX
        && name.len() > ".safetensors".len()
        && name.ends_with(".safetensors")
        && name.chars().all(|letter| letter.is_ascii_graphic() && letter != '/' && letter != '\\')
}

/// Every tensor of a checkpoint, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TensorIndex {
    tensors: BTreeMap<String, Tensor>,
}

impl TensorIndex {
    /// Joins the shards' headers. With a map, headers and map must say exactly the same.
    pub fn new(shards: Vec<Shard>, map: Option<&ShardMap>) -> Result<Self, IndexError> {
        let mut tensors = BTreeMap::new();
        for shard in shards {
            for (name, tensor) in shard.tensors {
                let placed = map.is_none_or(|map| {
                    map.weight_map.get(&name).is_some_and(|file| file.as_str() == &*shard.file)
                });
                if !placed {
                    let file = shard.file.to_string();
                    return Err(IndexError::NotPlaced { tensor: shown_name(&name), file });
                }
                if tensors.contains_key(&name) {
                    return Err(IndexError::Duplicate { tensor: shown_name(&name) });
                }
                tensors.insert(name, tensor);
            }
        }
        let placed = map.iter().flat_map(|map| &map.weight_map);
        for (name, file) in placed {
            if !tensors.contains_key(name) {
                return Err(IndexError::NotFound { tensor: shown_name(name), file: file.clone() });
            }
        }
        Ok(Self { tensors })
    }

    /// A checkpoint saved from the bare decoder (most embedding models) leaves out the `model.` that a `…ForCausalLM` puts
    /// before its names, and has no output head. With it put there, and whether it was missing.
    #[must_use]
    pub(crate) fn with_decoder_prefix(self) -> (Self, bool) {
        let (prefix, bare) = claim::EMBEDDING.split_at("model.".len());
        if !self.tensors.contains_key(bare) || self.tensors.contains_key(claim::EMBEDDING) {
            return (self, false);
        }
        let named = self.tensors.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor));
        (Self { tensors: named.collect() }, true)
    }

    /// Sets the order of the rows of all query and key projections.
    pub(crate) fn order_rows(&mut self, order: RowOrder) {
        for (name, tensor) in &mut self.tensors {
            if name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight") {
                tensor.row_order = order;
            }
        }
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<Tensor> {
        self.tensors.remove(name)
    }

    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Names and tensors, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }
}
