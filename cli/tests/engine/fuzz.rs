//! Random bodies through the real engine: whatever is asked, the answer is one, and nothing stays behind.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::harness::{DEADLINE, Engine, MODEL, admitted};

const BODIES: u32 = 300;
const CONTEXT: u32 = 128;
/// Asked at once.
const TOGETHER: usize = 6;

/// splitmix64
struct Choices(u64);

impl Choices {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) >> 1).unwrap() % end
    }

    fn of(&mut self, values: &[Value]) -> Value {
        values[self.below(values.len())].clone()
    }
}

/// Each parameter with values that are right, wrong, and at the edge.
fn parameters() -> Vec<(&'static str, Vec<Value>)> {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
    let tool = json!({"type": "function", "function": {"name": "look", "parameters": schema}});
    vec![
        (
            "max_tokens",
            vec![json!(0), json!(1), json!(7), json!(100_000), json!(-1), json!("3"), Value::Null],
        ),
        ("temperature", vec![json!(0), json!(2), json!(2.1), json!(1e300), json!(true)]),
        ("top_p", vec![json!(0), json!(1e-30), json!(0.5), json!(1)]),
        ("top_k", vec![json!(-1), json!(0), json!(1), json!(4_000_000_000_u64)]),
        ("min_p", vec![json!(0), json!(1), json!(2)]),
        ("n", vec![json!(1), json!(3), json!(8), json!(9)]),
        ("seed", vec![json!(0), json!(u64::MAX), json!(-5), json!(0.5)]),
        ("stop", vec![json!("a"), json!(["e", "spark"]), json!([]), json!(""), json!(vec!["x"; 40])]),
        ("stop_token_ids", vec![json!([1]), json!([767]), json!([768]), json!([u32::MAX])]),
        (
            "logit_bias",
            vec![json!({"5": 100}), json!({"5": -100, "6": 3}), json!({"768": 1}), json!({"x": 1})],
        ),
        ("repetition_penalty", vec![json!(0.01), json!(2), json!(0)]),
        ("presence_penalty", vec![json!(-2), json!(2), json!(3)]),
        ("frequency_penalty", vec![json!(-2), json!(2)]),
        ("min_tokens", vec![json!(0), json!(5), json!(500)]),
        ("ignore_eos", vec![json!(true), json!(false)]),
        ("stream", vec![json!(true), json!(false), json!(1)]),
        ("stream_options", vec![json!({"include_usage": true}), json!({})]),
        ("logprobs", vec![json!(true), json!(3), json!(21), json!(0)]),
        ("top_logprobs", vec![json!(0), json!(20), json!(21)]),
        ("echo", vec![json!(true), json!(false)]),
        ("user", vec![json!("u"), json!("")]),
        (
            "response_format",
            vec![
                json!({"type": "json_object"}),
                json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}}),
                json!({"type": "xml"}),
            ],
        ),
        ("guided_regex", vec![json!("[ab]{1,9}"), json!("("), json!("(a{1,1000}b){1,1000}")]),
        ("guided_choice", vec![json!(["yes", "no"]), json!([])]),
        ("tools", vec![json!([tool]), json!([]), json!([{"type": "function"}])]),
        ("tool_choice", vec![json!("required"), json!("auto"), json!("none")]),
        ("unknown", vec![json!(1)]),
    ]
}

fn body(choices: &mut Choices, parameters: &[(&'static str, Vec<Value>)]) -> (&'static str, Value) {
    let texts = [
        json!("spark"),
        json!(""),
        json!("é\u{0}\u{1F600}"),
        json!("word ".repeat(200)),
        json!(null),
        json!([1, 2, 3]),
        json!([767]),
        json!([4_000_000]),
        json!(["one", "two"]),
        json!([[1], [2]]),
        json!([]),
    ];
    let roles = [json!("user"), json!("system"), json!("assistant"), json!("tool"), json!("pirate")];
    let mut body = Map::from_iter([("model".to_owned(), json!(MODEL))]);
    let path = match choices.below(4) {
        0 => {
            body.insert("prompt".to_owned(), choices.of(&texts));
            "/v1/completions"
        }
        1 => {
            body.insert("input".to_owned(), choices.of(&texts));
            let pooling = choices.of(&[json!("last"), json!("mean"), json!("max")]);
            body.insert("pooling".to_owned(), pooling);
            "/v1/embeddings"
        }
        _ => {
            let message =
                |choices: &mut Choices| json!({"role": choices.of(&roles), "content": choices.of(&texts)});
            let mut messages: Vec<Value> = (0..choices.below(3)).map(|_| message(choices)).collect();
            messages.push(json!({"role": "user", "content": "What is sparkherd?"}));
            body.insert("messages".to_owned(), json!(messages));
            "/v1/chat/completions"
        }
    };
    // Fewer than a model of 1000 tokens a second needs seconds for, unless the choice below is another.
    body.insert("max_tokens".to_owned(), json!(12));
    for _ in 0..choices.below(4) {
        let (name, values) = &parameters[choices.below(parameters.len())];
        body.insert((*name).to_owned(), choices.of(values));
    }
    (path, Value::Object(body))
}

async fn ask(url: String, path: &'static str, body: Value) -> u16 {
    let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
    let response = client.post(format!("{url}{path}")).json(&body).send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap_or_else(|error| panic!("{error}: {path} {body}"));
    assert!((200..300).contains(&status) || (400..500).contains(&status), "{status} {text}: {path} {body}");
    if status >= 400 {
        let error: Value = serde_json::from_str(&text).unwrap();
        assert!(error["error"]["message"].is_string(), "{text}: {path} {body}");
    }
    status
}

/// The sum of a metric's series.
async fn metric(url: &str, name: &str) -> f64 {
    let text = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
    let lines = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test]
async fn random_bodies_are_answered_or_refused_and_leave_nothing_behind() {
    let model_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/ask-sparkherd");
    let engine = Engine::start(&admitted(&model_dir.canonicalize().unwrap(), CONTEXT, 4), None);
    let url = engine.ready();
    let (mut choices, parameters) = (Choices(1), parameters());
    let bodies: Vec<_> = (0..BODIES).map(|_| body(&mut choices, &parameters)).collect();
    let mut answered = 0;
    for together in bodies.chunks(TOGETHER) {
        let asked = together.iter().cloned().map(|(path, body)| tokio::spawn(ask(url.clone(), path, body)));
        for asked in asked.collect::<Vec<_>>() {
            answered += u32::from(asked.await.unwrap() < 300);
        }
    }
    assert!((BODIES / 5..BODIES).contains(&answered), "{answered} of {BODIES} were answered");
    assert_eq!(reqwest::get(format!("{url}/healthz")).await.unwrap().status(), 200);
    let started = std::time::Instant::now();
    for name in ["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"] {
        while metric(&url, name).await > 0.0 {
            assert!(started.elapsed() < DEADLINE, "{name} stays above 0");
        }
    }
}
