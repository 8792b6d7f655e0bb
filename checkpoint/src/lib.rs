//! Reads a checkpoint's own words about itself: `config.json` and the headers of its weight files, as bytes.
//!
//! ```text
//! config.json ──► ModelConfig ──┐
//!                               ├─► Facts (small, goes into Model.status, enough for the footprint)
//! *.safetensors headers ──► TensorIndex ──► engine: which bytes of which file are which tensor
//! ```
//!
//! Pure: no files, no device. Its input is hostile by assumption: every count, offset and length is checked before it
//! is used, and an unknown value that would change the arithmetic is an error that names the key.

mod dtype;
mod facts;

pub use dtype::Dtype;
pub use facts::{Architecture, Facts, TENSOR_ALIGNMENT_BYTES};
