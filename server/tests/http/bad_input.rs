use reqwest::Response;
use serde_json::{Value, json};

use crate::harness::{KEY, MODEL, Server, audience};

/// Checks the error's shape and returns it as (status, code, param).
async fn refusal(response: Response) -> (u16, String, Option<String>) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let error = body["error"].as_object().unwrap_or_else(|| panic!("no error in {body}"));
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    assert_eq!(error.keys().collect::<Vec<_>>(), ["code", "message", "param", "type"], "{body}");
    assert!(!error["message"].as_str().unwrap().is_empty());
    let kind = if status < 500 { "invalid_request_error" } else { "server_error" };
    assert_eq!(error["type"], kind, "{body}");
    (status, error["code"].as_str().unwrap().to_owned(), error["param"].as_str().map(str::to_owned))
}

fn refused(status: u16, code: &str, param: Option<&str>) -> (u16, String, Option<String>) {
    (status, code.to_owned(), param.map(str::to_owned))
}

#[tokio::test]
async fn wrong_values_name_their_parameter() {
    let server = Server::start("").await;
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let deep: Box<serde_json::value::RawValue> = serde_json::from_str(&deep).unwrap();
    for (changes, param) in [
        (json!({"messages": "hi"}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": ["hi"]}), "messages[0]"),
        (json!({"messages": [{"role": 7, "content": "hi"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "king", "content": "hi"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user", "content": 7}]}), "messages[0].content"),
        (json!({"messages": [{"role": "user", "content": [7]}]}), "messages[0].content[0]"),
        (json!({"model": 7}), "model"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": 1.5}), "max_tokens"),
        (json!({"max_tokens": "9"}), "max_tokens"),
        (json!({"max_tokens": 1e300}), "max_tokens"),
        (json!({"max_completion_tokens": -9_000_000_000_i64}), "max_completion_tokens"),
        (json!({"temperature": -0.1}), "temperature"),
        (json!({"temperature": 2.1}), "temperature"),
        (json!({"temperature": 1e300}), "temperature"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"top_p": 1.5}), "top_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"top_k": 0.5}), "top_k"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"seed": 1e30}), "seed"),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop"),
        (json!({"stop": [""]}), "stop"),
        (json!({"stop": "x".repeat(257)}), "stop"),
        (json!({"stop": [7]}), "stop"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options"),
        (json!({"stream": true, "stream_options": {"include_usage": 1}}), "stream_options.include_usage"),
        (json!({"stream": true, "stream_options": [1]}), "stream_options"),
    ] {
        let context = changes.to_string();
        assert_eq!(
            refusal(server.chat(changes).await).await,
            refused(400, "invalid_value", Some(param)),
            "{context}"
        );
    }
    for prompt in [json!(7), json!(["a", "b"]), json!([[1], [2]]), json!([-1]), json!([1.5]), json!({})] {
        let context = prompt.to_string();
        let refusal = refusal(server.complete(json!({"prompt": prompt})).await).await;
        assert_eq!(refusal, refused(400, "invalid_value", Some("prompt")), "{context}");
    }
    let body = format!("{{\"model\": \"{MODEL}\", \"messages\": {deep}}}");
    let response = server.post("/v1/chat/completions").body(body).send().await.unwrap();
    assert_eq!(refusal(response).await, refused(400, "invalid_value", Some("messages[0]")));
}

#[tokio::test]
async fn what_is_not_offered_is_refused_by_name_and_its_neutral_value_is_taken() {
    let server = Server::start("").await;
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    for (param, refused_value, neutral) in [
        ("n", json!(2), json!(1)),
        ("tools", tool.clone(), json!([])),
        ("tool_choice", json!("required"), json!("auto")),
        ("response_format", json!({"type": "json_object"}), json!({"type": "text"})),
        ("logprobs", json!(true), json!(false)),
        ("top_logprobs", json!(3), json!(0)),
        ("presence_penalty", json!(0.5), json!(0)),
        ("frequency_penalty", json!(-0.5), json!(0.0)),
        ("repetition_penalty", json!(1.1), json!(1.0)),
        ("logit_bias", json!({"5": 1}), json!({})),
        ("min_p", json!(0.1), json!(0)),
        ("min_tokens", json!(4), json!(0)),
        ("ignore_eos", json!(true), json!(false)),
        ("stop_token_ids", json!([2]), json!([])),
        ("structured_outputs", json!({"json": {}}), json!(null)),
        ("chat_template_kwargs", json!({"enable_thinking": false}), json!({})),
        ("reasoning_effort", json!("high"), json!("none")),
        ("store", json!(true), json!(false)),
        ("service_tier", json!("flex"), json!("auto")),
        ("modalities", json!(["text", "audio"]), json!(["text"])),
        ("audio", json!({"voice": "ash"}), json!(null)),
        ("functions", json!([{"name": "f"}]), json!([])),
        ("best_of", json!(2), json!(1)),
        ("echo", json!(true), json!(false)),
        ("suffix", json!("end"), json!("")),
    ] {
        let refusal = refusal(server.chat(json!({ param: refused_value })).await).await;
        assert_eq!(refusal, refused(400, "unsupported_parameter", Some(param)));
        let taken = server.chat(json!({ param: neutral })).await;
        assert_eq!(
            (taken.status().as_u16(), taken.headers().get("x-sparkherd-ignored")),
            (200, None),
            "{param}"
        );
    }
    assert_eq!(server.chat(json!({"tools": tool, "tool_choice": "none"})).await.status(), 200);
    for (message, param) in [
        (json!({"role": "tool", "content": "42", "tool_call_id": "x"}), "messages[0].role"),
        (json!({"role": "assistant", "content": "", "tool_calls": [{}]}), "messages[0].tool_calls"),
        (
            json!({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}),
            "messages[0].content[0].type",
        ),
    ] {
        let refusal = refusal(server.chat(json!({"messages": [message]})).await).await;
        assert_eq!(refusal, refused(400, "unsupported_parameter", Some(param)));
    }
}

#[tokio::test]
async fn bodies_that_are_no_request() {
    let server = Server::start("").await;
    let send = async |body: Vec<u8>| {
        refusal(server.post("/v1/chat/completions").body(body).send().await.unwrap()).await
    };
    let bad_json = refused(400, "invalid_json", None);
    for body in
        [&b""[..], b"{", b"{\"model\": }", b"[]", b"\"hi\"", b"7", b"null", b"\xff\xfe", b"{\"a\":1}x"]
    {
        assert_eq!(send(body.to_vec()).await, bad_json, "{}", String::from_utf8_lossy(body));
    }
    assert_eq!(send("[".repeat(60_000).into_bytes()).await, bad_json);
    assert_eq!(send(b"{}".to_vec()).await, refused(400, "missing_required_parameter", Some("model")));
    let without_messages = format!("{{\"model\": \"{MODEL}\"}}").into_bytes();
    assert_eq!(send(without_messages).await, refused(400, "missing_required_parameter", Some("messages")));
    assert_eq!(send(vec![b' '; (8 << 20) + 1]).await, refused(413, "request_too_large", None));
    // What this context of 64 tokens cannot need is not read, but is an error about the context.
    let too_long = refused(400, "context_length_exceeded", None);
    let limit = (64 << 10) + 32 * 64;
    assert_eq!(send(vec![b' '; 8 << 20]).await, too_long);
    assert_eq!(send(vec![b' '; limit + 1]).await, too_long);
    assert_eq!(send(vec![b' '; limit]).await, bad_json);
    assert_eq!(server.chat(json!({})).await.status(), 200, "the server goes on");
}

#[tokio::test]
async fn chunked_bodies_are_bounded_as_well() {
    let server = Server::start("").await;
    let chunks = futures::stream::iter((0..9).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1 << 20])));
    let request = server.post("/v1/chat/completions").body(reqwest::Body::wrap_stream(chunks));
    assert_eq!(refusal(request.send().await.unwrap()).await, refused(413, "request_too_large", None));
}

#[tokio::test]
async fn prompts_that_do_not_fit_say_so_in_numbers() {
    let server = Server::start("").await;
    let long = "x".repeat(64);
    let response = server.chat(json!({"messages": [{"role": "user", "content": long}]})).await;
    assert_eq!(refusal(response).await, refused(400, "context_length_exceeded", Some("messages")));
    let response = server.complete(json!({"prompt": long})).await;
    let body: Value = response.json().await.unwrap();
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("64 tokens"), "{message}");
    let fits = server.complete(json!({"prompt": "x".repeat(63), "max_tokens": u64::MAX})).await;
    let body: Value = fits.json().await.unwrap();
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    assert_eq!(body["usage"]["completion_tokens"], 1, "clamped to what the context leaves");
    for prompt in [json!(""), json!([]), json!([4_000_000_000_u32])] {
        let refusal = refusal(server.complete(json!({"prompt": prompt})).await).await;
        assert_eq!(refusal, refused(400, "invalid_prompt", Some("prompt")));
    }
}

#[tokio::test]
async fn keys_and_models() {
    let server = Server::start("").await;
    let request = |path: &str| server.client.post(format!("{}{path}", server.url)).body("{");
    for path in ["/v1/chat/completions", "/v1/completions"] {
        let missing = request(path).send().await.unwrap();
        assert_eq!(refusal(missing).await, refused(401, "invalid_api_key", None));
        let wrong = request(path).bearer_auth("sk-spark-other").send().await.unwrap();
        let text = wrong.text().await.unwrap();
        assert!(text.contains("invalid_api_key") && !text.contains("sk-spark-other"), "{text}");
        // A key is looked at before the body.
        let right = request(path).header("x-api-key", KEY).send().await.unwrap();
        assert_eq!(refusal(right).await, refused(400, "invalid_json", None));
    }
    for path in ["/v1/models", "/v1/models/coder"] {
        let response = server.client.get(format!("{}{path}", server.url)).send().await.unwrap();
        assert_eq!(refusal(response).await, refused(401, "invalid_api_key", None));
    }
    for path in ["/healthz", "/metrics", "/version"] {
        let response = server.client.get(format!("{}{path}", server.url)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path} needs no key");
    }
    let unknown = refused(404, "model_not_found", Some("model"));
    assert_eq!(refusal(server.chat(json!({"model": "other"})).await).await, unknown);
    assert_eq!(refusal(server.get("/v1/models/other").send().await.unwrap()).await, unknown);
    server.service.set_audience(audience(&["sk-spark-new"]));
    assert_eq!(refusal(server.chat(json!({})).await).await, refused(401, "invalid_api_key", None));
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods() {
    let server = Server::start("").await;
    for path in ["/", "/v1", "/v1/embeddings", "/v1/chat/completions/x", "/healthz/x", "/%00"] {
        let response = server.get(path).send().await.unwrap();
        assert_eq!(refusal(response).await, refused(404, "unknown_url", None), "{path}");
    }
    for (path, allowed) in [("/v1/chat/completions", "POST"), ("/v1/completions", "POST")] {
        let response = server.get(path).send().await.unwrap();
        assert_eq!(response.headers()["allow"], allowed);
        assert_eq!(refusal(response).await, refused(405, "method_not_supported", None), "{path}");
    }
    for path in ["/v1/models", "/v1/models/coder", "/healthz", "/metrics", "/version"] {
        let response = server.post(path).send().await.unwrap();
        assert_eq!(response.headers()["allow"], "GET");
        assert_eq!(refusal(response).await, refused(405, "method_not_supported", None), "{path}");
    }
}

#[tokio::test]
async fn headers_are_bounded() {
    let server = Server::start("").await;
    let response = server.get("/healthz").header("x-long", "x".repeat(17 << 10)).send().await.unwrap();
    assert_eq!(response.status(), 431);
    assert_eq!(server.get("/healthz").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn errors_and_metrics_carry_no_words_of_a_prompt() {
    let server = Server::start("").await;
    let secret = "rhubarb";
    for changes in [
        json!({"messages": [{"role": "user", "content": [secret]}]}),
        json!({"messages": secret}),
        json!({"stop": [secret, 7]}),
        json!({"messages": [{"role": "user", "content": secret.repeat(20)}]}),
        json!({"temperature": secret}),
        json!({"logit_bias": secret}),
    ] {
        let response = server.chat(changes).await;
        assert_eq!(response.status(), 400);
        let text = response.text().await.unwrap();
        assert!(!text.contains(secret), "{text}");
    }
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("sparkherd_engine_requests_rejected_total") && !metrics.contains(secret));
}
