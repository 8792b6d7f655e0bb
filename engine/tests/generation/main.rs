//! The engine from submission to the last event, on a model that is a hash.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests assert as tests do"
)]

mod choosing;
mod clients;
mod embeddings;
mod ends;
mod fake;
mod grammars;
mod limits;
mod logprobs;
mod prefix_cache;
mod same_tokens;
mod soak;
mod stops;
mod timeouts;

use std::time::{Duration, Instant};

use sparkherd_engine::{
    Caller, Ends, EngineHandle, FinishReason, Generation, GenerationError, GenerationEvent,
    GenerationRequest, LogprobOptions, Sampling, SpecialTokenText, SubmitError, Usage,
};

/// Far more than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_mins(1);

/// What a request came to.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    text: String,
    /// Those that came with the text.
    tokens: Vec<u32>,
    end: Result<(FinishReason, Usage), GenerationError>,
}

impl Answer {
    /// The answer without how much of its prompt was found, which depends on what went before.
    fn without_cache(&self) -> Self {
        let end = self.end.clone().map(|(reason, usage)| (reason, Usage { cached_tokens: 0, ..usage }));
        Self { end, ..self.clone() }
    }
}

/// Reads a generation to its end, and asserts that it has one and that nothing follows it (I19).
fn read(mut generation: Generation) -> Answer {
    let (mut text, mut tokens) = (String::new(), Vec::new());
    let end = loop {
        match generation.events.blocking_recv().expect("a request ends with an event") {
            GenerationEvent::Text(piece) => {
                assert!(!piece.text.is_empty() || !piece.tokens.is_empty());
                text += &piece.text;
                tokens.extend(piece.tokens.into_iter().map(|sampled| sampled.token));
            }
            GenerationEvent::Started(_) => assert!(tokens.is_empty(), "begun after its first token"),
            GenerationEvent::Finished { reason, usage } => break Ok((reason, usage)),
            GenerationEvent::Failed(error) => break Err(error),
            GenerationEvent::Prompt(_) => panic!("prompt log-probabilities were not asked for"),
        }
    };
    assert_eq!(generation.events.blocking_recv(), None, "nothing follows the end");
    Answer { text, tokens, end }
}

/// Submits for a client that asks for nothing special.
fn submit(handle: &EngineHandle, request: GenerationRequest) -> Result<Generation, SubmitError> {
    handle.reserve(&Caller::default())?.submit(request)
}

/// A greedy request; the prompt is of printable characters, one token each.
fn request(prompt: &str, max_tokens: u32) -> GenerationRequest {
    let prompt_tokens = prompt.bytes().map(|byte| u32::from(byte) - 0x21).collect();
    GenerationRequest {
        prompt_tokens,
        max_tokens,
        sampling: Sampling::default(),
        ends: Ends::default(),
        logprobs: LogprobOptions::default(),
        grammar: None,
        special_tokens: SpecialTokenText::Hidden,
    }
}

/// A request that ends at any of these strings too.
fn stopping(request: GenerationRequest, stop: Vec<String>) -> GenerationRequest {
    GenerationRequest { ends: Ends { stop, ..Ends::default() }, ..request }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A seeded source of choices for tests; splitmix64.
struct Choices(u64);

impl Choices {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        u32::try_from((mixed ^ (mixed >> 31)) % u64::from(end)).unwrap()
    }
}
