//! A checkpoint without an output head, as embedding models are published: it serves vectors, and says so where it is asked
//! for words.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::harness::{Engine, MODEL, admitted};

const CONTEXT: u32 = 128;

/// A Qwen3 of random weights, tied to its embedding.
fn whole() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/goldens/tiny-qwen3-bf16")
}

/// The same as a bare decoder: names without their prefix, and nothing that says where logits would come from.
fn write_bare(directory: &Path) {
    let read = |name: &str| fs::read(whole().join(name)).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        fs::write(directory.join(name), read(name)).unwrap();
    }
    let mut config: Value = serde_json::from_slice(&read("config.json")).unwrap();
    config["architectures"] = json!(["Qwen3Model"]);
    config["tie_word_embeddings"] = json!(false);
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let file = read("model.safetensors");
    let (length, rest) = file.split_first_chunk::<8>().unwrap();
    let (header, tensors) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
    let header: Map<String, Value> = serde_json::from_slice(header).unwrap();
    let bare = |name: String| name.strip_prefix("model.").map(str::to_owned).unwrap_or(name);
    let header: Map<String, Value> = header.into_iter().map(|(name, tensor)| (bare(name), tensor)).collect();
    let header = Value::Object(header).to_string();
    let length = u64::try_from(header.len()).unwrap().to_le_bytes();
    fs::write(directory.join("model.safetensors"), [&length, header.as_bytes(), tensors].concat()).unwrap();
}

async fn post(url: &str, path: &str, mut body: Value) -> (u16, Value) {
    body["model"] = json!(MODEL);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = client.post(format!("{url}{path}")).json(&body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn a_model_without_an_output_head_serves_vectors_and_refuses_words() {
    let directory = tempfile::tempdir().unwrap();
    write_bare(directory.path());
    let bare = Engine::start(&admitted(directory.path(), CONTEXT, 2), None);
    let tied = Engine::start(&admitted(&whole(), CONTEXT, 2), None);
    let (bare, tied) = ((bare.ready(), bare), (tied.ready(), tied));
    let url = &bare.0;
    for pooling in ["last", "mean"] {
        let body = json!({"input": ["spark", "a longer text about sparks"], "pooling": pooling});
        let (status, answer) = post(url, "/v1/embeddings", body.clone()).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["data"], post(&tied.0, "/v1/embeddings", body).await.1["data"]);
    }
    let messages = json!([{"role": "user", "content": "hi"}]);
    for (path, body) in [
        ("/v1/chat/completions", json!({"messages": messages})),
        ("/v1/chat/completions", json!({"messages": messages, "stream": true})),
        ("/v1/completions", json!({"prompt": "hi"})),
        ("/v1/completions", json!({"prompt": "hi", "max_tokens": 0, "echo": true, "logprobs": 1})),
    ] {
        let (status, answer) = post(url, path, body).await;
        let error = &answer["error"];
        assert_eq!(
            (status, &error["code"], &error["param"]),
            (400, &json!("unsupported_value"), &json!("model"))
        );
        assert!(error["message"].as_str().unwrap().contains("use /v1/embeddings"), "{answer}");
    }
    let (status, answer) = post(url, "/tokenize", json!({"prompt": "spark"})).await;
    assert_eq!(status, 200, "{answer}");
    let models: Value = reqwest::get(format!("{url}/v1/models")).await.unwrap().json().await.unwrap();
    assert_eq!(models["data"][0]["id"], MODEL);
    assert_eq!(reqwest::get(format!("{url}/healthz")).await.unwrap().status(), 200);
}
