use std::env;

use sparkherd_proof::operations::{check, check_attention, check_beside_a_prompt, check_fused};
use sparkherd_proof::report::Check;

/// Of a fault in one operation the other operations' cases see nothing: `SPARKHERD_KERNELS_CASES` names part of those to run.
fn named() -> String {
    env::var("SPARKHERD_KERNELS_CASES").unwrap_or_default()
}

fn assert_proven(Check { name, passed: _, wrong }: &Check) {
    assert!(wrong.is_empty(), "{name}: {wrong:#?}");
}

#[test]
fn every_operation_is_within_the_bound_of_the_oracle() {
    let check = check(&named(), None, crate::device);
    assert!(check.passed + check.wrong.len() > 0, "no case is named {:?}", named());
    assert_proven(&check);
    println!("{} cases agree", check.passed);
}

/// Through a driver: copies, launches and waits take their turns.
#[test]
fn every_operation_is_within_the_bound_behind_a_driver() {
    assert_proven(&check(&named(), Some(16), crate::gpu));
}

/// As many positions as are stored together, fewer than a block has warps, and none that divides anything; the longest sequence
/// needs runs of twice, eight times, and just as many.
#[test]
fn attention_that_blocks_share_is_within_the_bound_too() {
    for positions in [16, 5, 37] {
        assert_proven(&check_attention(&named(), positions, crate::device));
    }
}

#[test]
fn what_is_one_launch_gives_the_same_bits_as_its_parts() {
    assert_proven(&check_fused(crate::device));
}

#[test]
fn attention_of_an_answer_has_the_same_bits_beside_a_prompt() {
    assert_proven(&check_beside_a_prompt(crate::device));
}
