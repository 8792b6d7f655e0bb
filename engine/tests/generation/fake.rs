//! A model that is a hash: its logits are a function of all tokens up to here, read back from the blocks they were written
//! to. A block that is lost, shared or stale gives other tokens, or an error.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
    mpsc::{Receiver, Sender, channel},
};

use crate::submit;
use serde_json::{Map, Value, json};
use sparkherd_engine::{
    Batch, Choice, Clock, Engine, EngineHandle, EngineLimits, ForwardError, ForwardPass, Generation,
    GenerationRequest, QueueLimits, Rows, StepOutput, SubmitError, Text, TokenRequests, Wants,
    sample::Sampler, text::TextFiles,
};

pub const BLOCK: usize = sparkherd_footprint::BLOCK_TOKENS as usize;

/// The 94 printable ASCII characters, one token each, and the end-of-sequence token.
pub const VOCAB: u32 = 95;
pub const EOS: u32 = 94;

/// Width of a hidden state.
pub const HIDDEN: u32 = 5;

/// What happens in a forward pass beside the arithmetic.
#[derive(Default)]
pub enum Fault {
    #[default]
    None,
    /// The step of this number fails.
    Fail(usize),
    Panic(usize),
    /// A sequence whose history holds this token has a NaN among its logits.
    NotANumber(u32),
    /// Two sequences get no logits.
    NoRows,
}

pub struct Fake {
    tokens_max: usize,
    sequences_max: usize,
    fault: Fault,
    has_logits: bool,
    chooses: bool,
    /// Tokens it chose itself.
    pub choices: Arc<AtomicUsize>,
    /// Each step waits for one message, until the sender is gone.
    gate: Option<Receiver<()>>,
    /// Tokens and sequences of each step.
    pub steps: Arc<Mutex<Vec<(usize, usize)>>>,
    memory: Vec<Option<u32>>,
    logits: Vec<f32>,
    hidden: Vec<f32>,
    chosen: Vec<Choice>,
}

impl Fake {
    pub fn new(tokens_max: usize, sequences_max: usize, kv_blocks: u32) -> Self {
        Self {
            tokens_max,
            sequences_max,
            fault: Fault::None,
            has_logits: true,
            chooses: false,
            choices: Arc::default(),
            gate: None,
            steps: Arc::default(),
            memory: vec![None; kv_blocks as usize * BLOCK],
            logits: Vec::new(),
            hidden: Vec::new(),
            chosen: Vec::new(),
        }
    }

    pub fn with(self, fault: Fault) -> Self {
        Self { fault, ..self }
    }

    /// As a device that chooses tokens itself, but of every third sequence of a step.
    pub fn choosing(self) -> Self {
        Self { chooses: true, ..self }
    }

    /// As a checkpoint without an output head: whoever wants logits is told by a panic.
    pub fn headless(self) -> Self {
        Self { has_logits: false, ..self }
    }

    /// Each step waits for one message, until the sender is dropped.
    pub fn gated(self) -> (Self, Sender<()>) {
        let (open, gate) = channel();
        (Self { gate: Some(gate), ..self }, open)
    }

    /// Chooses the token of the last row of logits, which is not given then.
    fn choose(&mut self, sequence: usize, requests: &mut dyn TokenRequests) {
        let Some(request) = requests.of(sequence) else { return };
        let row = self.logits.split_off(self.logits.len() - VOCAB as usize);
        self.choices.fetch_add(1, Ordering::Relaxed);
        self.chosen[sequence] = Some(request.choose(&mut Sampler::default(), &row));
    }

    /// Tokens `0..end` of a sequence, from its blocks.
    fn history(&self, blocks: &[u32], end: usize) -> Result<Vec<u32>, ForwardError> {
        let cell =
            |position: usize| self.memory[blocks[position / BLOCK] as usize * BLOCK + position % BLOCK];
        (0..end)
            .map(|position| cell(position).ok_or_else(|| ForwardError::Device(format!("hole at {position}"))))
            .collect()
    }
}

