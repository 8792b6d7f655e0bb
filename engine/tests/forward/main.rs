//! Operations, models and loading: every backend against the oracle, the model against itself and against goldens.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(clippy::cast_possible_truncation, reason = "the sizes of these cases are small")]

mod checkpoint;
mod demo_model;
mod goldens;
mod independence;
mod llama;
mod loading;
mod metamorphic;
mod operations;
mod rows;
mod session;
