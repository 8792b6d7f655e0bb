use serde_json::{Value, json};

use crate::harness::{MODEL, Server, refusal, refused};

/// The fake engine's vector of a prompt of so many tokens.
fn vector(tokens: u8) -> Vec<f32> {
    let (sine, cosine) = f32::from(tokens).sin_cos();
    vec![sine, cosine]
}

#[tokio::test]
async fn each_input_gets_its_vector_in_order() {
    let server = Server::start("").await;
    let ask = async |changes: Value| {
        let mut body = json!({"model": MODEL});
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        server.post("/v1/embeddings").json(&body).send().await.unwrap()
    };
    for (input, lengths) in [
        (json!("abc"), vec![3]),
        (json!(["a", "abc"]), vec![1, 3]),
        (json!([1, 2]), vec![2]),
        (json!([[1], [1, 2], [1, 2, 3]]), vec![1, 2, 3]),
    ] {
        let answer: Value = ask(json!({"input": input, "user": "u"})).await.json().await.unwrap();
        let total: u8 = lengths.iter().sum();
        assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!(MODEL)));
        assert_eq!(answer["usage"], json!({"prompt_tokens": total, "total_tokens": total}));
        let data = answer["data"].as_array().unwrap();
        assert_eq!(data.len(), lengths.len());
        for (index, (object, tokens)) in data.iter().zip(lengths).enumerate() {
            assert_eq!((&object["object"], &object["index"]), (&json!("embedding"), &json!(index)));
            let values: Vec<f32> = serde_json::from_value(object["embedding"].clone()).unwrap();
            assert_eq!(values, vector(tokens));
        }
    }
    let answer: Value = ask(json!({"input": "abc", "encoding_format": "base64"})).await.json().await.unwrap();
    let bytes: Vec<u8> = vector(3).iter().flat_map(|value| value.to_le_bytes()).collect();
    // 8 bytes are 12 letters with one of padding.
    let letters = answer["data"][0]["embedding"].as_str().unwrap();
    assert_eq!((letters.len(), letters.ends_with('=')), (12, true));
    assert_eq!(base64_decoded(letters), bytes);
    for (changes, expected) in [
        (json!({"input": []}), refused(400, "invalid_prompt", Some("input"))),
        (json!({"input": 7}), refused(400, "invalid_value", Some("input"))),
        (json!({"input": ""}), refused(400, "invalid_prompt", Some("input"))),
        (json!({"input": "x".repeat(65)}), refused(400, "context_length_exceeded", Some("input"))),
        (
            json!({"input": "a", "encoding_format": "int8"}),
            refused(400, "invalid_value", Some("encoding_format")),
        ),
        (json!({"input": "a", "pooling": "max"}), refused(400, "invalid_value", Some("pooling"))),
        (json!({"input": "a", "dimensions": 1}), refused(400, "unsupported_parameter", Some("dimensions"))),
        (json!({"input": "a", "model": "other"}), refused(404, "model_not_found", Some("model"))),
    ] {
        let context = changes.to_string();
        assert_eq!(refusal(ask(changes).await).await, expected, "{context}");
    }
}

/// As many as OpenAI's clients send at once, in a body far larger than one prompt may have.
#[tokio::test]
async fn a_long_list_is_taken() {
    let server = Server::start("").await;
    let ask = async |inputs: usize, padding: usize| {
        let body = json!({"model": MODEL, "input": vec!["a"; inputs], "padding": "x".repeat(padding)});
        server.post("/v1/embeddings").json(&body).send().await.unwrap()
    };
    let answer: Value = ask(2048, 2 << 20).await.json().await.unwrap();
    let data = answer["data"].as_array().unwrap_or_else(|| panic!("{answer}"));
    assert_eq!((data.len(), &answer["usage"]["prompt_tokens"]), (2048, &json!(2048)));
    assert!(data.iter().enumerate().all(|(index, object)| object["index"] == index));
    assert_eq!(refusal(ask(2049, 0).await).await, refused(400, "invalid_value", Some("input")));
    assert_eq!(refusal(ask(1, 3 << 20).await).await, refused(413, "request_too_large", None));
}

/// RFC 4648, section 4.
fn base64_decoded(letters: &str) -> Vec<u8> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = letters.chars().filter_map(|letter| ALPHABET.find(letter));
    let bits: String = digits.map(|digit| format!("{digit:06b}")).collect::<Vec<_>>().concat();
    let whole = bits.len() / 8 * 8;
    (0..whole).step_by(8).map(|place| u8::from_str_radix(&bits[place..place + 8], 2).unwrap()).collect()
}
