use sparkherd_proof::nvfp4::check;

#[test]
fn both_ways_give_what_the_format_says() {
    for check in [check(crate::device), check(crate::gpu)] {
        assert!(check.wrong.is_empty() && check.passed == 6, "{check:?}");
    }
}
