//! Families beside Llama: their tensors, defaults and windows, and checkpoints without an output head.

use crate::support::{Memory, config, parsed, safetensors, tensors};
use serde_json::{Value, json};
use sparkherd_checkpoint::{
    Architecture, Checkpoint, ModelConfig, OutputHead, RefusalReason, RopeScaling, expected_tensors,
};

/// The Llama of [`config`] under another name, with some keys replaced, added, or removed by null.
fn family(class: &str, model_type: &str, changes: &Value) -> Value {
    let mut config = config();
    let keys = config.as_object_mut().expect("object");
    keys.remove("pretraining_tp");
    keys.remove("attention_bias");
    keys.insert("architectures".to_owned(), json!([class]));
    keys.insert("model_type".to_owned(), json!(model_type));
    for (key, value) in changes.as_object().expect("object") {
        keys.insert(key.clone(), value.clone());
    }
    config
}

fn qwen2(changes: &Value) -> Value {
    family("Qwen2ForCausalLM", "qwen2", changes)
}

fn qwen3(changes: &Value) -> Value {
    family("Qwen3ForCausalLM", "qwen3", changes)
}

fn mistral(changes: &Value) -> Value {
    family("MistralForCausalLM", "mistral", changes)
}

fn refusal(config: &Value) -> String {
    ModelConfig::parse(config.to_string().as_bytes()).expect_err("refused").to_string()
}

fn names(config: &Value) -> Vec<String> {
    expected_tensors(&parsed(config)).into_iter().map(|tensor| tensor.name).collect()
}

#[test]
fn each_family_has_its_tensors() {
    let llama = names(&config());
    let null_window = json!({"sliding_window": null});
    assert_eq!(names(&mistral(&null_window)), llama);
    let added = |config: &Value| -> Vec<String> {
        names(config).into_iter().filter(|name| name.contains(".0.") && !llama.contains(name)).collect()
    };
    let of_layer = |parts: &[&str]| -> Vec<String> {
        parts.iter().map(|part| format!("model.layers.0.self_attn.{part}")).collect()
    };
    assert_eq!(added(&qwen2(&json!({}))), of_layer(&["q_proj.bias", "k_proj.bias", "v_proj.bias"]));
    assert_eq!(added(&qwen3(&json!({}))), of_layer(&["q_norm.weight", "k_norm.weight"]));
    assert_eq!(parsed(&qwen3(&json!({}))).architecture, Architecture::Qwen3);
}

#[test]
fn defaults_are_those_of_the_family_or_must_be_said() {
    assert_eq!(parsed(&qwen2(&json!({}))).head_dim, 2);
    assert_eq!(parsed(&qwen3(&json!({}))).head_dim, 128);
    assert_eq!(parsed(&qwen3(&json!({"head_dim": 6}))).head_dim, 6);
    for key in ["num_key_value_heads", "max_position_embeddings"] {
        assert_eq!(refusal(&qwen2(&json!({key: null}))), format!("key {key} is missing"));
    }
}

#[test]
fn what_a_family_does_not_compute_is_named() {
    let cases = [
        (qwen2(&json!({"model_type": "qwen3"})), "model_type is \"qwen3\"; must be \"qwen2\""),
        (qwen2(&json!({"attention_bias": false})), "attention_bias is false; must be true"),
        (qwen3(&json!({"attention_bias": true})), "attention_bias is true; must be false"),
        (qwen2(&json!({"use_mrope": true})), "use_mrope is true; must be false"),
        (
            qwen3(&json!({"num_experts": 8})),
            "key \"num_experts\" = 8 is unknown and could change the arithmetic",
        ),
        (
            qwen3(&json!({"layer_types": ["sliding_attention", "full_attention"]})),
            "layer_types is a list of 2 values; must be \"full_attention\" for every layer",
        ),
        (
            qwen3(
                &json!({"use_sliding_window": true, "sliding_window": 64, "layer_types": ["linear_attention"]}),
            ),
            "layer_types is a list of 1 values; must be \"full_attention\" or \"sliding_attention\" for every layer",
        ),
        (qwen2(&json!({"use_sliding_window": true})), "key sliding_window is missing"),
        (
            mistral(&json!({"sliding_window": 0})),
            "sliding_window is 0; must be null or a whole number from 1 to 16777216",
        ),
    ];
    for (config, message) in cases {
        assert_eq!(refusal(&config), message);
    }
}

