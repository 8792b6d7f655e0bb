use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use sparkherd_engine::text::{ChatFormat, ChatPrompt, ReasoningStart};
use sparkherd_engine::{
    CacheSize, Caller, ClientKey, Embedding, EmbeddingRequest, Ends, EngineFailure, EngineStats,
    FinishReason, Generation, GenerationEvent, GenerationRequest, Grammar, GrammarError, GrammarSource,
    LogprobOptions, ModelInfo, PendingEmbedding, Piece, SampledToken, Start, SubmitError, TokenLogprob,
    Usage,
};
use sparkherd_footprint::BLOCK_TOKENS;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::Script;
use crate::engine::{ChatEngine, EncodedChat, Place, PromptError};

/// Tokens of a prompt are Unicode characters; those of the answer, above them, its words.
const CHARACTERS: u32 = 0x11_0000;
/// Numbers of one vector.
const HIDDEN: usize = 2;
/// Log-probability of each token; each other one at its place is less likely by as much again.
const LOGPROB: f32 = -0.5;
/// Requests that may wait beside those that run: few, so that a test can fill the queue.
const QUEUE_REQUESTS: u32 = 64;
/// What a full queue tells; its answers are short.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Events a reader may fall behind. The answer waits for its reader beyond, as no device is kept busy by that.
const EVENTS_MAX: usize = 64;

/// An engine without a model. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FakeEngine(Arc<Inner>);

struct Inner {
    script: Script,
    /// Words of the answer, each with the blank behind it.
    words: Vec<String>,
    format: ChatFormat,
    info: ModelInfo,
    concurrency: u32,
    runtime: Handle,
    slots: Semaphore,
    die: fn(),
    started: Instant,
    draining: AtomicBool,
    running: AtomicU32,
    waiting: AtomicU32,
    prompt_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    generations: AtomicU64,
    /// Tokens of all generations but the probe: what the script's faults count.
    counted_tokens: AtomicU64,
    /// Milliseconds from `started` to the last token, or to when a request began to run.
    last_step_ms: AtomicU64,
    /// Memory taken by `hold` and `balloon`.
    held: Mutex<Vec<Vec<u8>>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FakeEngine").field("script", &self.script).finish_non_exhaustive()
    }
}

/// Counts a running generation, until dropped.
struct Running<'a>(&'a AtomicU32);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a request that waits, until dropped.
#[derive(Debug)]
struct Waiting {
    engine: FakeEngine,
    since: Instant,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.engine.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FakeEngine {
    /// `context` tokens a sequence, `concurrency` sequences together; `die` is what `die-after` calls, and what runs then
    /// ends without a word should it return. Generations run on `runtime`.
    pub fn new(script: Script, context: u32, concurrency: u32, runtime: Handle, die: fn()) -> Self {
        let slots = Semaphore::new(usize::try_from(concurrency).unwrap_or(Semaphore::MAX_PERMITS));
        let words: Vec<String> = script.answer.split_inclusive(' ').map(str::to_owned).collect();
        let vocab_size = CHARACTERS.saturating_add(u32::try_from(words.len()).unwrap_or(u32::MAX));
        Self(Arc::new(Inner {
            script,
            words,
            format: ChatFormat::hermes(),
            info: ModelInfo {
                context,
                vocab_size,
                has_chat_template: true,
                generates: true,
                hidden: HIDDEN,
                request_prompt_tokens_max: u64::from(context) * u64::from(QUEUE_REQUESTS),
            },
            concurrency,
            runtime,
            slots,
            die,
            started: Instant::now(),
            draining: AtomicBool::new(false),
            running: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            prompt_tokens: AtomicU64::new(0),
            generated_tokens: AtomicU64::new(0),
            generations: AtomicU64::new(0),
            counted_tokens: AtomicU64::new(0),
            last_step_ms: AtomicU64::new(0),
            held: Mutex::new(Vec::new()),
        }))
    }

    pub fn script(&self) -> &Script {
        &self.0.script
    }

    /// Takes memory and touches all of it.
    pub fn hold(&self, bytes: usize) {
        self.0.hold(bytes);
    }
}

impl ChatEngine for FakeEngine {
    fn info(&self) -> ModelInfo {
        self.0.info.clone()
    }

    /// As many blocks as all sequences together could fill.
    fn cache_size(&self) -> CacheSize {
        let Inner { info, concurrency, .. } = &*self.0;
        let blocks = info.context.div_ceil(BLOCK_TOKENS).saturating_mul(*concurrency);
        CacheSize { block_tokens: BLOCK_TOKENS, blocks, prefix_cache: false }
    }

