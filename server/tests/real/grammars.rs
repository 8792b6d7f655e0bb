//! A grammar that is out to take time is its sender's own affair.

use futures::future::join_all;
use reqwest::Response;
use serde_json::{Value, json};

use crate::harness::{CONTEXT, Server, refusal};

/// Tokens of the stream beside.
const TOKENS: u32 = CONTEXT - 16;

/// Definitions that each refer to the next, into nothing.
fn chain(length: usize) -> Value {
    let definition = |index: usize| json!({"allOf": [{"$ref": format!("#/$defs/d{}", index + 1)}]});
    let definitions: serde_json::Map<_, _> =
        (0..length).map(|index| (format!("d{index}"), definition(index))).collect();
    json!({"$ref": "#/$defs/d0", "$defs": definitions})
}

/// Some are refused at once, some after long, and some are followed until they explode.
fn hostile() -> Vec<Value> {
    let names: Vec<Value> =
        (0..400).map(|name| json!({"type": "string", "pattern": format!("name {name}")})).collect();
    let rules: Vec<String> = (0..1500).map(|rule| format!("a{rule}: \"x\"\n")).collect();
    let all: Vec<String> = (0..1500).map(|rule| format!("a{rule}")).collect();
    vec![
        json!({"guided_regex": "((a{1,1000}b){1,1000}c){1,1000}"}),
        json!({"guided_json": {"type": "string", "pattern": "([ab]{1,3000}c){1,3000}"}}),
        json!({"guided_json": {"type": "string", "minLength": 100_000_000}}),
        json!({"guided_json": {"allOf": names}}),
        json!({"guided_json": chain(400)}),
        json!({"guided_grammar": "start: start"}),
        json!({"guided_grammar": format!("start: item*\nitem: {}\n{}", all.join(" | "), rules.concat())}),
        json!({"guided_regex": "([ab]*a[ab]{400}c)+"}),
    ]
}

/// An answer to the end, or a refusal for the grammar's sake.
async fn answered(response: Response) {
    if response.status() == 200 {
        let answer: Value = response.json().await.unwrap();
        assert!(
            ["stop", "length"].contains(&answer["choices"][0]["finish_reason"].as_str().unwrap()),
            "{answer}"
        );
        return;
    }
    let (status, code, message) = refusal(response).await;
    assert_eq!((status, &*code), (400, "invalid_grammar"), "{message}");
    assert!(!message.contains('\n') && message.chars().count() < 600, "{message}");
}

async fn alone() -> String {
    let (server, gate) = Server::gated(|queue| queue).await;
    drop(gate);
    server.stream("alice", TOKENS).await.rest().await
}

/// The stream gets a token for each step that is let through, whatever is compiled meanwhile: were a compilation the steps'
/// time, or took one, they would not be enough.
#[tokio::test]
async fn a_stream_goes_on_while_hostile_grammars_are_compiled() {
    let (server, gate) = Server::gated(|queue| queue).await;
    let stream = server.stream("alice", TOKENS).await;
    let ask = |grammar: Value| {
        let server = &server;
        async move {
            let mut body = grammar;
            body["max_tokens"] = json!(TOKENS);
            answered(server.complete("bob", body).await).await;
        }
    };
    let refusals = join_all(hostile().into_iter().map(ask));
    // The prompt is a step, each token is one, and the last one ends it.
    gate.let_through(TOKENS as usize);
    let read = async {
        let text = stream.rest().await;
        drop(gate);
        text
    };
    let (text, _) = tokio::join!(read, refusals);
    assert_eq!(text, alone().await);
}
