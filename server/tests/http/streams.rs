use serde_json::{Value, json};
use sparkherd_server::{ChatEngine, ConnectionLimits, Phase};

use crate::harness::{CONCURRENCY, Server, events, refusal, refused, until};

fn parsed(payload: &str) -> Value {
    serde_json::from_str(payload).unwrap_or_else(|error| panic!("{error} in {payload}"))
}

#[tokio::test]
async fn a_chat_stream_has_openais_shape() {
    let server = Server::start("answer \"one two three\"").await;
    let (payloads, complete) = events(server.chat(json!({"stream": true})).await).await;
    assert!(complete);
    let (done, chunks) = payloads.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    let chunks: Vec<Value> = chunks.iter().map(|payload| parsed(payload)).collect();
    let deltas: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    let expected = [
        json!({"role": "assistant", "content": ""}),
        json!({"content": "one "}),
        json!({"content": "two "}),
        json!({"content": "three"}),
        json!({}),
    ];
    assert_eq!(deltas, expected.iter().collect::<Vec<_>>());
    for (index, chunk) in chunks.iter().enumerate() {
        assert_eq!(chunk["id"], chunks[0]["id"]);
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert!(chunk.get("usage").is_none(), "usage was not asked for");
        let reason = if index + 1 == chunks.len() { json!("stop") } else { Value::Null };
        assert_eq!(chunk["choices"][0]["finish_reason"], reason);
    }
}

#[tokio::test]
async fn usage_comes_last_with_empty_choices() {
    let server = Server::start("answer \"one two three\"").await;
    let asked = json!({"stream": true, "stream_options": {"include_usage": true}, "max_tokens": 2});
    for response in [server.chat(asked.clone()).await, server.complete(asked).await] {
        let (payloads, complete) = events(response).await;
        assert!(complete);
        let (done, chunks) = payloads.split_last().unwrap();
        assert_eq!(done, "[DONE]");
        let (usage, rest) = chunks.split_last().unwrap();
        let usage = parsed(usage);
        assert_eq!(usage["choices"], json!([]));
        assert_eq!(
            (&usage["usage"]["prompt_tokens"], &usage["usage"]["completion_tokens"]),
            (&json!(2), &json!(2))
        );
        assert!(rest.iter().all(|chunk| parsed(chunk).get("usage") == Some(&Value::Null)), "{rest:?}");
        assert_eq!(parsed(rest.last().unwrap())["choices"][0]["finish_reason"], "length");
    }
}

#[tokio::test]
async fn a_completion_stream_is_text_only() {
    let server = Server::start("answer \"one two\"").await;
    let (payloads, _) = events(server.complete(json!({"stream": true})).await).await;
    let chunks: Vec<Value> = payloads[..3].iter().map(|payload| parsed(payload)).collect();
    let texts: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["text"]).collect();
    assert_eq!(texts, ["one ", "two", ""]);
    assert_eq!(payloads.len(), 4);
}

#[tokio::test]
async fn an_engine_that_dies_cuts_the_stream() {
    // In-process, dying is ending without a word.
    let server = Server::start("answer \"one two three\"\ndie-after 2 tokens").await;
    let (payloads, complete) = events(server.chat(json!({"stream": true})).await).await;
    assert!(!complete, "a broken connection, not a clean end: {payloads:?}");
    let texts: Vec<Value> =
        payloads.iter().map(|payload| parsed(payload)["choices"][0]["delta"]["content"].clone()).collect();
    assert_eq!(texts, ["", "one ", "two "]);
    let response = server.chat(json!({})).await;
    assert_eq!(response.status(), 500);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "engine_failed");
    assert_eq!(server.get("/healthz").send().await.unwrap().status(), 503, "the last generation failed");
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place() {
    let server = Server::start("answer \"one two three\"\nhang-after 1 tokens").await;
    let mut streams = Vec::new();
    for _ in 0..=CONCURRENCY {
        streams.push(server.chat(json!({"stream": true})).await);
    }
    let whole = tokio::spawn(
        server
            .post("/v1/chat/completions")
            .json(&json!({
                "model": "coder", "messages": [{"role": "user", "content": "hi"}]
            }))
            .send(),
    );
    let running = || async {
        (
            server.metric("vllm:num_requests_running{model_name=\"coder\"}").await,
            server.metric("vllm:num_requests_waiting{model_name=\"coder\"}").await,
        )
    };
    until("two run and two wait", async || running().await == (2.0, 2.0)).await;
    assert_eq!(server.get("/healthz").send().await.unwrap().status(), 200, "hangs while healthy");
    drop(streams);
    until("one runs", async || running().await == (1.0, 0.0)).await;
    whole.abort();
    until("none runs", async || running().await == (0.0, 0.0)).await;
    let aborted =
        server.metric("vllm:request_success_total{finished_reason=\"abort\",model_name=\"coder\"}").await;
    assert!((aborted - 4.0).abs() < f64::EPSILON, "{aborted} aborted");
}

#[tokio::test]
async fn a_full_queue_says_when_to_try_again() {
    let server = Server::start("hang-after 0 tokens").await;
    let mut streams = Vec::new();
    let refused = loop {
        let response = server.chat(json!({"stream": true})).await;
        if response.status() != 200 {
            break response;
        }
        streams.push(response);
        assert!(streams.len() < 200, "the queue has an end");
    };
    assert_eq!(refused.status(), 503);
    // The engine's second, and up to half of one more.
    assert_eq!(refused.headers()["retry-after"], "2");
    let body: Value = refused.json().await.unwrap();
    assert_eq!(
        (&body["error"]["code"], &body["error"]["type"]),
        (&json!("queue_full"), &json!("server_error"))
    );
}

/// More than half of the probabilities that an account may be told at once.
fn judged() -> Value {
    json!({"prompt": vec![104; 3000], "echo": true, "logprobs": 20, "max_tokens": 9, "stream": true})
}

#[tokio::test]
async fn probabilities_of_prompts_make_room_for_others_once_they_are_written() {
    let script = "answer \"one two\"\nhang-after 1 tokens";
    let server = Server::start_as(ConnectionLimits::default(), 8192, script).await;
    let mut first = server.complete(judged()).await;
    assert!(first.chunk().await.unwrap().is_some(), "its prompt");
    // It says no more, and does not end.
    assert_eq!(server.complete(judged()).await.status(), 200);
    drop(first);
}

#[tokio::test]
async fn waiting_to_be_told_probabilities_ends_with_the_engine() {
    let script = "answer \"one two\"\nhang-after 0 tokens";
    let server = Server::start_as(ConnectionLimits::default(), 8192, script).await;
    let first = server.complete(judged()).await;
    assert_eq!(first.status(), 200);
    until("the first runs", async || server.engine.stats().waiting == 0).await;
    let end = async {
        until("the second waits", async || server.engine.stats().waiting == 1).await;
        server.service.lifecycle().advance(Phase::Aborting);
    };
    let (second, ()) = tokio::join!(server.complete(judged()), end);
    assert_eq!(refusal(second).await, refused(503, "draining", None));
}
