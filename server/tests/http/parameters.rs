//! What each parameter does to an answer.

use serde_json::{Value, json};
use sparkherd_server::ConnectionLimits;

use crate::harness::{MODEL, Server, events, refusal, refused};

/// The first token that is a word of the answer.
const FIRST_WORD: u32 = 0x11_0000;

async fn chat(server: &Server, changes: Value) -> Value {
    let response = server.chat(changes).await;
    assert_eq!(response.headers().get("x-sparkherd-ignored"), None);
    response.json().await.unwrap()
}

#[tokio::test]
async fn ends() {
    let server = Server::start("answer \"one two three\"").await;
    for (changes, text, reason, tokens) in [
        (json!({"ignore_eos": true, "max_tokens": 5}), "one two threeone two ", "length", 5),
        (json!({"stop_token_ids": [FIRST_WORD + 1]}), "one ", "stop", 1),
        (json!({"max_tokens": 1, "min_tokens": 1}), "one ", "length", 1),
        (json!({"stop": "o"}), "", "stop", 0),
    ] {
        let body = chat(&server, changes).await;
        let choice = &body["choices"][0];
        assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(text), &json!(reason)));
        assert_eq!(body["usage"]["completion_tokens"], tokens, "{body}");
    }
}

#[tokio::test]
async fn several_choices_are_counted_once_by_prompt_and_each_by_answer() {
    let server = Server::start("answer \"one two\"").await;
    let body = chat(&server, json!({"n": 3, "best_of": 3})).await;
    let indices: Vec<&Value> =
        body["choices"].as_array().unwrap().iter().map(|choice| &choice["index"]).collect();
    assert_eq!(indices, [0, 1, 2]);
    assert_eq!(
        (&body["usage"]["prompt_tokens"], &body["usage"]["completion_tokens"]),
        (&json!(2), &json!(6))
    );
    let completion = json!({"prompt": ["hi", "you"], "n": 2, "max_tokens": 1, "echo": true});
    let body: Value = server.complete(completion).await.json().await.unwrap();
    let texts: Vec<&Value> =
        body["choices"].as_array().unwrap().iter().map(|choice| &choice["text"]).collect();
    assert_eq!(texts, ["hione ", "hione ", "youone ", "youone "]);
    assert_eq!(
        (&body["usage"]["prompt_tokens"], &body["usage"]["completion_tokens"]),
        (&json!(5), &json!(4))
    );
}

#[tokio::test]
async fn several_choices_are_streamed_side_by_side() {
    let server = Server::start("answer \"one two\"").await;
    let asked = json!({"n": 2, "stream": true, "stream_options": {"include_usage": true}});
    let (payloads, complete) = events(server.chat(asked).await).await;
    assert!(complete && payloads.last().is_some_and(|last| last == "[DONE]"));
    let chunks: Vec<Value> =
        payloads[..payloads.len() - 1].iter().map(|payload| serde_json::from_str(payload).unwrap()).collect();
    for index in 0..2 {
        let own = chunks.iter().filter(|chunk| chunk["choices"][0]["index"] == index);
        let deltas: Vec<&Value> = own.map(|chunk| &chunk["choices"][0]["delta"]).collect();
        let expected = [
            json!({"role": "assistant", "content": ""}),
            json!({"content": "one "}),
            json!({"content": "two"}),
            json!({}),
        ];
        assert_eq!(deltas, expected.iter().collect::<Vec<_>>(), "choice {index}");
    }
    let usages: Vec<&Value> =
        chunks.iter().map(|chunk| &chunk["usage"]).filter(|usage| !usage.is_null()).collect();
    assert_eq!(usages.len(), 1);
    assert_eq!(usages[0]["completion_tokens"], 4);
}

