//! Reads a checkpoint's own words about itself: `config.json` and the headers of its weight files, or the header of a
//! GGUF, as bytes.
//!
//! ```text
//! config.json ──► ModelConfig ──┐
//!                               ├─► claim: every tensor exactly once ─► Facts (small, goes into Model.status, enough
//! *.safetensors headers ──► TensorIndex                                 for the footprint)
//!                               └─► engine: which bytes of which file are which tensor
//! ```
//!
//! Pure: no files, no device; [`Checkpoint::read`] does all of the above over a directory given as [`Files`]. Its input is
//! hostile by assumption: every count, offset and length is checked before it is used, and an unknown value that would
//! change the arithmetic is an error that names the key.

mod architecture;
mod claim;
mod config;
mod dtype;
mod facts;
mod generation;
mod gguf;
mod header;
mod index;
mod inspection;
mod json;
mod keys;
mod known_keys;
mod read;
mod requantize;
mod rope;
mod window;

pub use architecture::Architecture;
pub use claim::{ClaimError, ClaimedTensor, ExpectedTensor, expected_tensors};
pub use config::{ConfigError, ModelConfig, OutputHead};
pub use dtype::{Dtype, RowError};
pub use facts::{Facts, TENSOR_ALIGNMENT_BYTES};
pub use generation::GenerationConfig;
pub use gguf::{
    GGUF_HEADER_BYTES_MAX, GgufError, GgufText, GgufTextError, Header as GgufHeader, List as GgufList,
    Metadata as GgufMetadata, Value as GgufValue, gguf_file_name,
};
pub use header::{HEADER_BYTES_MAX, HEADER_LENGTH_BYTES, HeaderError, RowOrder, Shard, Tensor, header_bytes};
pub use index::{IndexError, ShardMap, TensorIndex};
pub use inspection::{
    CheckpointFile, DIGEST_CONTENT_BYTES_MAX, DIGEST_PREFIX_BYTES, HashedFile, Inspection, InspectionOutcome,
    Refusal, RefusalReason, digest,
};
pub use json::JsonError;
pub use read::{Checkpoint, CheckpointError, Files, TOKENIZER_BYTES_MAX};
pub use requantize::Requantize;
pub use rope::{Rope, RopeScaling};
