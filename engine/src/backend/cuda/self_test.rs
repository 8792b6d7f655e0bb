//! Kernels against the oracle, on the device that is about to serve: machine code that compiled to nothing, or for another chip,
//! is found before a model is loaded.

use sparkherd_footprint::KvDtype;
use sparkherd_kernels::{ATTENTION_ROWS_MIN, Device, LINEAR_ROWS_MAX};
use thiserror::Error;

use super::{AttentionLimits, Cuda, CudaLimits, choice_test};
use crate::backend::{
    BackendError, HostMemory, KvShape,
    cases::{Case, CaseError, of_model},
    oracle::Oracle,
};

/// Kernels round nothing but sums, in another order than the oracle. The worst are rows of whole numbers up to 127 whose 256
/// products cancel down to about 1: their sums go through hundreds, which f32 has to 3e-5.
const BOUND: f32 = 3e-5;
/// Products of many rows round rows and weights to BF16, by up to 1/512 each: of 16 products of up to 1, the fewest of these cases,
/// the errors add up to 0.003, where the sums are about 1. Of more products the sums grow as the errors do.
const BOUND_MANY_ROWS: f32 = 6e-3;
/// Attention of many rows rounds queries, keys, values and exponentials to BF16, by up to 1/512 each. A value that a row takes
/// whole is wrong by as much; others are averages, of weights that are wrong by as much. The worst of these cases has 2.1e-3 on the
/// host.
const BOUND_ATTENTION_ROWS: f32 = 4e-3;
/// A key that is rounded to the next number of BF16 is wrong by 1/256 of itself, in one of a head's products; one of FP8, by 1/8.
const BOUND_STORED_BF16: f32 = 2e-3;
const BOUND_STORED_FP8: f32 = 3e-2;
/// Of a model's own shapes, the bounds may be left by so much: those of the list were looked at one by one, a model's were not, and
/// a GPU must not be refused for chance. A kernel that does nothing, or something else, is wrong by about 1.
const SLACK: f32 = 4.0;

/// The shortest sequence of the model's cases whose rows are few has 75 positions: five blocks share them.
const SHARED_RUN_MIN: u32 = 16;
/// Blocks that share a row's positions.
const SPLITS: u32 = 5;
/// More than any case has.
const ROWS_MAX: usize = 256;

#[derive(Debug, Error)]
pub enum SelfTestError {
    #[error("the kernels' own test cannot be run: {case}: {source}")]
    Case { case: String, source: CaseError },
    #[error("the kernels' own test cannot be run: {0}")]
    Backend(#[from] BackendError),
    #[error(
        "{case}: value {index} is {got} and not {wanted}, {error:e} of the largest: the kernels do not work on this GPU"
    )]
    Differs { case: String, index: usize, got: f32, wanted: f32, error: f32 },
    #[error("{case}: {got} values and not {wanted}")]
    Count { case: String, got: usize, wanted: usize },
    #[error("{case}: {got} is chosen and not {wanted}: the kernels do not work on this GPU")]
    Choice { case: String, got: String, wanted: String },
}

/// A model's heads: of queries, of keys, and values of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    pub query_heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

/// Compares what kernels of every format give, with a model's heads and type of keys and values. How many cases were compared.
pub fn self_test(mut device: impl Device, kv_dtype: KvDtype, heads: Heads) -> Result<usize, SelfTestError> {
    let Heads { query_heads, kv_heads, head_dim } = heads;
    let cases = of_model(kv_dtype, [query_heads, kv_heads, head_dim]);
    for case in &cases {
        compare(case, &mut device, None, SLACK)?;
        // Where blocks share the positions of a row, one more kernel puts their parts together.
        if case.kv.layers > 0 {
            compare(case, &mut device, Some(SHARED_RUN_MIN), SLACK)?;
        }
    }
    Ok(cases.len() + choice_test::check(&mut device)?)
}

/// Runs a case on a device and on the oracle. With `shared_run_min`, rows share their positions among blocks, which have so many
/// at least.
pub fn compare_with_oracle(
    case: &Case,
    device: impl Device,
    shared_run_min: Option<u32>,
) -> Result<(), SelfTestError> {
    compare(case, device, shared_run_min, 1.0)
}

fn compare(
    case: &Case,
    device: impl Device,
    shared_run_min: Option<u32>,
    slack: f32,
) -> Result<(), SelfTestError> {
    let failed = |source| SelfTestError::Case { case: case.name.clone(), source };
    let wanted = case.run(Oracle::new).map_err(failed)?;
    let shared = shared_run_min.map(|run_min| SharedRows { rows: ROWS_MAX, run_min });
    let got = case.run(|memory, kv| of_memory(device, &memory, kv, shared)).map_err(failed)?;
    let (bound, case) = (slack * bound(case), case.name.clone());
    if got.len() != wanted.len() {
        return Err(SelfTestError::Count { case, got: got.len(), wanted: wanted.len() });
    }
    let largest = wanted.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
    for (index, (got, wanted)) in got.into_iter().zip(wanted).enumerate() {
        let error = (got - wanted).abs() / largest;
        if error.is_nan() || error > bound {
            return Err(SelfTestError::Differs { case, index, got, wanted, error });
        }
    }
    Ok(())
}

/// Rows whose positions blocks share, in runs of so many at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedRows {
    /// At a time.
    pub rows: usize,
    pub run_min: u32,
}

/// A backend with a case's memory; attention is whole, or shared among blocks.
pub fn of_memory<D: Device>(
    device: D,
    memory: &HostMemory,
    kv: KvShape,
    shared: Option<SharedRows>,
) -> Result<Cuda<D>, BackendError> {
    let elements = memory.workspace.bytes() / size_of::<f32>();
    // Of each query head of a row two numbers more than the head has, which are at most twice as many.
    let partial_elements = 2 * SPLITS as usize * elements;
    let attention = shared.map(|SharedRows { rows, run_min }| AttentionLimits {
        rows,
        run_min,
        splits: SPLITS,
        partial_elements,
    });
    let limits = CudaLimits {
        weights_bytes: memory.weights.bytes(),
        workspace_bytes: memory.workspace.bytes(),
        numbers_bytes: 4096,
        transfer_elements: 2 * elements,
        recorded_rows: 0,
        attention,
        sampling: None,
    };
    let mut cuda = Cuda::new(device, kv, limits)?;
    cuda.write_weights(0, memory.weights.as_slice())?;
    Ok(cuda)
}

const fn bound(case: &Case) -> f32 {
    if case.stores_sums {
        match case.kv.dtype {
            KvDtype::F32 => BOUND,
            KvDtype::Bf16 => BOUND_STORED_BF16,
            KvDtype::Fp8 => BOUND_STORED_FP8,
        }
    } else if case.linear_rows > LINEAR_ROWS_MAX as usize {
        BOUND_MANY_ROWS
    } else if case.attention_rows >= ATTENTION_ROWS_MIN as usize {
        BOUND_ATTENTION_ROWS
    } else {
        BOUND
    }
}