#[tokio::test]
async fn chat_tells_logprobs_with_bytes() {
    let server = Server::start("answer \"né two\"").await;
    let token =
        |text: &str, logprob: f32| json!({"token": text, "logprob": logprob, "bytes": text.as_bytes()});
    let judged = |text: &str, other: &str| {
        let mut judged = token(text, -0.5);
        judged["top_logprobs"] = json!([token(text, -0.5), token(other, -1.0)]);
        judged
    };
    let expected = [judged("né ", "two"), judged("two", "né ")];
    let body = chat(&server, json!({"logprobs": true, "top_logprobs": 2})).await;
    assert_eq!(body["choices"][0]["logprobs"], json!({"content": expected, "refusal": null}));
    let asked = json!({"logprobs": true, "top_logprobs": 2, "stream": true});
    let (payloads, _) = events(server.chat(asked).await).await;
    let chunks = payloads[1..3].iter().map(|payload| serde_json::from_str::<Value>(payload).unwrap());
    let streamed: Vec<Value> =
        chunks.map(|chunk| chunk["choices"][0]["logprobs"]["content"][0].clone()).collect();
    assert_eq!(streamed, expected);
    let body = chat(&server, json!({"logprobs": true, "max_tokens": 1})).await;
    assert_eq!(body["choices"][0]["logprobs"]["content"][0]["top_logprobs"], json!([]));
}

#[tokio::test]
async fn completions_judge_their_prompt_too() {
    let server = Server::start("answer \"one two\"").await;
    let expected = json!({
        "tokens": ["h", "é", "one "],
        "token_logprobs": [null, -0.5, -0.5],
        "top_logprobs": [null, {"é": -0.5}, {"one ": -0.5}],
        "text_offset": [0, 1, 2],
    });
    let asked = json!({"prompt": "hé", "echo": true, "logprobs": 0, "max_tokens": 1});
    let body: Value = server.complete(asked.clone()).await.json().await.unwrap();
    assert_eq!((&body["choices"][0]["text"], &body["choices"][0]["logprobs"]), (&json!("héone "), &expected));
    // What evaluation harnesses send: tokens, and no answer wanted.
    let asked = json!({"prompt": [104, 233], "echo": true, "logprobs": 1, "max_tokens": 0});
    let body: Value = server.complete(asked).await.json().await.unwrap();
    let choice = &body["choices"][0];
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!("hé"), &json!("length")));
    assert_eq!(choice["logprobs"]["tokens"], json!(["h", "é"]));
    assert_eq!(body["usage"]["completion_tokens"], 0);
    let asked = json!({"prompt": "hé", "echo": true, "logprobs": 0, "max_tokens": 1, "stream": true});
    let (payloads, _) = events(server.complete(asked).await).await;
    let texts: Vec<Value> = payloads[..payloads.len() - 1]
        .iter()
        .map(|payload| serde_json::from_str::<Value>(payload).unwrap()["choices"][0]["text"].clone())
        .collect();
    assert_eq!(texts, ["hé", "one ", ""]);
}

/// A whole answer lies here until it ends: it has as many probabilities as there is room for.
#[tokio::test]
async fn a_whole_answer_tells_a_bounded_number_of_probabilities() {
    let script = format!("answer \"{}\"", "one ".repeat(300));
    let server = Server::start_as(ConnectionLimits::default(), 1 << 18, &script).await;
    let asked = json!({"logprobs": true, "top_logprobs": 20, "max_tokens": 4000});
    let too_many = server.chat(asked.clone()).await;
    assert_eq!(refusal(too_many).await, refused(400, "invalid_value", Some("logprobs")));
    let mut streamed = asked;
    streamed["stream"] = json!(true);
    assert_eq!(server.chat(streamed).await.status(), 200);
    // 32768 over 21 for each token of 8 answers are 195 tokens, if nobody says how many there may be.
    let unasked = json!({"logprobs": true, "top_logprobs": 20, "n": 8});
    let body = chat(&server, unasked).await;
    assert_eq!(body["usage"]["completion_tokens"], 8 * 195);
    assert_eq!(body["choices"][7]["finish_reason"], "length");
}

