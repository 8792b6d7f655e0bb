//! The example model under grammars, and as a source of vectors: what it says makes no sense, but has the form asked for.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Engine, MODEL, admitted};

const CONTEXT: u32 = 256;
const CONCURRENCY: u32 = 2;

fn start() -> (Engine, String) {
    let model_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/ask-sparkherd");
    let engine = Engine::start(&admitted(&model_dir.canonicalize().unwrap(), CONTEXT, CONCURRENCY), None);
    let url = engine.ready();
    (engine, url)
}

async fn post(url: &str, path: &str, mut body: Value) -> Value {
    body["model"] = json!(MODEL);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.post(format!("{url}{path}")).json(&body).send().await.unwrap().json().await.unwrap()
}

async fn chat(url: &str, mut body: Value) -> Value {
    body["messages"] = json!([{"role": "user", "content": "What is sparkherd?"}]);
    body["max_tokens"] = json!(160);
    post(url, "/v1/chat/completions", body).await
}

fn text(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test]
async fn answers_have_the_form_that_was_asked_for() {
    let (_engine, url) = start();
    let choice = chat(&url, json!({"structured_outputs": {"choice": ["spark", "herd"]}})).await;
    assert!(["spark", "herd"].contains(&text(&choice)), "{choice}");
    assert_eq!(choice["choices"][0]["finish_reason"], "stop");
    let regex = chat(&url, json!({"guided_regex": "[0-9]{3}-[a-f]{2}"})).await;
    let (digits, letters) = text(&regex).split_once('-').unwrap();
    assert!(digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit()), "{regex}");
    assert!(letters.len() == 2 && letters.bytes().all(|byte| (b'a'..=b'f').contains(&byte)), "{regex}");
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["ok", "size"],
        "properties": {"ok": {"type": "boolean"}, "size": {"enum": ["small", "large"]}},
    });
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}});
    for seed in 0..4 {
        let answer = chat(&url, json!({"response_format": format, "seed": seed})).await;
        assert_eq!(answer["choices"][0]["finish_reason"], "stop", "{answer}");
        let value: Value = serde_json::from_str(text(&answer)).unwrap();
        assert!(
            value["ok"].is_boolean() && ["small", "large"].contains(&value["size"].as_str().unwrap()),
            "{value}"
        );
    }
    let impossible = chat(&url, json!({"guided_json": {"type": "nothing"}})).await;
    assert_eq!(
        (&impossible["error"]["code"], &impossible["error"]["param"]),
        (&json!("invalid_grammar"), &json!("guided_json"))
    );
}

#[tokio::test]
async fn calls_are_forced_with_arguments_that_parse() {
    let (_engine, url) = start();
    let parameters = json!({
        "type": "object", "additionalProperties": false, "required": ["city"],
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
    });
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": parameters}}]);
    let named = json!({"type": "function", "function": {"name": "weather"}});
    for choice in [json!("required"), named] {
        let answer =
            chat(&url, json!({"tools": tools, "tool_choice": choice, "parallel_tool_calls": false})).await;
        let call = &answer["choices"][0]["message"]["tool_calls"][0]["function"];
        assert_eq!(call["name"], "weather", "{answer}");
        let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
        assert!(["Paris", "Rome"].contains(&arguments["city"].as_str().unwrap()), "{answer}");
        assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
    }
}

#[tokio::test]
async fn vectors_have_length_one_and_are_the_texts_own() {
    let (_engine, url) = start();
    for pooling in ["last", "mean"] {
        let body = json!({"input": ["spark", "herd", "spark"], "pooling": pooling});
        let answer = post(&url, "/v1/embeddings", body).await;
        let vectors: Vec<Vec<f64>> = answer["data"]
            .as_array()
            .unwrap_or_else(|| panic!("{answer}"))
            .iter()
            .map(|one| serde_json::from_value(one["embedding"].clone()).unwrap())
            .collect();
        for vector in &vectors {
            let length = vector.iter().map(|value| value * value).sum::<f64>().sqrt();
            assert!((length - 1.0).abs() < 1e-4, "{pooling}: {length}");
        }
        assert_eq!(vectors[0], vectors[2]);
        assert_ne!(vectors[0], vectors[1]);
    }
}

/// A prompt's tokens are as likely when they are judged as when they are sampled.
#[tokio::test]
async fn echoed_prompts_are_judged_as_the_answers_were() {
    let (_engine, url) = start();
    let body = json!({"prompt": "What is", "max_tokens": 6, "temperature": 0, "logprobs": 1, "return_token_ids": true});
    let first = post(&url, "/v1/completions", body).await;
    let choice = &first["choices"][0];
    let ids = |name: &str| choice[name].as_array().unwrap_or_else(|| panic!("{first}")).clone();
    let all = [ids("prompt_token_ids"), ids("token_ids")].concat();
    let body = json!({"prompt": all, "max_tokens": 0, "echo": true, "logprobs": 1});
    let second = post(&url, "/v1/completions", body).await;
    let judged =
        |answer: &Value| answer["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap().clone();
    let (sampled, echoed) = (judged(&first), judged(&second));
    assert_eq!((echoed.len(), &echoed[0]), (all.len(), &Value::Null));
    let echoed = &echoed[echoed.len() - sampled.len()..];
    for (sampled, echoed) in sampled.iter().zip(echoed) {
        assert!((sampled.as_f64().unwrap() - echoed.as_f64().unwrap()).abs() < 1e-3, "{first} {second}");
    }
}
