//! Every operation against the oracle.

use sparkherd_engine::backend::{
    cases::{Case, all, decode_beside_a_prompt, fused_and_one_by_one},
    cuda::{SharedRows, compare_with_oracle, of_memory},
};
use sparkherd_kernels::Device;

use crate::report::Check;

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
        match compare_with_oracle(&case, device(), run_min) {
            Ok(()) => check.passed += 1,
            Err(wrong) => check.wrong.push(wrong.to_string()),
        }
    }
    check
}

/// Launches that do what several others do: the same numbers are added in the same order, and rounded as often.
pub fn check_fused<D: Device>(device: impl Fn() -> D) -> Check {
    let mut check = Check { name: "fused launches as their parts", passed: 0, wrong: Vec::new() };
    for ways in fused_and_one_by_one() {
        let [fused, parts] = ways.each_ref().map(|case| -> Vec<u32> {
            let values = case.run(|memory, kv| of_memory(device(), &memory, kv, None)).unwrap();
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

/// A row gets the same whatever the others are: a prompt of many rows, or one of so few that they are launched with it.
pub fn check_beside_a_prompt<D: Device>(device: impl Fn() -> D) -> Check {
    let mut check = Check { name: "attention of an answer beside a prompt", passed: 0, wrong: Vec::new() };
    for case in [10, 20].map(decode_beside_a_prompt) {
        let shared = Some(SharedRows { rows: 1, run_min: 16 });
        let out = case.run(|memory, kv| of_memory(device(), &memory, kv, shared)).unwrap();
        let bits: Vec<u32> = out.iter().map(|value| value.to_bits()).collect();
        let (alone, beside) = bits.split_at(bits.len() / 2);
        if alone == beside && !out.is_empty() && out.iter().all(|value| value.is_finite()) {
            check.passed += 1;
        } else {
            check.wrong.push(format!("{}: other bits", case.name));
        }
    }
    check
}
