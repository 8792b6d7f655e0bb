//! Operations, models and loading: every backend against the oracle, the model against itself and against goldens.

mod checkpoint;
mod goldens;
mod independence;
mod llama;
mod loading;
mod operation_cases;
mod operations;
mod random;
mod session;
