//! The arithmetic by example and by property.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sparkherd_checkpoint::{Architecture, Dtype, Facts, Requantize};
use sparkherd_footprint::{
    Backend, FootprintError, GRAMMAR_HOST_BYTES_PER_KV_TOKEN, GRAMMAR_HOST_BYTES_PER_VOCABULARY_TOKEN,
    GrammarRoom, KvDtype, Platform, QUEUE_CONTEXTS, Serving, TOKENIZER_HOST_BYTES_PER_FILE_BYTE,
    context_candidates, kv_bytes_per_token, kv_dtype_auto, kv_tokens_default, largest_context_fitting, plan,
    serving_default, serving_for_memory_cap, step_tokens_max, workspace,
};

const GIB: u64 = 1 << 30;

/// Sizes of Llama 3.1 8B, from its published configuration.
fn llama_8b() -> Facts {
    Facts {
        architecture: Architecture::Llama,
        dtype: Dtype::Bf16,
        parameters: 8_030_261_248,
        weight_bytes: 16_060_522_496,
        layers: 32,
        hidden_size: 4096,
        intermediate_size: 14_336,
        attention_heads: 32,
        kv_heads: 8,
        head_dim: 128,
        vocab_size: 128_256,
        max_context: 131_072,
        int8_weight_bytes: None,
        tokenizer_bytes: 9_085_657,
    }
}

fn platform(backend: Backend) -> Platform {
    Platform { backend, threads: 20, runtime_host_bytes: 64 << 20, runtime_device_bytes: 512 << 20 }
}

/// What the process takes beside its arenas on [`platform`], with a context of 8192.
fn runtime_host_bytes(facts: &Facts, kv_tokens: u64) -> u64 {
    (64 << 20)
        + TOKENIZER_HOST_BYTES_PER_FILE_BYTE * facts.tokenizer_bytes
        + GRAMMAR_HOST_BYTES_PER_VOCABULARY_TOKEN * u64::from(facts.vocab_size)
        + GrammarRoom::new(16, kv_tokens).bytes().unwrap_or_default()
        // A token that waits is held twice, as 4 bytes.
        + QUEUE_CONTEXTS * 8192 * 8
}

#[test]
fn grammars_have_room_that_grows_with_the_sequences() {
    let bytes = |sequences, tokens| GrammarRoom::new(sequences, tokens).bytes();
    assert_eq!(bytes(1, 0), Some(24 << 20));
    assert_eq!(bytes(16, 0), Some(24 << 20));
    assert_eq!(bytes(32, 4096), Some(42 << 20));
    assert_eq!(bytes(u32::MAX, u64::MAX), None);
}

#[test]
fn llama_8b_takes_known_bytes() {
    let facts = llama_8b();
    // 2 × 32 layers × 8 heads × 128 × 2 bytes = 128 KiB a token.
    assert_eq!(kv_bytes_per_token(&facts, KvDtype::Bf16), Ok(131_072));
    let serving = serving_default(&facts, 8192, 16);
    assert_eq!(serving.kv_tokens, 8192 + 15 * 2048);
    let footprint = plan(&facts, &serving, &platform(Backend::Cpu)).unwrap();
    assert_eq!(footprint.device_bytes, 0);
    assert_eq!(footprint.parts.weights_bytes, facts.weight_bytes);
    assert_eq!(footprint.parts.kv_bytes, 38_912 * 131_072);
    assert_eq!(footprint.parts.runtime_bytes, runtime_host_bytes(&facts, serving.kv_tokens));
}

#[test]
fn requantised_weights_count_as_they_are_kept_and_never_as_less_than_is_known() {
    let as_stored = llama_8b();
    let facts = Facts { int8_weight_bytes: Some(8_540_000_000), ..as_stored.clone() };
    let serving = serving_default(&facts, 8192, 16);
    let rounded = Serving { requantize: Requantize::Int8, ..serving.clone() };
    let weights = |facts: &Facts, serving: &Serving| {
        plan(facts, serving, &platform(Backend::Cpu)).unwrap().parts.weights_bytes
    };
    assert_eq!(weights(&facts, &serving), as_stored.weight_bytes);
    assert_eq!(weights(&facts, &rounded), 8_540_000_000);
    assert_eq!(weights(&as_stored, &rounded), as_stored.weight_bytes);
}

