//! The engine as a server sees it: cheap to clone, safe to call from any task.
//!
//! Nothing here waits for the worker: a submission is checked, counted and sent; statistics are read from atomics.

use std::{
    hash::BuildHasher,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

use thiserror::Error;

use crate::{
    batch::ForwardPass,
    output::Output,
    request::{Generation, GenerationRequest, ValidRequest},
    shared::Shared,
    stats::EngineStats,
    text::Text,
    worker::Worker,
};

/// What clients may know about the served model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Tokens one sequence may hold: the context asked for, or what the whole KV pool holds where that is less.
    pub context: u32,
    pub vocab_size: u32,
    pub has_chat_template: bool,
}

/// What the engine was loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLimits {
    /// Tokens one sequence may hold, prompt and answer together.
    pub context: u32,
    /// Blocks of [`sparkherd_footprint::BLOCK_TOKENS`] tokens in the KV pool.
    pub kv_blocks: u32,
    /// Rows of the embedding; every prompt token is below it.
    pub vocab_size: u32,
    /// Requests that may wait beside the `ForwardPass::sequences_max` that run.
    pub queue_requests: u32,
}

#[derive(Debug, Error)]
pub enum StartError {
    #[error("{name} is {value}, must be at least {least}")]
    TooSmall { name: &'static str, value: u32, least: u32 },
    #[error("cannot start the worker thread: {0}")]
    Thread(#[from] std::io::Error),
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SubmitError {
    #[error("prompt is empty")]
    EmptyPrompt,
    #[error("prompt of {prompt_tokens} tokens leaves no room for an answer in the context of {context}")]
    PromptTooLong { prompt_tokens: usize, context: u32 },
    #[error("token {token} is not below the vocabulary size {vocab_size}")]
    UnknownToken { token: u32, vocab_size: u32 },
    #[error("{name} is {value}, must be {allowed}")]
    OutOfRange { name: &'static str, value: String, allowed: &'static str },
    #[error("queue is full: {waiting} requests wait")]
    QueueFull { waiting: u32 },
    #[error("engine is draining")]
    Draining,
    #[error("engine has stopped")]
    Stopped,
}

/// What the worker is told.
#[derive(Debug)]
pub(crate) enum Message {
    Submit(Box<(ValidRequest, Output)>),
    Stop,
}

/// Starts engines.
#[derive(Clone, Copy, Debug)]
pub struct Engine;

impl Engine {
    /// Starts the worker, the one thread that owns `forward`. It ends after [`EngineHandle::stop`], after a failed forward
    /// pass, or when every handle is gone and nothing runs.
    pub fn start(
        forward: Box<dyn ForwardPass>,
        text: Text,
        limits: EngineLimits,
    ) -> Result<(EngineHandle, JoinHandle<()>), StartError> {
        let sequences_max = u32::try_from(forward.sequences_max()).unwrap_or(u32::MAX);
        // A context of 2 is one token of prompt and one of answer.
        let tokens_max = u32::try_from(forward.tokens_max()).unwrap_or(u32::MAX);
        let sizes = [
            ("context", limits.context, 2),
            ("kv_blocks", limits.kv_blocks, 1),
            ("vocab_size", limits.vocab_size, 1),
            ("sequences_max", sequences_max, 1),
            ("tokens_max", tokens_max, 1),
        ];
        if let Some((name, value, least)) = sizes.into_iter().find(|(_, value, least)| value < least) {
            return Err(StartError::TooSmall { name, value, least });
        }
        let shared = Arc::new(Shared::new(text, limits, sequences_max));
        let (inbox, messages): (Sender<Message>, Receiver<Message>) = channel();
        let worker = Worker::new(forward, Arc::clone(&shared), messages);
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || worker.run())?;
        Ok((EngineHandle { shared, inbox }, thread))
    }
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    shared: Arc<Shared>,
    inbox: Sender<Message>,
}

impl EngineHandle {
    pub fn info(&self) -> &ModelInfo {
        &self.shared.info
    }

    pub fn text(&self) -> &Text {
        &self.shared.text
    }

    /// Accepts a request, or says why not. An accepted one ends in exactly one `Finished` or `Failed` (I19).
    ///
    /// A request without a seed gets a random one.
    pub fn submit(&self, request: GenerationRequest) -> Result<Generation, SubmitError> {
        let random_seed = std::hash::RandomState::new().hash_one(());
        let request = request.validate(&self.shared.info, random_seed)?;
        let place = Shared::take_place(&self.shared)?;
        let prompt_tokens = request.usage.prompt_tokens;
        let (output, events) = Output::new(place, &self.shared.text, &request);
        self.inbox.send(Message::Submit(Box::new((request, output)))).map_err(|_| SubmitError::Stopped)?;
        Ok(Generation { prompt_tokens, events })
    }

    pub fn stats(&self) -> EngineStats {
        self.shared.stats()
    }

    /// Refuses new requests from now on; accepted ones, running or waiting, go on to their end.
    pub fn drain(&self) {
        self.shared.drain();
    }

    /// Ends the worker after its current step. Unfinished requests fail with `GenerationError::Draining`.
    pub fn stop(&self) {
        self.drain();
        // A worker that has ended already needs no telling.
        let _ = self.inbox.send(Message::Stop);
    }

    /// Whether every accepted request has ended; its last event may be a moment away. After `drain` it stays true once it is.
    pub fn is_idle(&self) -> bool {
        self.shared.is_idle()
    }

    /// Why the engine failed, if it did; it then serves nothing any more.
    pub fn failed(&self) -> Option<String> {
        self.shared.failure().map(str::to_owned)
    }
}
