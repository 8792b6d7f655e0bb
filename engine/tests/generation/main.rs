//! The engine from submission to the last event, on a model that is a hash.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests assert as tests do"
)]

mod ends;
mod fake;
mod limits;
mod same_tokens;

use std::time::{Duration, Instant};

use sparkherd_engine::{
    FinishReason, Generation, GenerationError, GenerationEvent, GenerationRequest, Sampling, Usage,
};

const GREEDY: Sampling = Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, seed: None };

/// Far more than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_mins(1);

/// What a request came to.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    text: String,
    end: Result<(FinishReason, Usage), GenerationError>,
}

/// Reads a generation to its end, and asserts that it has one and that nothing follows it (I19).
fn read(mut generation: Generation) -> Answer {
    let mut text = String::new();
    let end = loop {
        match generation.events.blocking_recv().expect("a request ends with an event") {
            GenerationEvent::Text(piece) => {
                assert!(!piece.is_empty());
                text += &piece;
            }
            GenerationEvent::Finished { reason, usage } => break Ok((reason, usage)),
            GenerationEvent::Failed(error) => break Err(error),
        }
    };
    assert_eq!(generation.events.blocking_recv(), None, "nothing follows the end");
    Answer { text, end }
}

/// A greedy request; the prompt is of printable characters, one token each.
fn request(prompt: &str, max_tokens: u32) -> GenerationRequest {
    let prompt_tokens = prompt.bytes().map(|byte| u32::from(byte) - 0x21).collect();
    GenerationRequest { prompt_tokens, max_tokens, sampling: GREEDY, stop: Vec::new() }
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