/// More than is written in one go, and more than is told at all.
#[tokio::test]
async fn long_prompts_are_judged_to_their_end() {
    const TOKENS: usize = 1000;
    let server = Server::start_as(ConnectionLimits::default(), 1 << 18, "answer \"one\"").await;
    let prompt = "abcd".repeat(TOKENS / 4);
    let asked = json!({"prompt": [prompt, prompt], "echo": true, "logprobs": 1, "max_tokens": 1});
    let check = |logprobs: &Value| {
        let list = |name: &str| logprobs[name].as_array().unwrap();
        assert_eq!(list("tokens").iter().map(|token| token.as_str().unwrap()).collect::<String>(), prompt);
        let told = list("token_logprobs").iter().map(Value::is_null);
        assert!(told.eq((0..TOKENS).map(|place| place == 0)), "{logprobs}");
        assert!(list("text_offset").iter().enumerate().all(|(place, offset)| *offset == place));
        assert_eq!(list("top_logprobs").len(), TOKENS);
    };
    let body: Value = server.complete(asked.clone()).await.json().await.unwrap();
    for choice in body["choices"].as_array().unwrap() {
        let mut logprobs = choice["logprobs"].clone();
        for list in logprobs.as_object_mut().unwrap().values_mut() {
            // The answer's own token.
            list.as_array_mut().unwrap().truncate(TOKENS);
        }
        check(&logprobs);
    }
    let mut streamed = asked;
    streamed["stream"] = json!(true);
    let (payloads, complete) = events(server.complete(streamed).await).await;
    assert!(complete);
    let chunks: Vec<Value> =
        payloads[..payloads.len() - 1].iter().map(|payload| serde_json::from_str(payload).unwrap()).collect();
    for index in 0..2 {
        let own: Vec<&Value> = chunks
            .iter()
            .map(|chunk| &chunk["choices"][0])
            .filter(|choice| choice["index"] == index)
            .collect();
        let texts: Vec<&str> = own.iter().map(|choice| choice["text"].as_str().unwrap()).collect();
        assert_eq!(texts, [prompt.as_str(), "one", ""]);
        check(&own[0]["logprobs"]);
    }
    let many = json!({"prompt": vec![97; 1 + (1 << 17)], "echo": true, "logprobs": 0, "max_tokens": 0});
    let refusal = refusal(server.complete(many).await).await;
    assert_eq!(refusal, refused(400, "invalid_value", Some("logprobs")));
}

#[tokio::test]
async fn tokens_and_tiers_are_told() {
    let server = Server::start("answer \"one two\"").await;
    let body = chat(&server, json!({"return_token_ids": true, "service_tier": "flex"})).await;
    assert_eq!(body["prompt_token_ids"], json!([104, 105]));
    assert_eq!(body["choices"][0]["token_ids"], json!([FIRST_WORD, FIRST_WORD + 1]));
    assert_eq!(body["service_tier"], "flex");
    let body =
        chat(&server, json!({"service_tier": "auto", "priority": 1, "user": "u", "cache_salt": "s"})).await;
    assert_eq!(body["service_tier"], "default");
    let body: Value = server.complete(json!({"return_token_ids": true})).await.json().await.unwrap();
    assert_eq!(body["choices"][0]["prompt_token_ids"], json!([104, 105]));
}

#[tokio::test]
async fn the_document_is_served() {
    let server = Server::start("").await;
    let response = server.client.get(format!("{}/openapi.json", server.url)).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    let document: Value = response.json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
}

#[tokio::test]
async fn sampling_and_labels_are_taken() {
    let server = Server::start("answer \"one\"").await;
    let body = chat(
        &server,
        json!({
            "model": MODEL, "temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1,
            "presence_penalty": 0.5, "frequency_penalty": -0.5, "logit_bias": {"5": -100, "6": 1.5}, "seed": 7,
            "skip_special_tokens": false, "store": true, "metadata": {"a": "b"}, "prompt_cache_key": "k",
            "safety_identifier": "s", "chat_template_kwargs": {"enable_thinking": false}, "reasoning_effort": "low",
            "enable_thinking": true, "documents": [{"title": "t", "text": "x"}], "parallel_tool_calls": false,
        }),
    )
    .await;
    assert_eq!(body["choices"][0]["message"]["content"], "one");
}
