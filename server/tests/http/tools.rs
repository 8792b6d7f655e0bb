//! Calls of tools, and thoughts. The fake engine speaks Qwen's dialect.

use serde_json::{Value, json};

use sparkherd_server::ConnectionLimits;

use crate::harness::{Server, events};

const CALLS: &str = "answer \"<think>which city? Paris</think>I look.<tool_call>{\\\"name\\\": \\\"weather\\\", \\\"arguments\\\": {\\\"city\\\": \\\"Paris\\\"}}</tool_call>\"";

fn tools() -> Value {
    json!([{"type": "function", "function": {
        "name": "weather",
        "description": null,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }}])
}

#[tokio::test]
async fn a_call_is_told_apart_from_words_and_thoughts() {
    let server = Server::start(CALLS).await;
    let body: Value = server.chat(json!({"tools": tools()})).await.json().await.unwrap();
    let choice = &body["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{body}");
    let message = &choice["message"];
    assert_eq!(
        (&message["reasoning"], &message["reasoning_content"]),
        (&json!("which city? Paris"), &json!("which city? Paris"))
    );
    assert_eq!(message["content"], "I look.");
    let calls = message["tool_calls"].as_array().unwrap();
    assert_eq!(
        (calls.len(), &calls[0]["type"], &calls[0]["function"]["name"]),
        (1, &json!("function"), &json!("weather"))
    );
    let arguments: Value = serde_json::from_str(calls[0]["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"city": "Paris"}));
    let again: Value = server.chat(json!({"tools": tools()})).await.json().await.unwrap();
    assert_ne!(again["choices"][0]["message"]["tool_calls"][0]["id"], calls[0]["id"], "ids are unique");
}

#[tokio::test]
async fn a_call_is_streamed_name_first() {
    let server = Server::start(CALLS).await;
    let (payloads, complete) = events(server.chat(json!({"tools": tools(), "stream": true})).await).await;
    assert!(complete);
    let chunks: Vec<Value> =
        payloads[..payloads.len() - 1].iter().map(|payload| serde_json::from_str(payload).unwrap()).collect();
    let deltas: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    assert_eq!(deltas[0], &json!({"role": "assistant", "content": ""}));
    assert!(deltas[1..].iter().all(|delta| delta.get("role").is_none()), "{deltas:?}");
    let folded = |name: &str| deltas[1..].iter().filter_map(|delta| delta[name].as_str()).collect::<String>();
    assert_eq!(
        (folded("reasoning"), folded("content")),
        ("which city? Paris".to_owned(), "I look.".to_owned())
    );
    assert_eq!(folded("reasoning"), folded("reasoning_content"));
    let calls: Vec<&Value> = deltas.iter().filter_map(|delta| delta["tool_calls"].get(0)).collect();
    let (first, rest) = calls.split_first().unwrap();
    assert_eq!(
        (&first["index"], &first["type"], &first["function"]["name"]),
        (&json!(0), &json!("function"), &json!("weather"))
    );
    assert!(first["id"].as_str().is_some_and(|id| !id.is_empty()));
    assert!(rest.iter().all(|call| call.get("id").is_none()
        && call["index"] == 0
        && call["function"].get("name").is_none()));
    let arguments: String = calls.iter().filter_map(|call| call["function"]["arguments"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&arguments).unwrap(), json!({"city": "Paris"}));
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
}

/// A call may be long, and nothing of it is told before its end but what its tokens were worth.
#[tokio::test]
async fn probabilities_of_a_long_call_come_before_it() {
    let call = format!(
        "{{\\\"name\\\": \\\"weather\\\", \\\"arguments\\\": {{\\\"city\\\": \\\"{}\\\"}}}}",
        "Paris ".repeat(150)
    );
    let script = format!("answer \"<tool_call>{call}</tool_call>\"");
    let server = Server::start_as(ConnectionLimits::default(), 512, &script).await;
    let asked = json!({"tools": tools(), "stream": true, "logprobs": true});
    let (payloads, complete) = events(server.chat(asked).await).await;
    assert!(complete);
    let chunks: Vec<Value> =
        payloads[..payloads.len() - 1].iter().map(|payload| serde_json::from_str(payload).unwrap()).collect();
    let of = |chunk: &Value| chunk["choices"][0]["logprobs"]["content"].as_array().map_or(0, Vec::len);
    let calls = chunks.iter().position(|chunk| chunk["choices"][0]["delta"].get("tool_calls").is_some());
    let before: Vec<usize> = chunks[..calls.unwrap()].iter().map(of).filter(|count| *count > 0).collect();
    assert_eq!(before, [64, 64]);
    assert!(chunks.iter().map(of).sum::<usize>() > 150);
}

#[tokio::test]
async fn what_may_not_be_called_stays_text() {
    let server = Server::start(CALLS).await;
    for changes in [json!({}), json!({"tools": tools(), "tool_choice": "none"})] {
        let body: Value = server.chat(changes).await.json().await.unwrap();
        let choice = &body["choices"][0];
        assert_eq!(choice["finish_reason"], "stop");
        assert!(choice["message"].get("tool_calls").is_none());
        assert!(choice["message"]["content"].as_str().unwrap().contains("<tool_call>"), "{body}");
    }
}

/// What is not offered, or is offered and not allowed, cannot be called, whatever the model writes.
#[tokio::test]
async fn what_was_not_offered_is_not_called() {
    let server = Server::start(CALLS).await;
    let named = |name: &str| json!({"type": "function", "function": {"name": name}});
    let both = json!([tools()[0], named("other")]);
    let allowed = |mode: &str, name: &str| json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(name)]}});
    for (changes, called) in [
        (json!({"tools": [named("other")]}), false),
        (json!({"tools": both, "tool_choice": allowed("auto", "other")}), false),
        (json!({"tools": both, "tool_choice": allowed("auto", "weather")}), true),
    ] {
        let context = changes.to_string();
        let body: Value = server.chat(changes).await.json().await.unwrap();
        let choice = &body["choices"][0];
        assert_eq!(choice["finish_reason"], if called { "tool_calls" } else { "stop" }, "{context}");
        assert_eq!(choice["message"].get("tool_calls").is_some(), called, "{context}");
        let words = choice["message"]["content"].as_str().unwrap();
        assert_eq!(words.contains("\"weather\""), !called, "{context}: {words}");
    }
}

#[tokio::test]
async fn an_answer_cut_in_its_thoughts_is_empty_and_says_so() {
    let server = Server::start("answer \"<think>one two three\"").await;
    let body: Value = server.chat(json!({"max_tokens": 2})).await.json().await.unwrap();
    let choice = &body["choices"][0];
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(""), &json!("length")));
    assert!(choice["message"]["reasoning"].as_str().unwrap().starts_with("one"));
    assert_eq!(body["usage"]["completion_tokens"], 2, "thoughts are counted");
}
