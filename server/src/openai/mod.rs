//! OpenAI's HTTP API: one typed file per endpoint over one shared path.
//!
//! ```text
//! Visit ─► Fields ─► chat | completions ─► Ask ─► places ─► tokens ─► Generations ─► Run ─► Answer (whole | stream) ─► bytes
//! ```
//!
//! A known parameter is honoured or refused with a 400 that names it ([`parameters`]); an unknown one is listed in the
//! response header `x-sparkherd-ignored`. Prompts and answers appear in no error and no log (I15).

mod answer;
mod ask;
mod chat;
mod completions;
#[cfg(test)]
mod document_tests;
mod embeddings;
mod error;
mod fields;
mod generate;
mod ignored;
mod logprobs;
mod models;
mod parameters;
mod prepare;
mod run;
mod stream;
mod tokens;
mod told;
mod visit;
mod wire;

pub use error::{ApiError, PromptSize};

pub(crate) use chat::Chat;
pub(crate) use completions::Completions;
pub(crate) use embeddings::VECTOR_BYTES_MAX;
pub(crate) use embeddings::embed;
pub(crate) use generate::generate;
pub(crate) use models::{list, show};
pub(crate) use parameters::CallerWishes;
pub(crate) use tokens::{detokenize, tokenize};
pub(crate) use told::TOLD_MAX;
pub(crate) use visit::Incoming;
