//! A grammar that is out to take time is its sender's own affair.

use futures::future::join_all;
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

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!({"type": "null"}), |inner, _| json!({"type": "array", "items": inner}))
}

fn hostile() -> Vec<Value> {
    let names: Vec<String> = (0..4000).map(|name| format!("name {name}")).collect();
    let options: Vec<Value> = names.iter().map(|name| json!({"type": "string", "pattern": name})).collect();
    vec![
        json!({"guided_regex": "((a{1,1000}b){1,1000}c){1,1000}"}),
        json!({"guided_json": {"type": "string", "pattern": "([ab]{1,3000}c){1,3000}"}}),
        json!({"guided_json": {"type": "string", "minLength": 100_000_000}}),
        json!({"guided_json": {"allOf": options[..1000]}}),
        json!({"guided_json": nested(62)}),
        json!({"guided_json": chain(1000)}),
        json!({"guided_grammar": "start: start"}),
        json!({"guided_grammar": "start: ".to_owned() + &"(".repeat(300)}),
    ]
}

async fn refused(server: &Server, grammar: Value) {
    let context: String = grammar.to_string().chars().take(80).collect();
    let (status, code, message) = refusal(server.complete("bob", grammar).await).await;
    assert_eq!((status, &*code), (400, "invalid_grammar"), "{context}: {message}");
    assert!(!message.contains('\n') && message.chars().count() < 600, "{context}: {message}");
}

async fn alone() -> String {
    let (server, gate) = Server::gated(|queue| queue).await;
    drop(gate);
    server.stream("alice", TOKENS).await.rest().await
}

/// Each is refused while no step can run, so that none of it is the steps' time; after each the stream goes on.
#[tokio::test]
async fn refusals_take_no_step_and_a_stream_goes_on_between_them() {
    let (server, gate) = Server::gated(|queue| queue).await;
    let mut stream = server.stream("alice", TOKENS).await;
    // More than a piece takes: characters of several tokens, and the prompt.
    gate.let_through(10);
    let mut text = stream.piece().await;
    for grammar in hostile() {
        let idle = server.steps();
        refused(&server, grammar).await;
        assert!(server.steps() <= idle.max(10), "a refusal has taken a step");
        gate.let_through(10);
        text += &stream.piece().await;
    }
    drop(gate);
    text += &stream.rest().await;
    assert_eq!(text, alone().await);
}

/// All at once, with the stream running free: it says what it says alone.
#[tokio::test]
async fn a_stream_is_the_same_among_hostile_grammars() {
    let (server, gate) = Server::gated(|queue| queue).await;
    let mut stream = server.stream("alice", TOKENS).await;
    gate.let_through(10);
    let first = stream.piece().await;
    drop(gate);
    let refusals = join_all(hostile().into_iter().map(|grammar| refused(&server, grammar)));
    let (rest, _) = tokio::join!(stream.rest(), refusals);
    assert_eq!(first + &rest, alone().await);
}

/// One that explodes on the way ends its own answer: with an error, or where its tokens end.
#[tokio::test]
async fn a_grammar_that_explodes_later_ends_its_own_answer_only() {
    let (server, gate) = Server::gated(|queue| queue).await;
    let stream = server.stream("alice", TOKENS).await;
    drop(gate);
    let exploding = json!({"guided_regex": "([ab]*a[ab]{400}c)+", "max_tokens": TOKENS});
    let (rest, exploded) = tokio::join!(stream.rest(), server.complete("bob", exploding));
    assert_eq!(rest, alone().await);
    if exploded.status() == 200 {
        let answer: Value = exploded.json().await.unwrap();
        assert_eq!(answer["choices"][0]["finish_reason"], "length", "{answer}");
        let text = answer["choices"][0]["text"].as_str().unwrap();
        assert!(text.bytes().all(|byte| b"abc".contains(&byte)), "{text}");
    } else {
        assert_eq!(refusal(exploded).await.1, "invalid_grammar");
    }
}
