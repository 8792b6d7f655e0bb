use std::env;

use sparkherd_engine::backend::{
    HostMemory, KvShape,
    cuda::{AttentionLimits, Cuda, CudaLimits},
    oracle::Oracle,
};
use sparkherd_kernels::{ATTENTION_ROWS_MIN, Device, LINEAR_ROWS_MAX};

use crate::operation_cases::{Case, all, fused_and_one_by_one};

/// With attention whole, or shared among blocks of so many positions at least.
fn cuda<D: Device>(device: D, memory: &HostMemory, kv: KvShape, run_min: Option<u32>) -> Cuda<D> {
    let attention = run_min.map(|run_min| AttentionLimits {
        rows: 256,
        run_min,
        splits: SPLITS,
        partial_elements: 1 << 22,
    });
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
/// Blocks that share a row's positions.
const SPLITS: u32 = 5;
/// Products of many rows round rows and weights to BF16, by up to 1/512 each: of 16 products of up to 1 the errors add up to
/// 0.003, where the sums are about 1.
const BOUND_MANY_ROWS: f32 = 6e-3;

/// Attention of many rows rounds queries, keys, values and exponentials to BF16, by up to 1/512 each. Scores of 20 and more
/// products with a standard deviation of 1 have errors with one of 0.002, which change the weights of a few values by five times
/// that at worst; the average of values that differ by up to 2 changes by less than that, and by their own rounding.
const BOUND_ATTENTION_ROWS: f32 = 1e-2;

fn bound(case: &Case) -> f32 {
    if case.linear_rows > LINEAR_ROWS_MAX as usize {
        BOUND_MANY_ROWS
    } else if case.attention_rows >= ATTENTION_ROWS_MIN as usize {
        BOUND_ATTENTION_ROWS
    } else {
        BOUND
    }
}

fn compare(case: &Case, run_min: Option<u32>) -> Result<(), String> {
    compare_on(case, run_min, crate::device())
}

fn compare_on(case: &Case, run_min: Option<u32>, device: impl Device) -> Result<(), String> {
    let wanted = case.run(|memory, kv| Oracle::new(memory, kv).unwrap());
    let got = case.run(|memory, kv| cuda(device, &memory, kv, run_min));
    let bound = bound(case);
    let largest = wanted.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
    assert_eq!(got.len(), wanted.len());
    for (index, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
        let error = (got - wanted).abs() / largest;
        if error.is_nan() || error > bound {
            return Err(format!("{}, element {index}: {got} is not {wanted}, error {error:e}", case.name));
        }
    }
    Ok(())
}

/// Of a fault in one operation the other operations' cases see nothing: `SPARKHERD_KERNELS_CASES` names part of those to run.
fn cases() -> Vec<Case> {
    let named = env::var("SPARKHERD_KERNELS_CASES").unwrap_or_default();
    let mut cases = all();
    cases.retain(|case| case.name.contains(&named));
    assert!(!cases.is_empty(), "no case is named {named:?}");
    cases
}

#[test]
fn every_operation_is_within_the_bound_of_the_oracle() {
    let cases = cases();
    let wrong: Vec<String> = cases.iter().filter_map(|case| compare(case, None).err()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{} cases agree", cases.len());
}

/// Through a driver: copies, launches and waits take their turns.
#[test]
fn every_operation_is_within_the_bound_behind_a_driver() {
    let cases = cases();
    let wrong: Vec<String> =
        cases.iter().filter_map(|case| compare_on(case, Some(16), crate::gpu()).err()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// As many positions as are stored together, fewer than a block has warps, and none that divides anything; the longest sequence
/// needs runs of twice, eight times, and just as many.
#[test]
fn attention_that_blocks_share_is_within_the_bound_too() {
    for positions in [16, 5, 37] {
        let cases = cases().into_iter().filter(|case| case.kv.layers > 0);
        let wrong: Vec<String> = cases.filter_map(|case| compare(&case, Some(positions)).err()).collect();
        assert!(wrong.is_empty(), "{positions} positions: {wrong:#?}");
    }
}

/// The same numbers are added in the same order, and rounded as often.
#[test]
fn what_is_one_launch_gives_the_same_bits_as_its_parts() {
    for ways in fused_and_one_by_one() {
        let [fused, parts] = ways.each_ref().map(|case| -> Vec<u32> {
            case.run(|memory, kv| cuda(crate::device(), &memory, kv, None))
                .into_iter()
                .map(f32::to_bits)
                .collect()
        });
        assert_eq!(fused, parts, "{}", ways[0].name);
    }
}
