use std::fmt;

use serde::Serialize;
use sparkherd_checkpoint::Checkpoint;
use sparkherd_footprint::{kv_bytes_per_token, kv_dtype_auto};

use super::cases::{Case, Timing};

/// What a model's steps take, by its facts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// Weights that every step reads: all but the rows of the embedding that it does not look up.
    step_weight_bytes: f64,
    /// Keys and values of one token.
    kv_token_bytes: f64,
    /// Multiply-adds of one token in the layers' matrices. The head is left out: a prompt needs it once.
    layer_products: f64,
}

impl Work {
    pub(super) fn new(checkpoint: &Checkpoint) -> Self {
        let facts = &checkpoint.inspection.facts;
        let (hidden, head_dim) = (f64::from(facts.hidden_size), f64::from(facts.head_dim));
        let query = f64::from(facts.attention_heads) * head_dim;
        let kv = f64::from(facts.kv_heads) * head_dim;
        let layer = hidden * (2.0 * query + 2.0 * kv + 3.0 * f64::from(facts.intermediate_size));
        // Without a head of its own the embedding is the head, and every step reads it.
        let is_tied = checkpoint.index.get("lm_head.weight").is_none();
        let embedding = checkpoint.index.get("model.embed_tokens.weight").filter(|_| !is_tied);
        let embedding_bytes = embedding.map_or(0, |tensor| tensor.bytes);
        let kv_token_bytes = kv_bytes_per_token(facts, kv_dtype_auto(facts.dtype)).unwrap_or(0);
        Self {
            step_weight_bytes: facts.weight_bytes.saturating_sub(embedding_bytes) as f64,
            kv_token_bytes: kv_token_bytes as f64,
            layer_products: f64::from(facts.layers) * layer,
        }
    }

    pub(super) fn measured(self, timing: &Timing) -> Measured {
        let Timing { case, seconds } = *timing;
        let tokens_per_second = f64::from(case.tokens()) / seconds;
        match case {
            Case::Prefill { tokens } => Measured::Prefill {
                tokens,
                seconds,
                tokens_per_second,
                gflop_per_second: 2.0 * self.layer_products * tokens_per_second / 1e9,
            },
            Case::Decode { depth, sequences, steps } => {
                let middle = f64::from(depth) + f64::from(steps) / 2.0;
                let step_bytes = self.step_weight_bytes + f64::from(sequences) * middle * self.kv_token_bytes;
                Measured::Decode {
                    depth,
                    sequences,
                    tokens: case.tokens(),
                    seconds,
                    tokens_per_second,
                    step_bytes,
                    gb_per_second: gb_per_second(step_bytes * f64::from(steps), seconds),
                }
            }
        }
    }
}

pub(super) fn gb_per_second(bytes: f64, seconds: f64) -> f64 {
    bytes / seconds / 1e9
}

/// Medians of one command.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    pub(super) computer: Computer,
    /// Of memory that no cache holds, by what computed.
    pub(super) read_gb_per_second: f64,
    pub(super) cases: Vec<Measured>,
}

/// What computed.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Computer {
    Cpu {
        /// The instructions.
        cpu_path: &'static str,
        threads: u32,
    },
    Gpu {
        gpu: String,
        /// Of BF16 matrices in registers.
        bf16_gflop_per_second: f64,
    },
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "case", rename_all = "lowercase")]
pub(super) enum Measured {
    Prefill {
        tokens: u32,
        seconds: f64,
        tokens_per_second: f64,
        gflop_per_second: f64,
    },
    Decode {
        depth: u32,
        sequences: u32,
        tokens: u32,
        seconds: f64,
        tokens_per_second: f64,
        /// Weights, and the keys and values at the middle of the run.
        step_bytes: f64,
        gb_per_second: f64,
    },
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { computer, read_gb_per_second, cases } = self;
        match computer {
            Computer::Cpu { cpu_path, threads } => write!(out, "cpu path {cpu_path}, {threads} threads")?,
            Computer::Gpu { gpu, bf16_gflop_per_second } => {
                write!(out, "{gpu}, BF16 at {:.1} TFLOP/s", bf16_gflop_per_second / 1e3)?;
            }
        }
        writeln!(out, ", memory read at {read_gb_per_second:.1} GB/s")?;
        cases.iter().try_for_each(|case| self.write_case(out, case))
    }
}

impl Report {
    fn write_case(&self, out: &mut fmt::Formatter<'_>, case: &Measured) -> fmt::Result {
        match case {
            Measured::Prefill { tokens, seconds: _, tokens_per_second, gflop_per_second } => {
                write!(
                    out,
                    "prefill {tokens:>5}              {tokens_per_second:>8.1} tok/s  {gflop_per_second:>7.1} GFLOP/s"
                )?;
                if let Computer::Gpu { gpu: _, bf16_gflop_per_second } = &self.computer {
                    write!(
                        out,
                        ", {:.0} % of the BF16 peak",
                        100.0 * gflop_per_second / bf16_gflop_per_second
                    )?;
                }
                writeln!(out)
            }
            Measured::Decode {
                depth,
                sequences,
                tokens: _,
                seconds: _,
                tokens_per_second,
                step_bytes,
                gb_per_second,
            } => writeln!(
                out,
                "decode at {depth:>5}, {sequences:>2} at once {tokens_per_second:>8.1} tok/s  {:>7.1} MB a step, \
                 {gb_per_second:.1} GB/s, {:.0} % of the bandwidth",
                step_bytes / 1e6,
                100.0 * gb_per_second / self.read_gb_per_second
            ),
        }
    }
}