#[test]
fn cuda_puts_all_but_the_process_on_the_device() {
    let facts = llama_8b();
    let serving = serving_default(&facts, 8192, 16);
    let footprint = plan(&facts, &serving, &platform(Backend::Cuda)).unwrap();
    let workspace = workspace(&facts, &serving, &platform(Backend::Cuda)).unwrap();
    // What a step is told and what it answers passes through host memory of as many bytes.
    let (numbers, answer) = (workspace.numbers, [workspace.logits, workspace.residual]);
    assert_eq!(numbers.elements, 6 * 2048 + 24 + 32 + 16 * 8192 / 16);
    let transfer_bytes: u64 = answer.iter().chain([&numbers]).map(|buffer| buffer.bytes().unwrap()).sum();
    let runtime_bytes = runtime_host_bytes(&facts, serving.kv_tokens);
    assert_eq!(footprint.host_bytes, runtime_bytes + transfer_bytes);
    let parts = footprint.parts;
    assert_eq!(
        footprint.device_bytes,
        parts.weights_bytes + parts.kv_bytes + parts.workspace_bytes + (512 << 20)
    );
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let facts = llama_8b();
    let good = serving_default(&facts, 8192, 16);
    let cpu = platform(Backend::Cpu);
    let refused = |serving: Serving| plan(&facts, &serving, &cpu).unwrap_err();
    assert_eq!(
        refused(Serving { context: 0, ..good.clone() }),
        FootprintError::Context { context: 0, context_max: 131_072 }
    );
    assert_eq!(
        refused(Serving { context: 131_073, ..good.clone() }).to_string(),
        "context is 131073 tokens, the model allows 1 to 131072"
    );
    assert_eq!(refused(Serving { concurrency: 0, ..good.clone() }), FootprintError::NoConcurrency);
    assert_eq!(
        refused(Serving { kv_tokens: 8200, ..good.clone() }),
        FootprintError::KvPartialBlock { kv_tokens: 8200 }
    );
    assert_eq!(
        refused(Serving { kv_tokens: 8176, ..good.clone() }),
        FootprintError::KvPoolTooSmall { kv_tokens: 8176, context: 8192 }
    );
    assert_eq!(
        refused(Serving { kv_tokens: u64::MAX - 15, ..good.clone() }),
        FootprintError::TooLarge { part: "kv" }
    );
    let no_threads = Platform { threads: 0, ..cpu };
    assert_eq!(plan(&facts, &good, &no_threads), Err(FootprintError::NoThreads));
}

#[test]
fn the_step_holds_a_token_of_every_sequence() {
    let serving = |context, concurrency| serving_default(&llama_8b(), context, concurrency);
    assert_eq!(step_tokens_max(&serving(8192, 16), Backend::Cpu), 512);
    assert_eq!(step_tokens_max(&serving(8192, 600), Backend::Cpu), 600);
    assert_eq!(step_tokens_max(&serving(128, 1), Backend::Cpu), 128);
    assert_eq!(step_tokens_max(&serving(8192, 16), Backend::Cuda), 2048);
}

#[test]
fn candidates_are_cut_to_the_model() {
    let of = |max_context| context_candidates(&Facts { max_context, ..llama_8b() });
    assert_eq!(of(131_072), [32_768, 16_384, 8192, 4096]);
    assert_eq!(of(16_384), [16_384, 8192, 4096]);
    assert_eq!(of(10_000), [10_000, 8192, 4096]);
    assert_eq!(of(512), [512]);
}

#[test]
fn a_type_with_more_precision_than_bf16_keeps_it_in_the_cache() {
    assert_eq!(kv_dtype_auto(Dtype::Bf16), KvDtype::Bf16);
    assert_eq!(kv_dtype_auto(Dtype::F16), KvDtype::F32);
    assert_eq!(kv_dtype_auto(Dtype::F32), KvDtype::F32);
}

#[test]
fn a_cap_too_small_says_what_is_needed() {
    let facts = llama_8b();
    let template = serving_default(&facts, 8192, 16);
    let cpu = platform(Backend::Cpu);
    let error = serving_for_memory_cap(&facts, &template, &cpu, 16 * GIB).unwrap_err();
    let smallest = Serving { kv_tokens: 8192, ..template };
    let needed_bytes = plan(&facts, &smallest, &cpu).unwrap().total_bytes();
    assert_eq!(error, FootprintError::MemoryCap { memory_bytes: 16 * GIB, needed_bytes, context: 8192 });
}

#[test]
fn nothing_fits_a_room_smaller_than_the_weights() {
    let facts = llama_8b();
    let template = serving_default(&facts, 8192, 16);
    assert_eq!(largest_context_fitting(&facts, &template, &platform(Backend::Cpu), 14 * GIB), None);
}

#[test]
fn a_context_below_the_round_step_is_still_found() {
    let facts = Facts { max_context: 200, ..llama_8b() };
    let template = serving_default(&facts, 200, 1);
    let cpu = platform(Backend::Cpu);
    let room = plan(&facts, &serving_default(&facts, 64, 1), &cpu).unwrap().total_bytes();
    assert_eq!(largest_context_fitting(&facts, &template, &cpu, room), Some(64));
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let sizes = (1_u32..128, 1_u32..16_384, 1_u32..65_536, 1_u32..128, 1_u32..64, 1_u32..512, 1_u32..300_000);
    (sizes, 1_u32..1_000_000, 0_u64..1 << 42, 0_u64..1 << 26).prop_map(
        |(sizes, max_context, weight_bytes, tokenizer_bytes)| {
            let (layers, hidden_size, intermediate_size, attention_heads, kv_heads, head_dim, vocab_size) =
                sizes;
            Facts {
                architecture: Architecture::Llama,
                dtype: Dtype::Bf16,
                parameters: weight_bytes / 2,
                weight_bytes,
                int8_weight_bytes: None,
                layers,
                hidden_size,
                intermediate_size,
                attention_heads,
                kv_heads,
                head_dim,
                vocab_size,
                max_context,
                tokenizer_bytes,
            }
        },
    )
}

