//! Every operation against the oracle.

use sparkherd_engine::backend::{
    HostMemory, KvShape,
    cuda::{AttentionLimits, Cuda, CudaLimits},
    oracle::Oracle,
};
use sparkherd_kernels::{ATTENTION_ROWS_MIN, Device, LINEAR_ROWS_MAX};

use crate::operation_cases::{Case, all, decode_beside_a_prompt, fused_and_one_by_one};
use crate::report::Check;

/// Up to so many rows share their positions among blocks, which have so many at least.
const fn shared(rows: usize, run_min: u32) -> AttentionLimits {
    AttentionLimits { rows, run_min, splits: SPLITS, partial_elements: 1 << 22 }
}

/// With attention whole, or shared among blocks.
fn cuda<D: Device>(
    device: D,
    memory: &HostMemory,
    kv: KvShape,
    attention: Option<AttentionLimits>,
) -> Cuda<D> {
    let limits = CudaLimits {
        weights_bytes: memory.weights.bytes(),
        workspace_bytes: memory.workspace.bytes(),
        numbers_bytes: 4096,
        transfer_elements: 2 * memory.workspace.bytes() / size_of::<f32>(),
        recorded_rows: 0,
        attention,
        sampling: None,
    };
    let mut cuda = Cuda::new(device, kv, limits).unwrap();
    cuda.write_weights(0, memory.weights.as_slice()).unwrap();
    cuda
}

/// Kernels round nothing but sums, in another order than the oracle. The worst are rows of whole numbers up to 127 whose 256
/// products cancel down to about 1: their sums go through hundreds, which f32 has to 3e-5.
const BOUND: f32 = 3e-5;
/// More than any case has.
const ROWS_MAX: usize = 256;
/// Blocks that share a row's positions.
const SPLITS: u32 = 5;
/// Products of many rows round rows and weights to BF16, by up to 1/512 each: of 16 products of up to 1 the errors add up to
/// 0.003, where the sums are about 1.
const BOUND_MANY_ROWS: f32 = 6e-3;

/// Attention of many rows rounds queries, keys, values and exponentials to BF16, by up to 1/512 each. A value that a row takes
/// whole is wrong by as much; others are averages, of weights that are wrong by as much. The worst of these cases has 2.1e-3 on the
/// host.
const BOUND_ATTENTION_ROWS: f32 = 4e-3;

fn bound(case: &Case) -> f32 {
    if case.linear_rows > LINEAR_ROWS_MAX as usize {
        BOUND_MANY_ROWS
    } else if case.attention_rows >= ATTENTION_ROWS_MIN as usize {
        BOUND_ATTENTION_ROWS
    } else {
        BOUND
    }
}

fn compare(case: &Case, run_min: Option<u32>, device: impl Device) -> Result<(), String> {
    let wanted = case.run(|memory, kv| Oracle::new(memory, kv).unwrap());
    let got =
        case.run(|memory, kv| cuda(device, &memory, kv, run_min.map(|run_min| shared(ROWS_MAX, run_min))));
    let bound = bound(case);
    let largest = wanted.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
    if got.len() != wanted.len() {
        return Err(format!("{}: {} values, not {}", case.name, got.len(), wanted.len()));
    }
    for (index, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
        let error = (got - wanted).abs() / largest;
        if error.is_nan() || error > bound {
            return Err(format!("{}, element {index}: {got} is not {wanted}, error {error:e}", case.name));
        }
    }
    Ok(())
}

/// The cases whose name has this in it, each on a device of its own.
pub fn check<D: Device>(named: &str, run_min: Option<u32>, device: impl Fn() -> D) -> Check {
    compare_all(all().into_iter().filter(|case| case.name.contains(named)), run_min, device)
}

/// Of these, those of attention, which blocks share in runs of so many positions at least.
pub fn check_attention<D: Device>(named: &str, run_min: u32, device: impl Fn() -> D) -> Check {
    let is_attention = |case: &Case| case.kv.layers > 0 && case.name.contains(named);
    compare_all(all().into_iter().filter(is_attention), Some(run_min), device)
}

fn compare_all<D: Device>(
    cases: impl Iterator<Item = Case>,
    run_min: Option<u32>,
    device: impl Fn() -> D,
) -> Check {
    let mut check = Check { name: "operations as the oracle", passed: 0, wrong: Vec::new() };
    for case in cases {
        match compare(&case, run_min, device()) {
            Ok(()) => check.passed += 1,
            Err(wrong) => check.wrong.push(wrong),
        }
    }
    check
}

/// Launches that do what several others do: the same numbers are added in the same order, and rounded as often.
pub fn check_fused<D: Device>(device: impl Fn() -> D) -> Check {
    let mut check = Check { name: "fused launches as their parts", passed: 0, wrong: Vec::new() };
    for ways in fused_and_one_by_one() {
        let [fused, parts] = ways.each_ref().map(|case| -> Vec<u32> {
            let values = case.run(|memory, kv| cuda(device(), &memory, kv, None));
            values.into_iter().map(f32::to_bits).collect()
        });
        if fused == parts {
            check.passed += 1;
        } else {
            check.wrong.push(format!("{} gives other bits than its parts", ways[0].name));
        }
    }
    check
}

/// Whether a row's positions are shared depends on the rows beside it that answer, and on no prompt's.
pub fn check_beside_a_prompt<D: Device>(device: impl Fn() -> D) -> Check {
    let mut check = Check { name: "attention of an answer beside a prompt", passed: 0, wrong: Vec::new() };
    let case = decode_beside_a_prompt();
    let out = case.run(|memory, kv| cuda(device(), &memory, kv, Some(shared(1, 16))));
    let bits: Vec<u32> = out.iter().map(|value| value.to_bits()).collect();
    let (alone, beside) = bits.split_at(bits.len() / 2);
    if alone == beside && !out.is_empty() && out.iter().all(|value| value.is_finite()) {
        check.passed = 1;
    } else {
        check.wrong.push(format!("{}: other bits", case.name));
    }
    check
}