/// Up to its window a sequence never meets it, so the context is cut to it and the arithmetic is exact.
#[test]
fn a_window_in_use_bounds_the_context_and_an_unused_one_does_not() {
    let context = |config: &Value| parsed(config).max_context;
    let unused = json!({"use_sliding_window": false, "sliding_window": 64, "max_window_layers": 1});
    assert_eq!(context(&qwen2(&unused)), 256);
    let used = json!({"use_sliding_window": true, "sliding_window": 64, "max_window_layers": 1,
                      "layer_types": ["full_attention", "sliding_attention"]});
    assert_eq!(context(&qwen3(&used)), 64);
    assert_eq!(context(&mistral(&json!({"sliding_window": null}))), 256);
    assert_eq!(context(&mistral(&json!({"sliding_window": 100}))), 100);
    // transformers' default where the key is absent.
    assert_eq!(context(&mistral(&json!({"max_position_embeddings": 32768}))), 4096);
}

#[test]
fn yarn_is_read_in_both_spellings_and_stretches_the_context() {
    let old = qwen2(&json!({
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256},
    }));
    let model = parsed(&old);
    assert_eq!(model.max_context, 1024);
    let RopeScaling::Yarn { factor, original_max_position, beta_fast, beta_slow, attention_factor, truncate } =
        model.rope.scaling
    else {
        panic!("not YaRN: {:?}", model.rope)
    };
    assert!(truncate && original_max_position == 256);
    assert_eq!([factor, beta_fast, beta_slow].map(f64::to_bits), [4.0, 32.0, 1.0].map(f64::to_bits));
    assert!((attention_factor - (0.1 * 4.0_f64.ln() + 1.0)).abs() < 1e-12);

    // The start of the stretch defaults to max_position_embeddings; both scales together make the factor 1.
    let new = qwen2(&json!({
        "rope_theta": null,
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 500_000.0, "factor": 4.0, "mscale": 1.0,
                            "mscale_all_dim": 1.0, "truncate": false},
    }));
    let RopeScaling::Yarn { original_max_position, attention_factor, truncate, .. } =
        parsed(&new).rope.scaling
    else {
        panic!("not YaRN")
    };
    assert!(!truncate && original_max_position == 256 && (attention_factor - 1.0).abs() < 1e-12);
}

/// As sentence-transformers writes them: names without `model.`, no output head, and often the causal class all the same.
#[test]
fn a_bare_decoder_is_read_under_the_same_names_and_has_no_head() {
    let write = |config: &Value| {
        let mut directory = Memory::checkpoint();
        directory.put("config.json", config.to_string());
        let bare: Vec<_> = tensors(config)
            .into_iter()
            .filter(|(name, ..)| name != "lm_head.weight")
            .map(|(name, dtype, shape)| (name.trim_start_matches("model.").to_owned(), dtype, shape))
            .collect();
        directory.put("model.safetensors", safetensors(&bare));
        directory
    };
    let classes = [("Qwen3ForCausalLM", "qwen3"), ("Qwen3Model", "qwen3"), ("MistralModel", "mistral")];
    for (class, model_type) in classes {
        let checkpoint = Checkpoint::read(&write(&family(class, model_type, &json!({})))).expect(class);
        assert_eq!(checkpoint.config.head, OutputHead::Absent, "{class}");
        assert!(checkpoint.index.get("model.embed_tokens.weight").is_some(), "{class}");
        let tied = family(class, model_type, &json!({"tie_word_embeddings": true}));
        let checkpoint = Checkpoint::read(&write(&tied)).expect(class);
        assert_eq!(checkpoint.config.head, OutputHead::Tied, "{class}");
    }
    // A head that nothing would compute with is not passed over.
    let mut with_head = Memory::checkpoint();
    let bare_class = family("LlamaModel", "llama", &json!({}));
    with_head.put("config.json", bare_class.to_string());
    let refusal = Checkpoint::read(&with_head).expect_err("refused").refusal();
    assert_eq!(refusal.reason, RefusalReason::UnsupportedModel);
    assert!(
        refusal.message.contains("not part of the architecture: \"lm_head.weight\""),
        "{}",
        refusal.message
    );
}
