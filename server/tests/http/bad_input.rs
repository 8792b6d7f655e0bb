use serde_json::{Value, json};

use crate::harness::{KEY, MODEL, Server, audience, refusal, refused};

/// Each of these changes to a good request is refused, by the name beside it.
async fn assert_invalid(server: &Server, cases: impl IntoIterator<Item = (Value, &'static str)>) {
    for (changes, param) in cases {
        let context = changes.to_string();
        let refusal = refusal(server.chat(changes).await).await;
        assert_eq!(refusal, refused(400, "invalid_value", Some(param)), "{context}");
    }
}

#[tokio::test]
async fn wrong_conversations_name_their_place() {
    let server = Server::start("").await;
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    assert_invalid(
        &server,
        [
            (json!({"messages": "hi"}), "messages"),
            (json!({"messages": []}), "messages"),
            (json!({"messages": ["hi"]}), "messages[0]"),
            (json!({"messages": [{"role": 7, "content": "hi"}]}), "messages[0].role"),
            (json!({"messages": [{"role": "king", "content": "hi"}]}), "messages[0].role"),
            (json!({"messages": [{"role": "user", "content": 7}]}), "messages[0].content"),
            (json!({"messages": [{"role": "user", "content": [7]}]}), "messages[0].content[0]"),
            (json!({"reasoning_effort": "extreme"}), "reasoning_effort"),
            (json!({"chat_template_kwargs": []}), "chat_template_kwargs"),
            (json!({"chat_template_kwargs": {"a": "x".repeat(16 << 10)}}), "chat_template_kwargs"),
            (json!({"add_generation_prompt": true, "continue_final_message": true}), "add_generation_prompt"),
            (json!({"tools": {}, "tool_choice": "some"}), "tool_choice"),
            (json!({"tools": [{"type": "function", "function": {"name": ""}}]}), "tools[0].function.name"),
            (json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}), "tools[0].function.name"),
            (
                json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": 1}}]}),
                "tools[0].function.parameters",
            ),
            (json!({"tools": vec![json!({"type": "function", "function": {"name": "f"}}); 129]}), "tools"),
            (json!({"response_format": "json"}), "response_format"),
            (json!({"response_format": {"type": "xml"}}), "response_format.type"),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "strict": 1}}}),
                "response_format.json_schema.strict",
            ),
            (json!({"structured_outputs": {}}), "structured_outputs"),
            (json!({"structured_outputs": {"regex": "a", "choice": ["a"]}}), "structured_outputs"),
            (json!({"structured_outputs": {"choice": "a"}}), "structured_outputs.choice"),
            (json!({"guided_regex": 7}), "guided_regex"),
            (json!({"guided_regex": "a", "guided_json": {}}), "guided_regex"),
            (json!({"tool_choice": "required"}), "tool_choice"),
            (
                json!({"tool_choice": {"type": "function", "function": {"name": "f"}}}),
                "tool_choice.function.name",
            ),
            (json!({"messages": [{"role": "assistant", "tool_calls": [7]}]}), "messages[0].tool_calls[0]"),
            (
                json!({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}}),
                "tool_choice.allowed_tools.tools",
            ),
            (
                json!({"tools": tool, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": tool}}}),
                "tool_choice.allowed_tools.mode",
            ),
            (
                json!({"tools": tool, "tool_choice": {"type": "allowed_tools", "allowed_tools": {
                    "mode": "auto", "tools": [{"type": "function", "function": {"name": "g"}}],
                }}}),
                "tool_choice.allowed_tools.tools[0].function.name",
            ),
        ],
    )
    .await;
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let body = format!("{{\"model\": \"{MODEL}\", \"messages\": {deep}}}");
    let response = server.post("/v1/chat/completions").body(body).send().await.unwrap();
    assert_eq!(refusal(response).await, refused(400, "invalid_value", Some("messages[0]")));
}

