//! The document at `/openapi.json` says what the parsers know, and nothing else.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::ask::Endpoint;
use super::embeddings::EmbeddingAsk;
use super::fields::asked;
use super::tokens::{DetokenizeAsk, TokenizeAsk};
use super::{Chat, Completions};
use crate::route::Route;

fn document() -> Value {
    serde_json::from_str(include_str!("../openapi.json")).unwrap()
}

/// Names of the properties of a request's schema, and of the objects one level into it.
fn documented(schema: &str) -> BTreeSet<String> {
    let document = document();
    let properties = document["components"]["schemas"][schema]["properties"].as_object().unwrap().clone();
    let mut names = BTreeSet::new();
    for (name, property) in properties {
        let inner = property["properties"].as_object().into_iter().flatten();
        names.extend(inner.map(|(inner, _)| format!("{name}.{inner}")));
        names.insert(name);
    }
    names
}

/// What a parser asked the body for; the insides of lists are left out, as `documented` leaves them.
fn known(parse: impl FnOnce(&[u8]), body: &Value) -> BTreeSet<String> {
    let names = asked(|| parse(&serde_json::to_vec(body).unwrap()));
    let inside =
        |name: &String| name.contains('[') || (name.contains('.') && name.starts_with("tool_choice"));
    names.into_iter().filter(|name| !inside(name)).collect()
}

#[test]
fn every_parameter_is_documented_and_no_other() {
    let chat = json!({
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": true,
        "stream_options": {"include_usage": true},
        "response_format": {"type": "text"},
        "structured_outputs": {"json_object": true},
    });
    let parse = |body: &[u8]| drop(Chat::parse(body).unwrap());
    assert_eq!(known(parse, &chat), documented("ChatCompletionRequest"));
    let completion = json!({
        "model": "m", "prompt": "hi", "stream": true, "stream_options": {}, "response_format": {"type": "text"},
        "structured_outputs": {"json_object": true},
    });
    let parse = |body: &[u8]| drop(Completions::parse(body).unwrap());
    assert_eq!(known(parse, &completion), documented("CompletionRequest"));
    let embedding = json!({"model": "m", "input": "hi"});
    let parse = |body: &[u8]| drop(EmbeddingAsk::parse(body).unwrap());
    assert_eq!(known(parse, &embedding), documented("EmbeddingRequest"));
    let parse = |body: &[u8]| drop(TokenizeAsk::parse(body).unwrap());
    let tokenize = json!({"messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(known(parse, &tokenize), documented("TokenizeRequest"));
    assert_eq!(
        known(parse, &json!({"prompt": "hi"})),
        documented("TokenizeRequest"),
        "refused beside a text"
    );
    let parse = |body: &[u8]| drop(DetokenizeAsk::parse(body).unwrap());
    assert_eq!(known(parse, &json!({"tokens": [1]})), documented("DetokenizeRequest"));
}

#[test]
fn every_route_is_documented_and_no_other() {
    let document = document();
    let documented: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(|method| (path.clone(), method.to_uppercase()))
        })
        .collect();
    let served = Route::ALL.map(|route| (route.template().to_owned(), route.method().to_owned()));
    assert_eq!(documented, BTreeSet::from(served));
    for route in Route::ALL {
        assert_eq!(Route::of(route.template()).map(|(route, _)| route), Some(route));
    }
}