    fn stats(&self) -> EngineStats {
        let inner = &self.0;
        let running = inner.running.load(Ordering::Relaxed);
        let generated_tokens = inner.generated_tokens.load(Ordering::Relaxed);
        let age_ms = inner.now_ms().saturating_sub(inner.last_step_ms.load(Ordering::Relaxed));
        EngineStats {
            running,
            waiting: inner.waiting.load(Ordering::Relaxed),
            prompt_tokens: inner.prompt_tokens.load(Ordering::Relaxed),
            generated_tokens,
            steps: generated_tokens,
            kv_used: f64::from(running) / f64::from(inner.concurrency.max(1)),
            last_step_age_ms: if running == 0 { 0 } else { age_ms },
            ..EngineStats::default()
        }
    }

    fn chat_format(&self) -> &ChatFormat {
        &self.0.format
    }

    /// The texts of all messages, one after the other.
    fn encode_chat(&self, prompt: &ChatPrompt) -> Result<EncodedChat, PromptError> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let texts = prompt.messages.iter().filter_map(|message| match &message["content"] {
            Value::Array(parts) => Some(parts.iter().filter_map(|part| text(&part["text"])).collect()),
            content => text(content),
        });
        let tokens = texts.collect::<String>().chars().map(u32::from).collect();
        Ok(EncodedChat { tokens, reasoning_start: ReasoningStart::Undecided })
    }

    fn encode_text(&self, text: &str, _: bool) -> Result<Vec<u32>, PromptError> {
        Ok(text.chars().map(u32::from).collect())
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, PromptError> {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| self.token_bytes(*token)).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn token_bytes(&self, token: u32) -> Vec<u8> {
        let word =
            token.checked_sub(CHARACTERS).and_then(|word| self.0.words.get(usize::try_from(word).ok()?));
        let character = || char::from_u32(token).map(String::from);
        word.cloned().or_else(character).unwrap_or_default().into_bytes()
    }

    /// Nothing here could keep to one.
    fn compile_grammar(&self, _: &GrammarSource, _: ClientKey) -> Result<Grammar, GrammarError> {
        Err(GrammarError::Refused("a fake engine says what its script says".to_owned()))
    }

    fn reserve(&self, _: &Caller) -> Result<Box<dyn Place>, SubmitError> {
        let inner = &self.0;
        if inner.draining.load(Ordering::Relaxed) {
            return Err(SubmitError::Draining);
        }
        let waiting = inner.waiting.load(Ordering::Relaxed);
        if waiting >= QUEUE_REQUESTS {
            return Err(SubmitError::QueueFull { waiting, retry_after: RETRY_AFTER });
        }
        inner.waiting.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Waiting { engine: self.clone(), since: Instant::now() }))
    }

    fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    fn failed(&self) -> Option<EngineFailure> {
        None
    }
}

impl Place for Waiting {
    fn submit(self: Box<Self>, request: GenerationRequest) -> Result<Generation, SubmitError> {
        let engine = self.engine.clone();
        let inner = Arc::clone(&engine.0);
        let prompt_tokens = inner.check(&request.prompt_tokens)?;
        let probe = inner.generations.fetch_add(1, Ordering::Relaxed) == 0;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let runtime = inner.runtime.clone();
        runtime.spawn(async move {
            tokio::select! {
                () = inner.generate(request, prompt_tokens, probe, *self, &sender) => {}
                () = sender.closed() => {}
            }
        });
        Ok(Generation { prompt_tokens, events })
    }

    /// A vector of length 1 whose direction is the prompt's length.
    fn embed(self: Box<Self>, request: EmbeddingRequest) -> Result<PendingEmbedding, SubmitError> {
        let prompt_tokens = self.engine.0.check(&request.prompt_tokens)?;
        let (sender, answer) = oneshot::channel();
        let (sine, cosine) = (prompt_tokens as f32).sin_cos();
        let usage = Usage { prompt_tokens, ..Usage::default() };
        // Whoever asked still holds the other end.
        let _ =
            sender.send(Ok(Embedding { values: vec![sine, cosine], usage, waited: self.since.elapsed() }));
        Ok(PendingEmbedding { prompt_tokens, answer })
    }
}

impl Inner {
    fn check(&self, prompt: &[u32]) -> Result<u32, SubmitError> {
        let ModelInfo { context, vocab_size, .. } = self.info;
        let tokens = prompt.len();
        if tokens == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        if let Some(&token) = prompt.iter().find(|token| **token >= vocab_size) {
            return Err(SubmitError::UnknownToken { token, vocab_size });
        }
        let fits = u32::try_from(tokens).ok().filter(|tokens| *tokens < context);
        fits.ok_or(SubmitError::PromptTooLong { prompt_tokens: tokens, context })
    }