#[tokio::test]
async fn wrong_values_name_their_parameter() {
    let server = Server::start("").await;
    let biases: Value = (0..1025).map(|token| (token.to_string(), json!(1))).collect();
    assert_invalid(
        &server,
        [
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
            (json!({"n": 0}), "n"),
            (json!({"n": 9}), "n"),
            (json!({"min_p": 1.5}), "min_p"),
            (json!({"repetition_penalty": 0}), "repetition_penalty"),
            (json!({"repetition_penalty": 1e-39}), "repetition_penalty"),
            (json!({"repetition_penalty": 2.5}), "repetition_penalty"),
            (json!({"presence_penalty": -2.5}), "presence_penalty"),
            (json!({"frequency_penalty": 2.5}), "frequency_penalty"),
            (json!({"logit_bias": {"a": 1}}), "logit_bias"),
            (json!({"logit_bias": {"1": 101}}), "logit_bias"),
            (json!({"logit_bias": {"4000000000": 1}}), "logit_bias"),
            (json!({"logit_bias": biases}), "logit_bias"),
            (json!({"stop_token_ids": [-1]}), "stop_token_ids"),
            (json!({"stop_token_ids": [4_000_000_000_u32]}), "stop_token_ids"),
            (json!({"stop_token_ids": vec![1; 129]}), "stop_token_ids"),
            (json!({"min_tokens": 5, "max_tokens": 4}), "min_tokens"),
            (json!({"ignore_eos": 1}), "ignore_eos"),
            (json!({"logprobs": 1}), "logprobs"),
            (json!({"top_logprobs": 1}), "top_logprobs"),
            (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
            (json!({"service_tier": "gold"}), "service_tier"),
            (json!({"priority": "high"}), "priority"),
            (json!({"user": 7}), "user"),
            (json!({"user": "x".repeat(1025)}), "user"),
            (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop"),
            (json!({"stop": [""]}), "stop"),
            (json!({"stop": "x".repeat(257)}), "stop"),
            (json!({"stop": [7]}), "stop"),
            (json!({"stream": "yes"}), "stream"),
            (json!({"stream_options": {"include_usage": true}}), "stream_options"),
            (json!({"stream": true, "stream_options": {"include_usage": 1}}), "stream_options.include_usage"),
            (json!({"stream": true, "stream_options": [1]}), "stream_options"),
        ],
    )
    .await;
}

#[tokio::test]
async fn wrong_completions_name_their_parameter() {
    let server = Server::start("").await;
    let (deep_list, many) = (json!([[[1]]]), json!(vec!["a"; 65]));
    for prompt in [json!(7), json!(["a", 1]), deep_list, many, json!([-1]), json!([1.5]), json!({})] {
        let context = prompt.to_string();
        let refusal = refusal(server.complete(json!({"prompt": prompt})).await).await;
        assert_eq!(refusal, refused(400, "invalid_value", Some("prompt")), "{context}");
    }
    for (changes, param) in [(json!({"max_tokens": 0}), "max_tokens"), (json!({"logprobs": 21}), "logprobs")]
    {
        let refusal = refusal(server.complete(changes).await).await;
        assert_eq!(refusal, refused(400, "invalid_value", Some(param)));
    }
}

#[tokio::test]
async fn what_is_not_offered_is_refused_by_name_and_its_neutral_value_is_taken() {
    let server = Server::start("").await;
    for (param, refused_value, neutral) in [
        ("modalities", json!(["text", "audio"]), json!(["text"])),
        ("audio", json!({"voice": "ash"}), json!(null)),
        ("functions", json!([{"name": "f"}]), json!([])),
        ("function_call", json!("auto"), json!("none")),
        ("best_of", json!(2), json!(1)),
        ("echo", json!(true), json!(false)),
        ("suffix", json!("end"), json!("")),
        ("prompt_logprobs", json!(0), json!(null)),
        ("use_beam_search", json!(true), json!(false)),
        ("bad_words", json!(["x"]), json!([])),
        ("verbosity", json!("high"), json!("medium")),
        ("chat_template", json!("{{ messages }}"), json!(null)),
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
    let custom = json!({"tool_choice": {"type": "custom", "custom": {"name": "f"}}});
    let refusal_of_custom = refusal(server.chat(custom).await).await;
    assert_eq!(refusal_of_custom, refused(400, "unsupported_parameter", Some("tool_choice.type")));
    for (message, param) in [
        (json!({"role": "function", "name": "f", "content": "42"}), "messages[0].role"),
        (json!({"role": "assistant", "content": "", "function_call": {}}), "messages[0].function_call"),
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
async fn forms_that_cannot_be_followed_say_whose_they_are() {
    let server = Server::start("").await;
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    let schema = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}});
    // The fake engine follows none.
    for (changes, param) in [
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
        (json!({"response_format": schema.clone(), "tools": tool, "tool_choice": "none"}), "response_format"),
        (json!({"response_format": schema, "tools": tool}), "response_format"),
        (json!({"response_format": schema, "tools": tool, "tool_choice": "required"}), "tools"),
        (json!({"structured_outputs": {"json": {"type": "object"}}}), "structured_outputs"),
        (json!({"structured_outputs": {"json_object": true}}), "structured_outputs"),
        (json!({"guided_choice": ["a", "b"]}), "guided_choice"),
        (json!({"guided_json": "{}"}), "guided_json"),
        (json!({"tools": tool, "tool_choice": "required"}), "tools"),
        (json!({"tools": tool, "tool_choice": {"type": "function", "function": {"name": "f"}}}), "tools"),
    ] {
        let context = changes.to_string();
        let refusal = refusal(server.chat(changes).await).await;
        assert_eq!(refusal, refused(400, "invalid_grammar", Some(param)), "{context}");
    }
    assert_eq!(server.chat(json!({"response_format": {"type": "text"}})).await.status(), 200);
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
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokenize", "/detokenize"] {
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
    for path in ["/", "/v1", "/v1/images", "/v1/chat/completions/x", "/healthz/x", "/%00"] {
        let response = server.get(path).send().await.unwrap();
        assert_eq!(refusal(response).await, refused(404, "unknown_url", None), "{path}");
    }
    for (path, allowed) in
        [("/v1/chat/completions", "POST"), ("/v1/completions", "POST"), ("/tokenize", "POST")]
    {
        let response = server.get(path).send().await.unwrap();
        assert_eq!(response.headers()["allow"], allowed);
        assert_eq!(refusal(response).await, refused(405, "method_not_supported", None), "{path}");
    }
    for path in ["/v1/models", "/v1/models/coder", "/healthz", "/metrics", "/version", "/openapi.json"] {
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
