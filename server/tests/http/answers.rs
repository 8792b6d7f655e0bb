use serde_json::{Value, json};

use crate::harness::{ALIAS, INCARNATION, MODEL, Server};

#[tokio::test]
async fn a_chat_answer_has_openais_shape() {
    let server = Server::start("answer \"one two three\"").await;
    let response = server
        .chat(json!({"messages": [
            {"role": "developer", "content": "be brief", "name": "lab"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "", "refusal": null, "tool_calls": []},
            {"role": "assistant", "content": null, "reasoning": "why", "tool_calls": [
                {"id": "1", "type": "function", "index": 0, "function": {"name": "f", "arguments": "{}"}},
            ]},
            {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "a"}]},
        ]}))
        .await;
    assert_eq!(response.status(), 200);
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(response.headers()["content-type"], "application/json");
    assert!(id.starts_with("chatcmpl-") && !id.contains(INCARNATION), "{id}");
    let body: Value = response.json().await.unwrap();
    let expected = json!({
        "id": id,
        "object": "chat.completion",
        "created": 1_800_000_000,
        "model": MODEL,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "one two three", "refusal": null},
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": "be brief".len() + "ab".len() + "a".len(),
            "completion_tokens": 3,
            "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
        "system_fingerprint": null,
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_completion_has_openais_shape() {
    let server = Server::start("answer \"one two three\"").await;
    for prompt in [json!("hi"), json!(["hi"]), json!([104, 105]), json!([[104, 105]])] {
        let body: Value =
            server.complete(json!({"prompt": prompt, "max_tokens": 2})).await.json().await.unwrap();
        assert!(body["id"].as_str().unwrap().starts_with("cmpl-"));
        assert_eq!(body["object"], "text_completion");
        let choice = json!({"index": 0, "text": "one two ", "logprobs": null, "finish_reason": "length"});
        assert_eq!(body["choices"], json!([choice]));
        assert_eq!((&body["usage"]["prompt_tokens"], &body["usage"]["total_tokens"]), (&json!(2), &json!(4)));
    }
    let many = "answer ".repeat(20);
    let server = Server::start(&format!("answer {}", json!(many))).await;
    let body: Value = server.complete(json!({})).await.json().await.unwrap();
    assert_eq!(body["usage"]["completion_tokens"], 16, "OpenAI's default for this endpoint");
}

#[tokio::test]
async fn limits_and_stops_are_honoured() {
    let server = Server::start("answer \"one two three four\"").await;
    for (changes, text, reason) in [
        (json!({"max_tokens": 1}), "one ", "length"),
        (json!({"max_completion_tokens": 2, "max_tokens": 1}), "one two ", "length"),
        (json!({"max_tokens": 32_000}), "one two three four", "stop"),
        (json!({"stop": "three"}), "one two ", "stop"),
        (json!({"stop": ["four", " two"], "max_tokens": null}), "one", "stop"),
        (
            json!({"temperature": 0, "top_p": 0.5, "top_k": -1, "seed": -3, "user": "u"}),
            "one two three four",
            "stop",
        ),
        (
            json!({"seed": u64::MAX, "metadata": {"a": "b"}, "prompt_cache_key": "k"}),
            "one two three four",
            "stop",
        ),
    ] {
        let context = changes.to_string();
        let body: Value = server.chat(changes).await.json().await.unwrap();
        assert_eq!(body["choices"][0]["message"]["content"], text, "{context}: {body}");
        assert_eq!(body["choices"][0]["finish_reason"], reason, "{context}");
    }
}

#[tokio::test]
async fn unknown_fields_are_listed() {
    let server = Server::start("").await;
    let response = server
        .chat(json!({
            "zeal": {"deep": [1]},
            "né,w\n": 1,
            "stream_optoins": null,
            "messages": [{"role": "user", "content": "hi", "mood": "good"}],
        }))
        .await;
    assert_eq!(response.status(), 200);
    let ignored = response.headers()["x-sparkherd-ignored"].to_str().unwrap().to_owned();
    assert_eq!(ignored, "messages[0].mood, n??w?, stream_optoins, zeal");
    let many: serde_json::Map<_, _> = (0..100).map(|index| (format!("field_{index:03}"), json!(1))).collect();
    let response = server.chat(Value::Object(many)).await;
    let ignored = response.headers()["x-sparkherd-ignored"].to_str().unwrap().to_owned();
    assert!(ignored.ends_with("field_015, ..."), "{ignored}");
}

#[tokio::test]
async fn models_are_listed_and_shown() {
    let server = Server::start("").await;
    let body: Value = server.get("/v1/models").send().await.unwrap().json().await.unwrap();
    let model = |id: &str| json!({"id": id, "object": "model", "created": 1_800_000_000, "owned_by": "sparkherd", "max_model_len": 64});
    assert_eq!(body, json!({"object": "list", "data": [model(MODEL), model(ALIAS)]}));
    for path in ["/v1/models/openai/gpt-oss-20b", "/v1/models/openai%2Fgpt-oss-20b"] {
        let body: Value = server.get(path).send().await.unwrap().json().await.unwrap();
        assert_eq!(body, model(ALIAS));
    }
    let body: Value = server.chat(json!({"model": ALIAS})).await.json().await.unwrap();
    assert_eq!(body["model"], ALIAS, "answers carry the name that was asked for");
}

#[tokio::test]
async fn metrics_have_our_names_and_vllms() {
    let server = Server::start("answer \"one two three\"").await;
    server.chat(json!({"max_tokens": 2})).await;
    let label = format!("model_name=\"{MODEL}\"");
    // The harness's own generation and this one.
    for (series, value) in [
        (format!("sparkherd_engine_prompt_tokens_total{{{label}}}"), 4.0),
        (format!("vllm:prompt_tokens_total{{{label}}}"), 4.0),
        (format!("sparkherd_engine_generated_tokens_total{{{label}}}"), 5.0),
        (format!("vllm:generation_tokens_total{{{label}}}"), 5.0),
        (format!("sparkherd_engine_held_bytes{{{label}}}"), 4096.0),
        (format!("vllm:num_requests_running{{{label}}}"), 0.0),
        (format!("vllm:num_requests_waiting{{{label}}}"), 0.0),
        (format!("vllm:kv_cache_usage_perc{{{label}}}"), 0.0),
        (format!("vllm:request_success_total{{finished_reason=\"stop\",{label}}}"), 1.0),
        (format!("vllm:request_success_total{{finished_reason=\"length\",{label}}}"), 1.0),
        (format!("vllm:time_to_first_token_seconds_count{{{label}}}"), 2.0),
        (format!("vllm:inter_token_latency_seconds_count{{{label}}}"), 3.0),
        (format!("vllm:e2e_request_latency_seconds_count{{{label}}}"), 2.0),
        (format!("vllm:request_prompt_tokens_sum{{{label}}}"), 4.0),
        (format!("vllm:request_generation_tokens_sum{{{label}}}"), 5.0),
    ] {
        assert!((server.metric(&series).await - value).abs() < f64::EPSILON, "{series} is not {value}");
    }
}