fn any_platform() -> impl Strategy<Value = Platform> {
    prop_oneof![Just(Backend::Cpu), Just(Backend::Cuda)].prop_map(platform)
}

/// The same cases in every run.
fn seeded() -> ProptestConfig {
    ProptestConfig { rng_seed: RngSeed::Fixed(3), failure_persistence: None, ..ProptestConfig::default() }
}

/// What one more token in the pool takes.
fn token_bytes(facts: &Facts, serving: &Serving) -> u64 {
    kv_bytes_per_token(facts, serving.kv_dtype).unwrap_or_default() + GRAMMAR_HOST_BYTES_PER_KV_TOKEN
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn parts_sum_to_the_total(facts in any_facts(), platform in any_platform(), share in 0.0..1.0_f64, concurrency in 1_u32..300) {
        let context = fraction(share, facts.max_context);
        let serving = serving_default(&facts, context, concurrency);
        let footprint = plan(&facts, &serving, &platform).unwrap();
        let parts = footprint.parts;
        let sum = parts.weights_bytes + parts.kv_bytes + parts.state_bytes + parts.workspace_bytes + parts.runtime_bytes;
        prop_assert_eq!(footprint.device_bytes + footprint.host_bytes, sum);
        let buffers = workspace(&facts, &serving, &platform).unwrap();
        let bytes: u64 = buffers.buffers().iter().map(|(_, buffer)| buffer.bytes().unwrap()).sum();
        prop_assert_eq!(parts.workspace_bytes, bytes);
    }

    #[test]
    fn more_never_takes_less(facts in any_facts(), platform in any_platform(), share in 0.0..1.0_f64, concurrency in 1_u32..300, extra_blocks in 0_u64..10_000) {
        let context = fraction(share, facts.max_context);
        let total = |serving: &Serving| plan(&facts, serving, &platform).unwrap().total_bytes();
        let base = serving_default(&facts, context, concurrency);
        let base_bytes = total(&base);
        prop_assert!(total(&serving_default(&facts, context, concurrency + 1)) >= base_bytes);
        if context < facts.max_context {
            prop_assert!(total(&serving_default(&facts, context + 1, concurrency)) >= base_bytes);
        }
        let larger_pool = Serving { kv_tokens: base.kv_tokens + 16 * extra_blocks, ..base };
        let extra_bytes = 16 * extra_blocks * token_bytes(&facts, &larger_pool);
        prop_assert_eq!(total(&larger_pool), base_bytes + extra_bytes);
    }

    #[test]
    fn any_settings_give_bytes_or_an_error(facts in any_facts(), platform in any_platform(), context: u32, concurrency: u32, kv_tokens: u64) {
        let serving = Serving { context, concurrency, kv_tokens, kv_dtype: KvDtype::F32, requantize: Requantize::None };
        let _ = plan(&facts, &serving, &platform);
        let _ = serving_for_memory_cap(&facts, &serving, &platform, u64::MAX);
        prop_assert_eq!(kv_tokens_default(context, concurrency) % 16, 0);
    }

    #[test]
    fn a_cap_is_kept_and_used_up(facts in any_facts(), platform in any_platform(), share in 0.0..1.0_f64, concurrency in 1_u32..64, spare in 0_u64..64 * GIB) {
        let template = serving_default(&facts, fraction(share, facts.max_context), concurrency);
        let smallest = Serving { kv_tokens: u64::from(template.context).next_multiple_of(16), ..template.clone() };
        let cap = plan(&facts, &smallest, &platform).unwrap().total_bytes() + spare;
        let serving = serving_for_memory_cap(&facts, &template, &platform, cap).unwrap();
        let left = cap - plan(&facts, &serving, &platform).unwrap().total_bytes();
        prop_assert!(left < 16 * token_bytes(&facts, &serving));
    }

    #[test]
    fn the_largest_context_fits_and_the_next_round_one_does_not(facts in any_facts(), platform in any_platform(), share in 0.0..1.0_f64, concurrency in 1_u32..64) {
        let goal = fraction(share, facts.max_context);
        let template = serving_default(&facts, goal, concurrency);
        let total = |context| plan(&facts, &serving_default(&facts, context, concurrency), &platform).unwrap().total_bytes();
        let room = total(goal);
        match largest_context_fitting(&facts, &template, &platform, room) {
            None => prop_assert!(goal < 16),
            Some(context) => {
                prop_assert!(total(context) <= room);
                let next = context.next_multiple_of(256) + 256;
                prop_assert!(context == facts.max_context || next > facts.max_context || total(next) > room);
            }
        }
    }
}

fn fraction(share: f64, max: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 ≤ share < 1")]
    let scaled = (share * f64::from(max)) as u32;
    scaled.clamp(1, max)
}
