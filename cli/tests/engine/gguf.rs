//! A model in one GGUF file, served by the file's path as by its directory's.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Engine, MODEL, admitted};

const CONTEXT: u32 = 96;

async fn complete(url: &str) -> Value {
    let body =
        json!({"model": MODEL, "prompt": "spark", "max_tokens": 12, "temperature": 0, "ignore_eos": true});
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = client.post(format!("{url}/v1/completions")).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["usage"]["completion_tokens"], 12, "{answer}");
    answer["choices"].clone()
}

#[tokio::test]
async fn a_gguf_is_served_by_its_own_path() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/goldens/tiny-gguf-q8_0");
    let alone = Engine::start(&admitted(&golden, CONTEXT, 2), None);
    // Beside another one, so that the directory does not say which.
    let directory = tempfile::tempdir().unwrap();
    let named = directory.path().join("named.gguf");
    for path in [&named, &directory.path().join("other.gguf")] {
        fs::copy(golden.join("model.gguf"), path).unwrap();
    }
    let one_of_two = Engine::start(&admitted(&named, CONTEXT, 2), None);
    let (alone_url, named_url) = (alone.ready(), one_of_two.ready());
    assert_eq!(complete(&named_url).await, complete(&alone_url).await);
}
