//! GGUF: one file with hyperparameters, tokenizer and tensors, as llama.cpp writes it (versions 2 and 3).
//!
//! ```text
//! magic, version, counts │ metadata: key, type, value │ tensors: name, dimensions, type, offset │ padding │ data
//!        └──────────────── Header (strict) ────────────────┘                    └─► Shard, under transformers' names
//!                             ├─► config: Metadata ─► ModelConfig
//!                             └─► text: Metadata ─► tokenizer.json and its like in Hugging Face's form
//! ```
//!
//! The format's own description is `docs/gguf.md` of the ggml project. Everything is little-endian.

mod config;
mod cursor;
mod header;
mod metadata;
mod names;
mod read;
mod sentence_piece;
mod text;

pub use header::{GGUF_HEADER_BYTES_MAX, GgufError, Header};
pub use metadata::{List, Metadata, Value};
pub use text::{GgufText, GgufTextError};

use config::{ROPE_FACTORS, config};
pub use read::gguf_file_name;
pub(crate) use read::{only_file, read};
