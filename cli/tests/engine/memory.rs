//! I18 on a real engine process: resident memory after load, after every sequence has used its whole context, and after
//! strangers have tried to take more, is at most the footprint and at least 90 % of it.

use serde_json::{Value, json};

use crate::harness::{Engine, MODEL, admitted, resident_bytes};

const CONTEXT: u32 = 512;
const CONCURRENCY: u32 = 16;
/// Tokens each request generates; its prompt fills the rest of the context.
const ANSWER_TOKENS: u32 = 16;

async fn fill_a_context(url: String, seed: u32) -> Value {
    let prompt_tokens = CONTEXT - ANSWER_TOKENS;
    let prompt: Vec<u32> = (0..prompt_tokens).map(|index| (index * 31 + seed * 17) % 256).collect();
    let body = json!({"model": MODEL, "prompt": prompt, "max_tokens": ANSWER_TOKENS, "seed": seed});
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.post(format!("{url}/v1/completions")).json(&body).send().await.unwrap().json().await.unwrap()
}

async fn overflow(url: String, bytes: usize) -> Value {
    let body = json!({"model": MODEL, "prompt": "word ".repeat(bytes / 5)});
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.post(format!("{url}/v1/completions")).json(&body).send().await.unwrap().json().await.unwrap()
}

/// A grammar that takes as much as it can get: each of its own, so that none is found compiled.
fn hostile(number: usize) -> Value {
    match number % 4 {
        0 => json!({"guided_regex": format!("([ab]*a[ab]{{{}}}c)+", 200 + number)}),
        1 => json!({"guided_regex": format!("([a-z]*q[a-z]{{{}}} )+", 100 + number)}),
        2 => {
            let names: Vec<String> = (0..800).map(|name| format!("{number} {name}")).collect();
            json!({"guided_choice": names})
        }
        _ => {
            let rule = |rule: usize| format!("a{rule}: \"{number}\" a{}\n", rule + 1);
            let rules: Vec<String> = (0..1200).map(rule).collect();
            json!({"guided_grammar": format!("start: a0\n{}a1200: \"x\"", rules.concat())})
        }
    }
}

async fn constrained(url: String, number: usize) -> u16 {
    let mut body = hostile(number);
    body["model"] = json!(MODEL);
    body["prompt"] = json!("a");
    body["max_tokens"] = json!(CONTEXT - ANSWER_TOKENS);
    body["temperature"] = json!(1);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = client.post(format!("{url}/v1/completions")).json(&body).send().await.unwrap();
    let status = response.status().as_u16();
    // Read to its end: whatever it says.
    let _ = response.bytes().await.unwrap();
    status
}

/// Words that no other prompt has, as long as a tokenizer remembers them.
async fn tokenize(url: String, seed: usize) -> u16 {
    let letter = |place: usize| {
        char::from(b'a' + u8::try_from((place * 7 + seed * 13 + place * place / 11) % 26).unwrap())
    };
    let word = |start: usize| (start..start + 250).map(letter).collect::<String>();
    let words: Vec<String> = (0..60).map(|index| word(seed * 1000 + index * 250)).collect();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({"model": MODEL, "prompt": words.join(" ")});
    client.post(format!("{url}/tokenize")).json(&body).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn resident_memory_is_the_footprint_after_load_and_after_full_contexts() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    crate::checkpoint::write(directory.path());
    let config = admitted(directory.path(), CONTEXT, CONCURRENCY);
    let footprint_bytes = config.footprint.total_bytes();
    assert!(
        footprint_bytes >= 512 << 20,
        "I18 is about footprints of 512 MiB and more, this is {footprint_bytes}"
    );
    let engine = Engine::start(&config, None);
    let url = engine.ready();
    let loaded_bytes = resident_bytes(engine.process());
    let requests: Vec<_> =
        (0..CONCURRENCY).map(|seed| tokio::spawn(fill_a_context(url.clone(), seed))).collect();
    for request in requests {
        let answer = request.await.unwrap();
        assert_eq!(answer["usage"]["total_tokens"], CONTEXT, "{answer}");
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
    }
    let used_bytes = resident_bytes(engine.process());
    // Prompts that cannot fit take no memory either: as large as a body may be at all, as a list may be, and as this context
    // lets one prompt be.
    let refused: Vec<_> = [7 << 20, 2900 << 10, 64 << 10]
        .repeat(8)
        .into_iter()
        .map(|bytes| tokio::spawn(overflow(url.clone(), bytes)))
        .collect();
    for request in refused {
        assert_eq!(request.await.unwrap()["error"]["code"], "context_length_exceeded");
    }
    let refused_bytes = resident_bytes(engine.process());
    let words: Vec<_> = (0..64).map(|seed| tokio::spawn(tokenize(url.clone(), seed))).collect();
    for request in words {
        let status = request.await.unwrap();
        assert!([200, 400, 429, 503].contains(&status), "{status}");
    }
    let grammars: Vec<_> = (0..48).map(|number| tokio::spawn(constrained(url.clone(), number))).collect();
    let mut statuses = std::collections::BTreeMap::new();
    let mut hostile_bytes = 0;
    for request in grammars {
        *statuses.entry(request.await.unwrap()).or_insert(0) += 1;
        hostile_bytes = hostile_bytes.max(resident_bytes(engine.process()));
    }
    println!("hostile grammars: {statuses:?}, at most {hostile_bytes} bytes resident");
    assert!(statuses.keys().all(|status| [200, 400, 429, 503].contains(status)), "{statuses:?}");
    println!(
        "footprint {footprint_bytes} bytes; resident after load {loaded_bytes}, after full contexts {used_bytes}, after \
         prompts far too long {refused_bytes}"
    );
    println!("{:?}", config.footprint.parts);
    for resident in [loaded_bytes, used_bytes, refused_bytes, hostile_bytes] {
        assert!(
            resident <= footprint_bytes,
            "{resident} bytes resident, more than the {footprint_bytes} admitted"
        );
        assert!(
            resident >= footprint_bytes / 10 * 9,
            "{resident} bytes resident, less than 90 % of {footprint_bytes}"
        );
    }
}
