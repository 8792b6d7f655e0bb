//! OpenAI's HTTP API: one typed file per endpoint over one shared path.
//!
//! ```text
//! body ─► Fields ─► chat | completions ─► Ask ─► tokens ─► ChatEngine::submit ─► Generation ─► whole | stream ─► Wire shapes
//! ```
//!
//! A known parameter is honoured or refused with a 400 that names it ([`parameters`]); an unknown one is listed in the
//! response header `x-sparkherd-ignored`. Prompts and answers appear in no error and no log (I15).

mod ask;
mod chat;
mod completions;
mod error;
mod fields;
mod generate;
mod messages;
mod models;
mod parameters;
mod stream;
mod wire;

pub use error::{ApiError, PromptSize};

pub(crate) use chat::Chat;
pub(crate) use completions::Completions;
pub(crate) use generate::generate;
pub(crate) use models::{list, show};
