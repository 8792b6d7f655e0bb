//! `config.json`: what is read, and what is refused in which words.

use crate::support::{config, config_with, parsed};
use serde_json::{Value, json};
use sparkherd_checkpoint::{ConfigError, GenerationConfig, ModelConfig, OutputHead, RopeScaling};

fn refusal(config: &Value) -> String {
    ModelConfig::parse(config.to_string().as_bytes()).expect_err("refused").to_string()
}

#[test]
fn sizes_and_defaults_are_read() {
    let model = parsed(&config());
    assert_eq!((model.layers, model.hidden_size, model.intermediate_size), (2, 8, 16));
    assert_eq!((model.heads, model.kv_heads, model.head_dim), (4, 2, 2));
    assert_eq!((model.vocab_size, model.max_context), (32, 256));
    assert_eq!((model.bos_token_id, model.eos_token_ids), (Some(1), vec![2]));
    assert_eq!(model.head, OutputHead::Own);

    let mut sparse = config();
    for key in
        ["num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_theta", "eos_token_id"]
    {
        sparse.as_object_mut().expect("object").remove(key);
    }
    let model = parsed(&sparse);
    assert_eq!((model.kv_heads, model.max_context), (4, 2048));
    assert!((model.rms_norm_eps - 1e-6).abs() < 1e-18);
    assert!((model.rope.theta - 10_000.0).abs() < 1e-9);
    assert!(model.eos_token_ids.is_empty());
}

#[test]
fn eos_is_one_id_or_a_list() {
    assert_eq!(parsed(&config_with("eos_token_id", json!([9, 3, 9]))).eos_token_ids, [3, 9]);
    assert_eq!(parsed(&config_with("eos_token_id", json!(null))).eos_token_ids, [0_u32; 0]);
    assert_eq!(
        refusal(&config_with("eos_token_id", json!([2, 32]))),
        "eos_token_id is 32; must be a token id below the vocabulary size 32"
    );
}

#[test]
fn rope_is_read_in_both_spellings() {
    let old = config_with(
        "rope_scaling",
        json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}),
    );
    let expected = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position: 8192,
    };
    assert_eq!(parsed(&old).rope.scaling, expected);

    let mut new = config();
    let keys = new.as_object_mut().expect("object");
    keys.remove("rope_scaling");
    keys.remove("rope_theta");
    keys.insert(
        "rope_parameters".to_owned(),
        json!({"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8, "low_freq_factor": 1,
               "high_freq_factor": 4, "original_max_position_embeddings": 8192}),
    );
    assert_eq!(parsed(&new).rope, parsed(&old).rope);

    let linear = config_with("rope_scaling", json!({"type": "linear", "factor": 2.5}));
    assert_eq!(parsed(&linear).rope.scaling, RopeScaling::Linear { factor: 2.5 });
    let both_spellings = config_with("rope_scaling", json!({"type": "default", "rope_type": "default"}));
    assert_eq!(parsed(&both_spellings).rope.scaling, RopeScaling::None);
}

#[test]
fn what_would_change_the_arithmetic_is_named_with_its_value() {
    let cases = [
        ("hidden_act", json!("gelu"), "hidden_act is \"gelu\"; must be \"silu\""),
        ("attention_bias", json!(true), "attention_bias is true; must be false"),
        ("mlp_bias", json!(true), "mlp_bias is true; must be false"),
        ("pretraining_tp", json!(2), "pretraining_tp is 2; must be 1"),
        ("sliding_window", json!(4096), "sliding_window is 4096; must be absent or null"),
        (
            "logits_scaling",
            json!(8.0),
            "key \"logits_scaling\" = 8.0 is unknown and could change the arithmetic",
        ),
        (
            "layer_types",
            json!(["sliding_attention"]),
            "layer_types is a list of 1 values; must be \"full_attention\" for every layer",
        ),
        ("model_type", json!("mistral"), "model_type is \"mistral\"; must be \"llama\""),
        ("num_key_value_heads", json!(3), "num_key_value_heads is 3; must be a divisor of 4 query heads"),
        ("head_dim", json!(3), "head_dim is 3; must be even"),
        ("num_hidden_layers", json!(0), "num_hidden_layers is 0; must be a whole number from 1 to 1024"),
        ("vocab_size", json!(-1), "vocab_size is -1; must be a whole number from 1 to 4194304"),
        (
            "hidden_size",
            json!(18_446_744_073_709_551_615_u64),
            "hidden_size is 18446744073709551615; must be a whole number from 1 to 131072",
        ),
        (
            "intermediate_size",
            json!(16.5),
            "intermediate_size is 16.5; must be a whole number from 1 to 1048576",
        ),
        ("rms_norm_eps", json!(0), "rms_norm_eps is 0; must be a number above 0 and at most 1"),
        (
            "quantization_config",
            json!({"quant_method": "fp8"}),
            "weights are quantised with \"fp8\"; supported: weights stored as F32, F16 or BF16",
        ),
        (
            "auto_map",
            json!({"AutoModel": "x.y"}),
            "auto_map asks to run code that ships with the model; sparkherd never does",
        ),
        (
            "architectures",
            json!(["Qwen3MoeForCausalLM"]),
            "architecture \"Qwen3MoeForCausalLM\" is not supported; supported: Llama, Mistral, Qwen2 and Qwen3, each \
             as …ForCausalLM or …Model",
        ),
        (
            "architectures",
            json!([]),
            "architecture a list of 0 values is not supported; supported: Llama, Mistral, Qwen2 and Qwen3, each as \
             …ForCausalLM or …Model",
        ),
        ("tie_word_embeddings", json!("yes"), "tie_word_embeddings is \"yes\"; must be true or false"),
    ];
    for (key, value, message) in cases {
        assert_eq!(refusal(&config_with(key, value)), message, "{key}");
    }
}

