//! Steps that are launched whole, as they were recorded before the first request.

use sparkherd_proof::recordings::{SEQUENCES, answers, check};

#[test]
fn a_step_that_is_repeated_gives_the_same_bits() {
    let check = check(crate::device);
    assert!(check.wrong.is_empty() && check.passed > 0, "{check:?}");
    assert_eq!(answers(crate::gpu(), SEQUENCES as usize), answers(crate::device(), 0));
}
