use serde_json::{Value, json};

use crate::harness::{CONTEXT, MODEL, Server, refusal, refused};

#[tokio::test]
async fn texts_and_conversations_become_tokens_and_text_again() {
    let server = Server::start("answer \"one two\"").await;
    let post = async |path: &str, body: Value| server.post(path).json(&body).send().await.unwrap();
    let expected = json!({"count": 2, "max_model_len": CONTEXT, "tokens": [104, 233], "token_strs": null});
    let messages = json!([{"role": "user", "content": "hé"}]);
    for body in [json!({"prompt": "hé"}), json!({"model": MODEL, "messages": messages})] {
        let answer: Value = post("/tokenize", body).await.json().await.unwrap();
        assert_eq!(answer, expected);
    }
    let answer: Value =
        post("/tokenize", json!({"prompt": "hé", "return_token_strs": true})).await.json().await.unwrap();
    assert_eq!(answer["token_strs"], json!(["h", "é"]));
    let answer: Value =
        post("/detokenize", json!({"model": MODEL, "tokens": [104, 233]})).await.json().await.unwrap();
    assert_eq!(answer, json!({"prompt": "hé"}));
    for (path, body, expected) in [
        ("/tokenize", json!({}), refused(400, "missing_required_parameter", Some("messages"))),
        (
            "/tokenize",
            json!({"prompt": "hi", "messages": []}),
            refused(400, "invalid_value", Some("messages")),
        ),
        ("/tokenize", json!({"prompt": 7}), refused(400, "invalid_value", Some("prompt"))),
        (
            "/tokenize",
            json!({"prompt": "hi", "model": "other"}),
            refused(404, "model_not_found", Some("model")),
        ),
        ("/detokenize", json!({"tokens": "hi"}), refused(400, "invalid_value", Some("tokens"))),
        (
            "/detokenize",
            json!({"tokens": [4_000_000_000_u32]}),
            refused(400, "invalid_value", Some("tokens")),
        ),
        ("/detokenize", json!({"tokens": vec![104; 65]}), refused(400, "invalid_value", Some("tokens"))),
        ("/detokenize", json!({}), refused(400, "missing_required_parameter", Some("tokens"))),
    ] {
        assert_eq!(refusal(post(path, body).await).await, expected, "{path}");
    }
    let unknown = post("/detokenize", json!({"tokens": [], "colour": 1})).await;
    assert_eq!(unknown.headers()["x-sparkherd-ignored"], "colour");
}
