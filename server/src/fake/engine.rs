use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sparkherd_engine::{
    EngineStats, FinishReason, Generation, GenerationEvent, GenerationRequest, ModelInfo, Piece, SubmitError,
    Usage,
};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::Script;
use crate::engine::{ChatEngine, ChatMessage, PromptError};

/// Tokens are Unicode characters.
const VOCAB_SIZE: u32 = 0x11_0000;
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

/// A counter's place, given back on drop.
struct Place<'a>(&'a AtomicU32);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FakeEngine {
    /// `context` tokens a sequence, `concurrency` sequences together; `die` is what `die-after` calls, and what runs then
    /// ends without a word should it return. Generations run on `runtime`.
    pub fn new(script: Script, context: u32, concurrency: u32, runtime: Handle, die: fn()) -> Self {
        let slots = Semaphore::new(usize::try_from(concurrency).unwrap_or(Semaphore::MAX_PERMITS));
        Self(Arc::new(Inner {
            script,
            info: ModelInfo { context, vocab_size: VOCAB_SIZE, has_chat_template: true },
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

    fn encode_chat(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, PromptError> {
        Ok(messages.iter().flat_map(|message| message.content.chars().map(u32::from)).collect())
    }

    fn encode_text(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        Ok(text.chars().map(u32::from).collect())
    }

    fn submit(&self, request: GenerationRequest) -> Result<Generation, SubmitError> {
        let inner = &self.0;
        let prompt_tokens = inner.check(&request)?;
        let probe = inner.generations.fetch_add(1, Ordering::Relaxed) == 0;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        inner.waiting.fetch_add(1, Ordering::Relaxed);
        let inner = Arc::clone(inner);
        let runtime = inner.runtime.clone();
        runtime.spawn(async move {
            tokio::select! {
                () = inner.generate(request, prompt_tokens, probe, &sender) => {}
                () = sender.closed() => {}
            }
        });
        Ok(Generation { prompt_tokens, events })
    }

    fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    fn failed(&self) -> Option<String> {
        None
    }
}

impl Inner {
    fn check(&self, request: &GenerationRequest) -> Result<u32, SubmitError> {
        let context = self.info.context;
        let tokens = request.prompt_tokens.len();
        if self.draining.load(Ordering::Relaxed) {
            return Err(SubmitError::Draining);
        }
        if tokens == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        let waiting = self.waiting.load(Ordering::Relaxed);
        if waiting >= QUEUE_REQUESTS {
            return Err(SubmitError::QueueFull { waiting, retry_after: RETRY_AFTER });
        }
        if let Some(&token) = request.prompt_tokens.iter().find(|token| **token >= VOCAB_SIZE) {
            return Err(SubmitError::UnknownToken { token, vocab_size: VOCAB_SIZE });
        }
        let fits = u32::try_from(tokens).ok().filter(|tokens| *tokens < context);
        fits.ok_or(SubmitError::PromptTooLong { prompt_tokens: tokens, context })
    }

    async fn generate(
        &self,
        request: GenerationRequest,
        prompt_tokens: u32,
        probe: bool,
        events: &mpsc::Sender<GenerationEvent>,
    ) {
        let waiting = Place(&self.waiting);
        let Ok(_slot) = self.slots.acquire().await else { return };
        self.last_step_ms.store(self.now_ms(), Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        let _running = Place(&self.running);
        drop(waiting);
        self.prompt_tokens.fetch_add(u64::from(prompt_tokens), Ordering::Relaxed);
        let answer = until_stop(&self.script.answer, &request.ends.stop);
        let max_tokens = request.max_tokens.min(self.info.context - prompt_tokens);
        let mut usage = Usage { prompt_tokens, ..Usage::default() };
        let mut reason = FinishReason::Stop;
        for word in answer.split_inclusive(' ') {
            if usage.completion_tokens == max_tokens {
                reason = FinishReason::Length;
                break;
            }
            tokio::time::sleep(self.script.token_delay).await;
            if !probe && !self.survives_token().await {
                return;
            }
            usage.completion_tokens += 1;
            self.generated_tokens.fetch_add(1, Ordering::Relaxed);
            self.last_step_ms.store(self.now_ms(), Ordering::Relaxed);
            if events
                .send(GenerationEvent::Text(Piece { text: word.to_owned(), tokens: Vec::new() }))
                .await
                .is_err()
            {
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

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn until_stop<'a>(answer: &'a str, stops: &[String]) -> &'a str {
    let end = stops.iter().filter_map(|stop| answer.find(stop.as_str())).min();
    end.and_then(|end| answer.get(..end)).unwrap_or(answer)
}
