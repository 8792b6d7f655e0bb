//! Usage in the events of a stream.

use serde_json::{Value, json};

use crate::harness::{Server, events};

/// The events of a stream, without `[DONE]`.
async fn chunks(response: reqwest::Response) -> Vec<Value> {
    let (payloads, complete) = events(response).await;
    let (done, chunks) = payloads.split_last().unwrap();
    assert!(complete && done == "[DONE]");
    chunks.iter().map(|payload| serde_json::from_str(payload).unwrap()).collect()
}

/// Index of the choice, and tokens of prompt, of answer, and in all.
fn used(chunk: &Value) -> (Option<u64>, [u64; 3]) {
    let usage = &chunk["usage"];
    let count = |name: &str| usage[name].as_u64().unwrap_or_else(|| panic!("no {name} in {chunk}"));
    let counts = ["prompt_tokens", "completion_tokens", "total_tokens"].map(count);
    (chunk["choices"][0]["index"].as_u64(), counts)
}

#[tokio::test]
async fn it_is_told_with_each_event_where_that_is_asked_for() {
    let server = Server::start("answer \"one two\"").await;
    for include_usage in [false, true] {
        let options = json!({"continuous_usage_stats": true, "include_usage": include_usage});
        let asked = json!({"stream": true, "stream_options": options});
        let role_words_and_end = [0, 1, 2, 2].map(|answer| (Some(0), [2, answer, 2 + answer]));
        let mut expected = role_words_and_end.to_vec();
        expected.extend(include_usage.then_some((None, [2, 2, 4])));
        let told: Vec<_> = chunks(server.chat(asked.clone()).await).await.iter().map(used).collect();
        assert_eq!(told, expected);
        // The other endpoint has no role to announce.
        let told: Vec<_> = chunks(server.complete(asked).await).await.iter().map(used).collect();
        assert_eq!(told, expected[1..]);
    }
}

#[tokio::test]
async fn each_choice_tells_its_own_and_the_end_tells_all() {
    let server = Server::start("answer \"one two\"").await;
    let options = json!({"continuous_usage_stats": true, "include_usage": true});
    let asked = json!({"prompt": ["hi", "you"], "stream": true, "stream_options": options, "max_tokens": 1});
    let chunks = chunks(server.complete(asked).await).await;
    let (last, rest) = chunks.split_last().unwrap();
    assert_eq!((used(last), &last["choices"]), ((None, [5, 2, 7]), &json!([])));
    for (index, prompt) in [(0, 2), (1, 3)] {
        let own: Vec<_> = rest.iter().map(used).filter(|(choice, _)| *choice == Some(index)).collect();
        assert_eq!(own, [(Some(index), [prompt, 1, prompt + 1]); 2], "a word and the end");
    }
}
