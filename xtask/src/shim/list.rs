//! What the tests of the kernels have to see. Whoever changes a kernel keeps its faults here up to date: at least two for
//! each file with logic.

mod attention;
mod attention_rows;
mod common;
mod kernels;
mod products;
mod sampling;

/// How the tests see a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    /// In the result, or since the kernel does not end as it should.
    AsResult,
    /// By the race detector: on the host the result is right, or right by chance.
    AsRace,
}

/// A fault to put into the kernels.
#[derive(Clone, Copy, Debug)]
pub struct Mutation {
    /// Below `kernels/cu`.
    pub file: &'static str,
    /// There once.
    pub text: &'static str,
    pub replacement: &'static str,
    pub what: &'static str,
    /// Part of the names of the cases that are run; of FP4, which has none, nothing.
    pub cases: &'static str,
    pub seen: Seen,
}

impl Mutation {
    /// The tests that have to see it.
    pub fn tests(&self) -> &'static str {
        match self.file {
            // No operation of the backend's is computed in FP4 yet.
            "linear_nvfp4.cu" | "common/fp4.cuh" => "nvfp4::",
            "sample.cu" | "logprobs.cu" | "common/select.cuh" | "common/sampling.cuh" => {
                "sampling::every_choice"
            }
            _ => "operations::",
        }
    }
}

pub fn all() -> Vec<Mutation> {
    [
        attention::MUTATIONS,
        attention_rows::MUTATIONS,
        common::MUTATIONS,
        kernels::MUTATIONS,
        products::MUTATIONS,
        sampling::MUTATIONS,
    ]
    .concat()
}
