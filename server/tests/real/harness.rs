use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sparkherd_checkpoint::Checkpoint;
use sparkherd_engine::weights::ModelDirectory;
use sparkherd_engine::{
    BackendChoice, Clock, Engine, EngineHandle, EngineLimits, LoadConfig, LoadedModel, QueueLimits, Text,
    load_model,
};
use sparkherd_footprint::{BLOCK_TOKENS, Platform, plan, serving_default};
use sparkherd_protocol::Access;
use sparkherd_server::{Audience, ConnectionLimits, RealEngine, Service, ServiceSettings, serve};
use tokio::net::TcpListener;

use crate::gate::Gate;

/// Each client has a key of its own, which is its name.
pub(crate) const CLIENTS: [&str; 4] = ["alice", "bob", "carol", "dave"];
/// Tokens one sequence may hold: what the checkpoint was made for.
pub(crate) const CONTEXT: u32 = 192;
/// Sequences that run together.
pub(crate) const CONCURRENCY: u32 = 4;
/// Far beyond what anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);
const MODEL: &str = "tiny";
/// Random weights.
const TINY: &str = "../engine/tests/goldens/tiny-qwen3-bf16";
/// Trained, with a chat template that knows no tools: calls are forced in the Hermes dialect.
const EXAMPLE: &str = "../examples/models/ask-sparkherd";

/// A served engine. Ends with the test's runtime.
pub(crate) struct Server {
    url: String,
    client: Client,
}

/// A streamed completion, read piece by piece.
pub(crate) struct Stream {
    response: Response,
    /// What came of an event that is not whole.
    unread: Vec<u8>,
}

impl Server {
    /// Serves the checkpoint behind a gate, with a queue as given.
    pub(crate) async fn gated(queue: impl FnOnce(QueueLimits) -> QueueLimits) -> (Self, Gate) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(TINY);
        let (model, limits) = load(&directory);
        let (gate, gated) = Gate::before(model);
        let limits = EngineLimits { queue: queue(limits.queue), ..limits };
        let text = Text::load(&directory).unwrap();
        let (handle, worker) = Engine::start(Box::new(gated), text, limits, Clock::monotonic()).unwrap();
        (Self::serve(handle, worker).await, gate)
    }

    /// Serves the example model.
    pub(crate) async fn example() -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(EXAMPLE);
        let (model, limits) = load(&directory);
        let text = Text::load(&directory).unwrap();
        let (handle, worker) = Engine::start(Box::new(model), text, limits, Clock::monotonic()).unwrap();
        Self::serve(handle, worker).await
    }

    async fn serve(engine: EngineHandle, worker: JoinHandle<()>) -> Self {
        let key_hashes = CLIENTS.iter().map(|key| hex(&Sha256::digest(key))).collect();
        let access = Access { anonymous: false, key_hashes };
        let settings = ServiceSettings {
            audience: Audience::new(&access, vec![MODEL.to_owned()]).unwrap(),
            incarnation: "test-1".to_owned(),
            seed: 1,
            stall_limit: Duration::MAX,
            clock: || 1_800_000_000,
            held_bytes: || 4096,
            device_bytes: 0,
            cpu_time: || Duration::ZERO,
        };
        let service = Arc::new(Service::new(Arc::new(RealEngine::new(engine, worker)), settings).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::builder().timeout(DEADLINE).no_proxy().build().unwrap();
        tokio::spawn(serve(listener, service, ConnectionLimits::default(), std::future::pending()));
        Self { url, client }
    }

    /// A completion of `changes` to a plain one.
    pub(crate) async fn complete(&self, client: &str, changes: Value) -> Response {
        let mut body = json!({"model": MODEL, "prompt": "Hello", "seed": 1});
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let request = self.client.post(format!("{}/v1/completions", self.url)).bearer_auth(client);
        request.json(&body).send().await.unwrap()
    }

    /// A conversation of `changes` to a plain one.
    pub(crate) async fn chat(&self, changes: Value) -> Response {
        let messages = json!([{"role": "user", "content": "What is sparkherd?"}]);
        let mut body = json!({"model": MODEL, "messages": messages, "seed": 1, "max_tokens": 120});
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let request = self.client.post(format!("{}/v1/chat/completions", self.url)).bearer_auth(CLIENTS[0]);
        request.json(&body).send().await.unwrap()
    }

    /// The first choice of a whole answer.
    pub(crate) async fn choice(&self, changes: Value) -> Value {
        let answer: Value = self.chat(changes).await.json().await.unwrap();
        answer["choices"].get(0).unwrap_or_else(|| panic!("{answer}")).clone()
    }

    /// The deltas of a streamed answer, and how it ended.
    pub(crate) async fn deltas(&self, mut changes: Value) -> (Vec<Value>, Value) {
        changes["stream"] = json!(true);
        let mut stream = Stream { response: self.chat(changes).await, unread: Vec::new() };
        let (mut deltas, mut reason) = (Vec::new(), Value::Null);
        while let Some(payload) = stream.payload().await.filter(|payload| payload != "[DONE]") {
            let event: Value = serde_json::from_str(&payload).unwrap();
            deltas.push(event["choices"][0]["delta"].clone());
            reason = event["choices"][0]["finish_reason"].clone();
        }
        (deltas, reason)
    }

    /// A stream of exactly so many tokens, for which there has to be room.
    pub(crate) async fn stream(&self, client: &str, tokens: u32) -> Stream {
        let response = self.complete(client, streamed(tokens)).await;
        assert_eq!(response.status(), 200, "{client}");
        Stream { response, unread: Vec::new() }
    }
}

