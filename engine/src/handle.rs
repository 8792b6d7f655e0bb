//! The engine as a server sees it: cheap to clone, safe to call from any task.
//!
//! Nothing here waits for the worker: a submission is checked, counted and sent; statistics are read from atomics.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

use sparkherd_footprint::{BLOCK_TOKENS, GrammarRoom};
use thiserror::Error;

use crate::{
    batch::ForwardPass,
    clock::Clock,
    failure::EngineFailure,
    grammar::{Grammar, GrammarCompiler, GrammarError, GrammarSource, MaskThreads},
    limits::{CacheSize, EngineLimits},
    request::{Caller, ClientKey, SubmitError},
    reservation::{Message, Reservation},
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
    /// Whether it has an output head. One without turns texts into vectors and generates none.
    pub generates: bool,
    /// Numbers of one vector.
    pub hidden: usize,
    /// Prompt tokens that all sequences of one request may have, where it has several: more could never wait together.
    pub request_prompt_tokens_max: u64,
}

#[derive(Debug, Error)]
pub enum StartError {
    #[error("{name} is {value}, must be at least {least}")]
    TooSmall { name: &'static str, value: u32, least: u32 },
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    #[error(transparent)]
    Grammar(#[from] GrammarError),
}

impl ModelInfo {
    /// Refuses tokens the model has no embedding of.
    pub(crate) fn check_tokens<'a>(
        &self,
        tokens: impl IntoIterator<Item = &'a u32>,
    ) -> Result<(), SubmitError> {
        let vocab_size = self.vocab_size;
        match tokens.into_iter().find(|token| **token >= vocab_size) {
            Some(&token) => Err(SubmitError::UnknownToken { token, vocab_size }),
            None => Ok(()),
        }
    }
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
        clock: Clock,
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
        let kv_tokens = u64::from(limits.kv_blocks) * u64::from(BLOCK_TOKENS);
        let room = GrammarRoom::new(sequences_max, kv_tokens);
        let grammars = Arc::new(GrammarCompiler::new(&text, limits.vocab_size, room)?);
        let masks = MaskThreads::start()?;
        let shared = Arc::new(Shared::new(text, limits, &*forward, clock));
        let (inbox, messages): (Sender<Message>, Receiver<Message>) = channel();
        let worker = Worker::new(forward, Arc::clone(&shared), messages, masks);
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || worker.run())?;
        Ok((EngineHandle { shared, inbox, grammars }, thread))
    }
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    shared: Arc<Shared>,
    inbox: Sender<Message>,
    grammars: Arc<GrammarCompiler>,
}

impl EngineHandle {
    pub fn info(&self) -> &ModelInfo {
        &self.shared.info
    }

    pub fn text(&self) -> &Text {
        &self.shared.text
    }

    /// Counts a place for one request, before it is tokenised: that there is no room, that the client has its share, or
    /// that the engine drains is said here.
    pub fn reserve(&self, caller: &Caller) -> Result<Reservation, SubmitError> {
        let place = Shared::take_place(&self.shared, caller.account)?;
        Ok(Reservation { place, accepted: self.shared.now(), caller: *caller, inbox: self.inbox.clone() })
    }

    /// Compiles a grammar for [`crate::GenerationRequest::grammar`] of a request of `account`'s. Blocks its caller for seconds at worst, and nobody else.
    pub fn compile_grammar(
        &self,
        source: &GrammarSource,
        account: ClientKey,
    ) -> Result<Grammar, GrammarError> {
        self.grammars.compile(source, account)
    }

    pub fn cache_size(&self) -> CacheSize {
        CacheSize {
            block_tokens: BLOCK_TOKENS,
            blocks: self.shared.kv_blocks,
            prefix_cache: self.shared.prefix_cache,
        }
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
    pub fn failed(&self) -> Option<EngineFailure> {
        self.shared.failure().cloned()
    }
}