#[test]
fn an_unknown_rotation_is_named_with_its_value() {
    let cases = [
        (
            "rope_theta",
            json!("big"),
            "rope_theta is \"big\"; must be a number above 1 and at most 1000000000000",
        ),
        (
            "rope_scaling",
            json!({"rope_type": "dynamic", "factor": 4}),
            "rope_scaling.rope_type is \"dynamic\"; must be \"default\", \"linear\", \"llama3\" or \"yarn\"",
        ),
        (
            "rope_scaling",
            json!({"rope_type": "linear", "factor": 4, "beta_fast": 32}),
            "key \"rope_scaling.beta_fast\" = 32 is unknown and could change the arithmetic",
        ),
        (
            "rope_scaling",
            json!({"rope_type": "yarn", "factor": 4, "llama_4_scaling_beta": 0.1}),
            "key \"rope_scaling.llama_4_scaling_beta\" = 0.1 is unknown and could change the arithmetic",
        ),
        (
            "rope_scaling",
            json!({"rope_type": "yarn", "factor": 4, "beta_fast": 1, "beta_slow": 32}),
            "rope_scaling.beta_fast is 1.0; must be above beta_slow, 32",
        ),
        ("rope_scaling", json!({"rope_type": "linear"}), "key rope_scaling.factor is missing"),
        ("rope_scaling", json!({"factor": 2.0}), "key rope_scaling.rope_type is missing"),
        (
            "rope_scaling",
            json!({"type": "linear", "rope_type": "default"}),
            "rope_scaling.rope_type is \"default\"; must be the same as its old spelling, \"linear\"",
        ),
        (
            "rope_parameters",
            json!({"rope_type": "default", "rope_theta": 10.5}),
            "rope_theta is 500000.0; must be the same as rope_parameters.rope_theta, 10.5",
        ),
        (
            "rope_parameters",
            json!({"rope_type": "default", "partial_rotary_factor": 0.5}),
            "rope_parameters.partial_rotary_factor is 0.5; must be 1",
        ),
    ];
    for (key, value, message) in cases {
        assert_eq!(refusal(&config_with(key, value)), message, "{key}");
    }
}

#[test]
fn a_config_for_both_versions_of_transformers_must_choose() {
    let mut both = config_with("rope_scaling", json!({"rope_type": "linear", "factor": 2.0}));
    both["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 500_000.0});
    assert!(refusal(&both).contains("must be given in one of rope_scaling and rope_parameters"));
}

#[test]
fn a_key_said_twice_is_refused_at_any_depth() {
    let twice = |text: &str| ModelConfig::parse(text.as_bytes()).expect_err("refused").to_string();
    let outer = config().to_string().replacen('{', "{\"hidden_size\":8,", 1);
    assert!(twice(&outer).contains("key \"hidden_size\" occurs twice"), "{}", twice(&outer));
    let inner = config()
        .to_string()
        .replace("\"rope_scaling\":null", "\"rope_scaling\":{\"type\":\"linear\",\"factor\":1,\"factor\":2}");
    assert!(twice(&inner).contains("key \"factor\" occurs twice"), "{}", twice(&inner));
}

#[test]
fn hostile_text_is_cut_and_escaped_in_messages() {
    let long = format!("\u{1b}[31m{}", "x".repeat(100_000));
    for message in [
        refusal(&config_with(&long, json!(1))),
        refusal(&config_with("hidden_act", json!(long))),
        refusal(&config_with("architectures", json!([long]))),
    ] {
        assert!(message.len() < 400 && !message.contains('\u{1b}'), "{message}");
    }
}

#[test]
fn damage_is_told_apart_from_what_is_not_supported() {
    let damaged = ModelConfig::parse(b"{\"hidden_size\": 8").expect_err("refused");
    assert!(damaged.is_damage());
    let unsupported = ModelConfig::parse(config_with("hidden_act", json!("gelu")).to_string().as_bytes());
    assert!(matches!(unsupported, Err(ref error @ ConfigError::Value { .. }) if !error.is_damage()));
}

#[test]
fn generation_config_joins_the_ends_and_suggests_sampling() {
    let model = parsed(&config());
    let parse = |text: &str| GenerationConfig::parse(text.as_bytes(), &model);
    let suggested = parse(r#"{"eos_token_id": [5, 2], "do_sample": true, "temperature": 0.6, "top_p": 0.9, "top_k": 0, "pad_token_id": 0}"#).expect("valid");
    assert_eq!(suggested.eos_token_ids, [2, 5]);
    assert_eq!((suggested.do_sample, suggested.temperature), (Some(true), Some(0.6)));
    assert_eq!((suggested.top_p, suggested.top_k), (Some(0.9), None));
    assert_eq!(parse("{}").expect("valid"), GenerationConfig::of_config(&model));
    for bad in
        [r#"{"temperature": -1}"#, r#"{"top_p": 0}"#, r#"{"top_k": 1.5}"#, r#"{"eos_token_id": 32}"#, "[]"]
    {
        parse(bad).expect_err(bad);
    }
}