/// Asks for a stream of exactly so many tokens.
pub(crate) fn streamed(tokens: u32) -> Value {
    json!({"stream": true, "max_tokens": tokens, "ignore_eos": true})
}

fn load(directory: &Path) -> (LoadedModel, EngineLimits) {
    let facts = Checkpoint::read(&ModelDirectory(directory.to_owned())).unwrap().inspection.facts;
    let serving = serving_default(&facts, CONTEXT, CONCURRENCY);
    let platform = Platform::cpu(1);
    let footprint = plan(&facts, &serving, &platform).unwrap();
    let kv_blocks = u32::try_from(serving.kv_tokens / u64::from(BLOCK_TOKENS)).unwrap();
    let config = LoadConfig {
        model_dir: directory.to_owned(),
        serving,
        platform,
        footprint,
        backend: BackendChoice::Cpu,
    };
    let model = load_model(&config, &mut |_| {}).unwrap();
    (model, EngineLimits::new(CONTEXT, kv_blocks, facts.vocab_size))
}

impl Stream {
    /// The next event's payload, or `None` at the end.
    async fn payload(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.unread.drain(..end + 2).collect();
                let event = std::str::from_utf8(&event).unwrap().trim_end();
                return Some(event.strip_prefix("data: ").unwrap().to_owned());
            }
            // The network cuts where it likes, within characters too.
            let chunk = self.response.chunk().await.unwrap()?;
            self.unread.extend(chunk);
        }
    }

    /// The text to the end, which has to be a proper one.
    pub(crate) async fn rest(mut self) -> String {
        let (mut text, mut reason) = (String::new(), Value::Null);
        while let Some(payload) = self.payload().await {
            if payload == "[DONE]" {
                assert_eq!(reason, "length");
                return text;
            }
            let event: Value = serde_json::from_str(&payload).unwrap();
            let choice = &event["choices"][0];
            text.push_str(choice["text"].as_str().unwrap_or_else(|| panic!("{event}")));
            reason = choice["finish_reason"].clone();
        }
        panic!("the stream ends without [DONE] after {text:?}");
    }
}

/// Status, code and message of a refusal.
pub(crate) async fn refusal(response: Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let text = |field: &str| {
        body["error"][field].as_str().unwrap_or_else(|| panic!("no {field} in {body}")).to_owned()
    };
    (status, text("code"), text("message"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