impl ForwardPass for Fake {
    fn step(
        &mut self,
        batch: &Batch,
        requests: &mut dyn TokenRequests,
    ) -> Result<StepOutput<'_>, ForwardError> {
        if self.gate.as_ref().is_some_and(|gate| gate.recv().is_err()) {
            self.gate = None;
        }
        let step = {
            let mut steps = self.steps.lock().unwrap();
            steps.push((batch.tokens.len(), batch.sequences.len()));
            steps.len()
        };
        match self.fault {
            Fault::Fail(at) if step == at => return Err(ForwardError::Device("sticky fault".to_owned())),
            Fault::Panic(at) if step == at => panic!("the test asked for it"),
            _ => {}
        }
        self.logits.clear();
        self.hidden.clear();
        self.chosen.clear();
        let mut tokens = batch.tokens.iter();
        for (index, sequence) in batch.sequences.iter().enumerate() {
            self.chosen.push(None);
            let end = (sequence.position + sequence.token_count) as usize;
            for position in sequence.position as usize..end {
                let block = sequence.block_table[position / BLOCK] as usize;
                self.memory[block * BLOCK + position % BLOCK] = tokens.next().copied();
            }
            if matches!(self.fault, Fault::NoRows) && batch.sequences.len() == 2 {
                continue;
            }
            for row in sequence.wants.hidden(sequence.token_count) {
                let history = self.history(&sequence.block_table, (sequence.position + row + 1) as usize)?;
                self.hidden.extend(hidden(&history));
            }
            let logit_rows = sequence.wants.logits(sequence.token_count);
            assert!(self.has_logits || logit_rows.is_empty(), "there is no output head");
            for row in logit_rows {
                let history = self.history(&sequence.block_table, (sequence.position + row + 1) as usize)?;
                let start = self.logits.len();
                self.logits.extend((0..VOCAB).map(|token| logit(&history, token)));
                if matches!(self.fault, Fault::NotANumber(token) if history.contains(&token)) {
                    self.logits[start + 5] = f32::NAN;
                }
            }
            if self.chooses && sequence.wants == Wants::LastLogits && index % 3 < 2 {
                self.choose(index, requests);
            }
        }
        assert!(tokens.next().is_none());
        assert!(self.logits.len() <= self.sequences_max * VOCAB as usize, "more rows than were planned");
        let logits = Rows { values: &self.logits, width: VOCAB as usize };
        let hidden = Rows { values: &self.hidden, width: HIDDEN as usize };
        Ok(StepOutput { logits, hidden, chosen: &self.chosen })
    }

    fn tokens_max(&self) -> usize {
        self.tokens_max
    }

    fn sequences_max(&self) -> usize {
        self.sequences_max
    }

    fn logit_rows_max(&self) -> usize {
        self.sequences_max
    }

    fn has_logits(&self) -> bool {
        self.has_logits
    }

    fn hidden(&self) -> usize {
        HIDDEN as usize
    }
}

/// The hidden state after the tokens.
pub fn hidden(history: &[u32]) -> Vec<f32> {
    (0..HIDDEN).map(|column| logit(history, VOCAB + column)).collect()
}

/// Between -4 and 4: peaked enough for greedy, flat enough for sampling to vary.
pub fn logit(history: &[u32], token: u32) -> f32 {
    // FNV-1a over the tokens.
    let hash = history.iter().chain([&token]).fold(0xCBF2_9CE4_8422_2325_u64, |hash, token| {
        (hash ^ u64::from(*token)).wrapping_mul(0x0100_0000_01B3).rotate_left(23)
    });
    ((hash >> 40) as f32 / (1_u64 << 24) as f32) * 8.0 - 4.0
}

/// A tokenizer of the 94 characters; without `eos`, answers only end by length.
pub fn text(eos: bool) -> Text {
    let characters = (0x21..=0x7E_u8).map(|byte| char::from(byte).to_string());
    let vocab: Map<String, Value> = characters.enumerate().map(|(id, name)| (name, json!(id))).collect();
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [{
            "id": EOS, "content": "<eos>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    let config = if eos { json!({"eos_token_id": EOS}) } else { json!({}) };
    let files = TextFiles {
        tokenizer: tokenizer.to_string().into_bytes(),
        config: Some(config.to_string().into_bytes()),
        ..TextFiles::default()
    };
    Text::from_files(&files, || "2026-08-22T12:00:00[UTC]".parse().unwrap()).unwrap()
}

/// Limits that bound nothing but the context.
pub fn limits(fake: &Fake, context: u32) -> EngineLimits {
    let kv_blocks = u32::try_from(fake.memory.len() / BLOCK).unwrap();
    let queue = QueueLimits {
        requests: u32::MAX,
        prompt_tokens: u64::MAX,
        client_requests: u32::MAX,
        client_prompt_tokens: u64::MAX,
    };
    EngineLimits { queue, ..EngineLimits::new(context, kv_blocks, VOCAB) }
}

/// A started engine; dropping it stops the worker and waits for it.
pub struct Running {
    pub handle: EngineHandle,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    pub fn start(fake: Fake, text: Text, context: u32, queue_requests: u32) -> Self {
        let limits = limits(&fake, context);
        let queue = QueueLimits { requests: queue_requests, ..limits.queue };
        Self::start_with(fake, text, EngineLimits { queue, ..limits }, Clock::monotonic())
    }

    pub fn start_with(fake: Fake, text: Text, limits: EngineLimits, clock: Clock) -> Self {
        let (handle, thread) = Engine::start(Box::new(fake), text, limits, clock).unwrap();
        Self { handle, thread: Some(thread) }
    }

    /// An engine whose steps each wait for one message, until the sender is dropped; which is, if the test fails, before
    /// the engine is waited for.
    pub fn start_gated(fake: Fake, context: u32, queue_requests: u32) -> (Self, Sender<()>) {
        let (fake, open) = fake.gated();
        (Self::start(fake, text(false), context, queue_requests), open)
    }

    pub fn submit(&self, request: GenerationRequest) -> Result<Generation, SubmitError> {
        submit(&self.handle, request)
    }

    /// Waits for the worker to end by itself.
    pub fn join(&mut self) -> std::thread::Result<()> {
        self.thread.take().expect("joined once").join()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the worker panicked");
        }
    }
}