    /// What is told of a token: the same numbers whatever it is.
    fn judged(&self, token: u32, top: u32) -> TokenLogprob {
        let words = u32::try_from(self.words.len()).unwrap_or(u32::MAX);
        let others = (0..words).map(|word| CHARACTERS + word).filter(|word| *word != token);
        let ranked = std::iter::once(token).chain(others).take(usize::try_from(top).unwrap_or(usize::MAX));
        let top = ranked.zip(1_u8..).map(|(token, rank)| (token, LOGPROB * f32::from(rank))).collect();
        TokenLogprob { token, logprob: LOGPROB, top }
    }

    async fn generate(
        &self,
        request: GenerationRequest,
        prompt_tokens: u32,
        probe: bool,
        waiting: Waiting,
        events: &mpsc::Sender<GenerationEvent>,
    ) {
        let Ok(_slot) = self.slots.acquire().await else { return };
        self.last_step_ms.store(self.now_ms(), Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        let _running = Running(&self.running);
        let start = Start { waited: waiting.since.elapsed(), cached_tokens: 0 };
        drop(waiting);
        if events.send(GenerationEvent::Started(start)).await.is_err() {
            return;
        }
        self.prompt_tokens.fetch_add(u64::from(prompt_tokens), Ordering::Relaxed);
        let LogprobOptions { sampled, prompt } = request.logprobs;
        if let Some(top) = prompt {
            let judged = request.prompt_tokens.iter().skip(1).map(|token| self.judged(*token, top)).collect();
            if events.send(GenerationEvent::Prompt(judged)).await.is_err() {
                return;
            }
        }
        let max_tokens = request.max_tokens.min(self.info.context - prompt_tokens);
        let mut usage = Usage { prompt_tokens, ..Usage::default() };
        let mut reason = FinishReason::Stop;
        let end = self.answer_bytes(&request.ends);
        let mut bytes = 0;
        for (token, word) in self.spoken(request.ends.ignore_eos) {
            let text = word.get(..end.saturating_sub(bytes).min(word.len())).unwrap_or(word);
            if text.is_empty() {
                reason = FinishReason::StopString;
                break;
            }
            if request.ends.stop_token_ids.contains(&token) {
                reason = FinishReason::StopToken(token);
                break;
            }
            if usage.completion_tokens == max_tokens {
                reason = FinishReason::Length;
                break;
            }
            bytes += word.len();
            tokio::time::sleep(self.script.token_delay).await;
            if !probe && !self.survives_token().await {
                return;
            }
            usage.completion_tokens += 1;
            self.generated_tokens.fetch_add(1, Ordering::Relaxed);
            self.last_step_ms.store(self.now_ms(), Ordering::Relaxed);
            let logprob = sampled.map(|top| self.judged(token, top));
            let piece = Piece { text: text.to_owned(), tokens: vec![SampledToken { token, logprob }] };
            if events.send(GenerationEvent::Text(piece)).await.is_err() {
                return;
            }
        }
        if probe {
            self.hold(self.script.balloon_bytes);
        }
        // A reader that has gone in this moment needs no end.
        let _ = events.send(GenerationEvent::Finished { reason, usage }).await;
    }

    /// Counts one token, and lets the script's fault happen if this one is after the last good one. `false` = died.
    async fn survives_token(&self) -> bool {
        let before = self.counted_tokens.fetch_add(1, Ordering::Relaxed);
        if self.script.die_after_tokens.is_some_and(|last| before >= last) {
            (self.die)();
            return false;
        }
        if self.script.hang_after_tokens.is_some_and(|last| before >= last) {
            std::future::pending::<()>().await;
        }
        true
    }

    fn hold(&self, bytes: usize) {
        if bytes > 0 {
            // Written, not only reserved: untouched pages would not be resident.
            self.held.lock().unwrap_or_else(PoisonError::into_inner).push(vec![1; bytes]);
        }
    }

    /// Tokens and words of the answer; without an end, over and over.
    fn spoken(&self, endless: bool) -> impl Iterator<Item = (u32, &str)> {
        let rounds = if endless && !self.words.is_empty() { usize::MAX } else { 1 };
        let words = self.words.iter().map(String::as_str);
        std::iter::repeat_n((), rounds).flat_map(move |()| (CHARACTERS..).zip(words.clone()))
    }

    /// Bytes of the answer before the first stop string in it.
    fn answer_bytes(&self, ends: &Ends) -> usize {
        let stops = ends.stop.iter().filter_map(|stop| self.script.answer.find(stop.as_str()));
        stops.min().unwrap_or(usize::MAX)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
