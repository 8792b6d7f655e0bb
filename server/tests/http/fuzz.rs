//! Bodies made by mutating good ones with a seeded generator: never a hang, never a fault of the server.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

use crate::harness::{MODEL, Server};

const CASES: u64 = 2000;

/// Pseudo-random numbers that are the same everywhere and always.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 += 1;
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        usize::try_from(hasher.finish() % bound as u64).unwrap()
    }
}

fn good_bodies() -> [(&'static str, Value); 5] {
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": false}});
    let call = json!({"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let chat = json!({
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "s", "name": "n"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": null, "reasoning": "r", "tool_calls": [call]},
            {"role": "tool", "content": "4", "tool_call_id": "1"},
        ],
        "tools": [tool], "tool_choice": "auto", "parallel_tool_calls": true, "temperature": 0.5, "top_p": 0.9,
        "top_k": 3, "min_p": 0.1, "n": 2, "seed": 3, "stop": ["x"], "max_tokens": 4, "logprobs": true, "top_logprobs": 2,
        "logit_bias": {"1": 2}, "stream": true, "stream_options": {"include_usage": true}, "user": "u",
        "chat_template_kwargs": {"a": [1]}, "min_tokens": 1, "ignore_eos": true, "stop_token_ids": [1],
        "repetition_penalty": 1.1, "presence_penalty": 1, "frequency_penalty": 1, "service_tier": "auto", "priority": 0,
    });
    let completion =
        json!({"model": MODEL, "prompt": ["a", "b"], "echo": true, "logprobs": 1, "max_tokens": 2, "n": 1});
    [
        ("/v1/chat/completions", chat),
        ("/v1/completions", completion),
        (
            "/v1/embeddings",
            json!({"model": MODEL, "input": ["a", "b"], "encoding_format": "base64", "pooling": "mean"}),
        ),
        ("/tokenize", json!({"prompt": "hi", "return_token_strs": true})),
        ("/detokenize", json!({"tokens": [104, 105]})),
    ]
}

/// Something that is wrong in most places, and right in some.
fn odd_value(random: &mut Random) -> String {
    let deep = 1 + random.below(300);
    match random.below(23) {
        0 => "null".to_owned(),
        1 => "-1".to_owned(),
        2 => "1e999".to_owned(),
        3 => "18446744073709551616".to_owned(),
        4 => "NaN".to_owned(),
        5 => "\"\"".to_owned(),
        6 => "\"\\ud800\"".to_owned(),
        7 => format!("{}{}", "[".repeat(deep), "]".repeat(deep)),
        8 => format!("{}1{}", "{\"a\":".repeat(deep), "}".repeat(deep)),
        9 => "true".to_owned(),
        10 => "[]".to_owned(),
        11 => "{}".to_owned(),
        12 => format!("\"{}\"", "y".repeat(random.below(3000))),
        13 => "-9223372036854775809".to_owned(),
        14 => "-1.7e308".to_owned(),
        15 => "1e-400".to_owned(),
        // On both sides of what a body may have for a context this small.
        16 => format!("\"{}\"", "y".repeat(60_000 + random.below(12_000))),
        17 => format!("[{}1]", "1,".repeat(random.below(5000))),
        18 => "0.0000000000000000000000000001".to_owned(),
        19 => "1".to_owned(),
        20 => "0.5".to_owned(),
        21 => "\"x\"".to_owned(),
        _ => "false".to_owned(),
    }
}

/// A mark that stands nowhere else in a body.
const MARK: &str = "\"@@\"";

/// Puts the mark in the place of some value, somewhere in the tree.
fn mark(value: &mut Value, random: &mut Random) {
    let children: Vec<&mut Value> = match value {
        Value::Object(fields) => fields.values_mut().collect(),
        Value::Array(items) => items.iter_mut().collect(),
        _ => Vec::new(),
    };
    let count = children.len();
    match children.into_iter().nth(random.below(count.max(1))) {
        Some(child) if random.below(4) > 0 => mark(child, random),
        Some(child) => *child = json!("@@"),
        None => *value = json!("@@"),
    }
}

fn mutated(body: &Value, random: &mut Random) -> Vec<u8> {
    let mut body = body.clone();
    mark(&mut body, random);
    let text = body.to_string().replace(MARK, &odd_value(random));
    let mut bytes = text.into_bytes();
    match random.below(10) {
        0 => bytes.truncate(random.below(bytes.len())),
        1 => {
            let place = random.below(bytes.len());
            bytes[place] = u8::try_from(random.below(256)).unwrap();
        }
        // A field twice; the second comes from what was good.
        2 if bytes.starts_with(b"{") => {
            let odd = format!("{{\"model\": {}, ", odd_value(random));
            bytes.splice(..1, odd.into_bytes());
        }
        // No UTF-8: a character that is cut, one that is too long, a surrogate.
        3 => {
            let place = random.below(bytes.len());
            let wrong: [&[u8]; 3] = [b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80"];
            bytes.splice(place..place, wrong[random.below(3)].iter().copied());
        }
        _ => {}
    }
    bytes
}

#[tokio::test]
async fn odd_bodies_get_answers_or_refusals() {
    let server = Server::start("answer \"one two three\"").await;
    let mut random = Random(0);
    let bodies = good_bodies();
    for (path, body) in &bodies {
        let response = server.post(path).json(body).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}: {}", response.text().await.unwrap());
    }
    let (mut answered, mut refused) = (0, 0);
    for case in 0..CASES {
        let (path, body) = &bodies[random.below(bodies.len())];
        let body = mutated(body, &mut random);
        let shown = String::from_utf8_lossy(&body).into_owned();
        let response = server.post(path).body(body).send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap_or_else(|error| panic!("case {case}: {error} after {shown}"));
        match status {
            200 => answered += 1,
            400 | 404 => {
                let error: Value = serde_json::from_str(&text).unwrap();
                assert!(error["error"]["code"].is_string(), "case {case}: {text}");
                refused += 1;
            }
            _ => panic!("case {case}: {status} to {shown}: {text}"),
        }
    }
    assert!(answered > CASES / 20 && refused > CASES / 4, "{answered} answered, {refused} refused");
}
