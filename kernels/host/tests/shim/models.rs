use std::sync::atomic::Ordering;

use sparkherd_engine::Sampling;
use sparkherd_footprint::KvDtype;
use sparkherd_proof::checkpoints::{ALL, named};
use sparkherd_proof::choices::{self, choose};
use sparkherd_proof::models::{Apart, follow, kv_dtypes};

/// Follows the CPU's answers, and counts how often memory is allocated. How far the two were apart.
fn compare(name: &str, kv_dtype: KvDtype) -> Apart {
    let device = crate::device();
    let allocations = device.allocations();
    let mut allocated = 0;
    let loaded = || allocated = allocations.load(Ordering::Relaxed);
    let compared = follow(&named(name), kv_dtype, device, loaded);
    assert!(compared.as_ref().is_ok_and(|compared| compared.tokens > 0), "{compared:?}");
    let now = allocations.load(Ordering::Relaxed);
    assert!(
        allocated > 0 && now == allocated,
        "{name}: {allocated} allocations before the first step, {now} after the last"
    );
    compared.unwrap().apart
}

fn compare_all(is_named: impl Fn(&str) -> bool) -> Vec<(&'static str, KvDtype, Apart)> {
    let named = ALL.iter().filter(|checkpoint| is_named(checkpoint.name));
    let of_one = named
        .flat_map(|checkpoint| kv_dtypes(checkpoint).iter().map(|kv_dtype| (checkpoint.name, *kv_dtype)));
    of_one.map(|(name, kv_dtype)| (name, kv_dtype, compare(name, kv_dtype))).collect()
}

#[test]
fn llama_qwen_and_mistral_answer_as_on_the_cpu() {
    println!("{:?}", compare_all(|name| !name.contains("gguf")));
}

#[test]
fn weights_in_blocks_answer_as_on_the_cpu() {
    println!("{:?}", compare_all(|name| name.contains("gguf")));
}

/// Weights go through the driver's pinned ring, decodes are recorded and launched whole.
#[test]
fn a_model_answers_behind_a_driver_too() {
    let compared = follow(&named("tiny-qwen3-bf16"), KvDtype::Bf16, crate::gpu(), || {});
    assert!(compared.as_ref().is_ok_and(|compared| compared.tokens > 0), "{compared:?}");
}

#[test]
fn tokens_chosen_on_the_device_are_those_the_host_chooses() {
    let check = choices::check(crate::gpu);
    assert!(check.wrong.is_empty() && check.passed > 0, "{check:?}");
    let device = crate::device();
    let allocations = device.allocations();
    let mut allocated = 0;
    let loaded = || allocated = allocations.load(Ordering::Relaxed);
    let drawn = Sampling { temperature: 0.9, top_p: 0.9, ..Sampling::default() };
    let chosen = choose(&named("tiny-llama3-bf16"), &drawn, device, loaded);
    assert!(chosen.as_ref().is_ok_and(|chosen| *chosen > 0), "{chosen:?}");
    assert_eq!(allocations.load(Ordering::Relaxed), allocated, "it allocates while it chooses");
}
