use sparkherd_engine::backend::{
    HostMemory, KvShape,
    cuda::{Cuda, CudaLimits},
    oracle::Oracle,
};
use sparkherd_kernels::LINEAR_ROWS_MAX;
use sparkherd_kernels_host::ShimDevice;

use crate::operation_cases::{Case, all};

fn cuda(memory: HostMemory, kv: KvShape) -> Cuda<ShimDevice> {
    let limits = CudaLimits {
        tokens: 256,
        table_entries: 64,
        transfer_elements: 2 * memory.workspace.bytes() / size_of::<f32>(),
    };
    Cuda::new(crate::device(), memory, kv, limits).unwrap()
}

/// Kernels round nothing but sums, in another order than the oracle. The worst are rows of whole numbers up to 127 whose 256
/// products cancel down to about 1: their sums go through hundreds, which f32 has to 3e-5.
const BOUND: f32 = 3e-5;
/// Products of many rows round rows and weights to BF16, by up to 1/512 each: of 16 products of up to 1 the errors add up to
/// 0.003, where the sums are about 1.
const BOUND_MANY_ROWS: f32 = 6e-3;

fn compare(case: &Case) -> Result<(), String> {
    let wanted = case.run(|memory, kv| Oracle::new(memory, kv).unwrap());
    let got = case.run(cuda);
    let many_rows = case.linear_rows > LINEAR_ROWS_MAX as usize;
    let bound = if many_rows { BOUND_MANY_ROWS } else { BOUND };
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

#[test]
fn every_operation_is_within_the_bound_of_the_oracle() {
    let wrong: Vec<String> = all().iter().filter_map(|case| compare(case).err()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
