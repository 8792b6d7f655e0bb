//! The loop: take in, schedule, run, sample, emit.

mod embedding;
mod generation;
mod live;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, TryRecvError},
    },
};

use crate::{
    batch::{ForwardError, ForwardPass},
    failure::EngineFailure,
    grammar::MaskThreads,
    kv::BlockPool,
    request::{FinishReason, GenerationError},
    reservation::{Message, Submission},
    sample::{Sampler, TokenRequest, TokenRequests},
    schedule::{Arrival, Part, ScheduleLimits, SequenceId, State, Step},
    shared::{Shared, milliseconds},
};
use live::{Advance, LiveRequest, Share};

/// Owns the device and all requests. Blocks when there is nothing to do.
pub(crate) struct Worker {
    forward: Box<dyn ForwardPass>,
    shared: Arc<Shared>,
    messages: Receiver<Message>,
    schedule: State,
    requests: BTreeMap<SequenceId, LiveRequest>,
    sampler: Sampler,
    masks: MaskThreads,
    next_id: u64,
}

/// How a request ended.
type End = Result<FinishReason, GenerationError>;

/// What the tokens of a step are chosen by.
struct StepRequests<'a> {
    parts: &'a [Part],
    requests: &'a mut BTreeMap<SequenceId, LiveRequest>,
}

impl TokenRequests for StepRequests<'_> {
    fn of(&mut self, sequence: usize) -> Option<TokenRequest<'_>> {
        let part = self.parts.get(sequence).filter(|part| part.complete)?;
        self.requests.get_mut(&part.id)?.request()
    }
}

/// Says that the worker has ended when it does, be it by unwinding.
struct Ending<'a>(&'a Shared);

impl Worker {
    pub(crate) fn new(
        forward: Box<dyn ForwardPass>,
        shared: Arc<Shared>,
        messages: Receiver<Message>,
        masks: MaskThreads,
    ) -> Self {
        let limits = ScheduleLimits {
            tokens_per_step: forward.tokens_max(),
            sequences: forward.sequences_max(),
            logit_rows: forward.logit_rows_max(),
            prefix_cache: shared.prefix_cache,
        };
        let schedule = State::new(limits, BlockPool::new(shared.kv_blocks));
        let (requests, sampler) = (BTreeMap::new(), Sampler::default());
        Self { forward, shared, messages, schedule, requests, sampler, masks, next_id: 0 }
    }

    /// Works until told to stop, until a forward pass fails, or until nobody is left to ask. Requests unfinished by then
    /// end when they are dropped.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _ending = Ending(&shared);
        while self.take_in() {
            if let Err(error) = self.step() {
                tracing::error!(%error, running = self.schedule.running(), "engine failed");
                shared.fail(EngineFailure::from(&error));
                return;
            }
        }
        tracing::info!(unfinished = self.requests.len(), "engine stopped");
    }

    /// Takes in all that was sent, and waits for something if there is nothing to do. False when it is time to end.
    fn take_in(&mut self) -> bool {
        loop {
            let message = if self.schedule.is_empty() {
                self.messages.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.messages.try_recv()
            };
            match message {
                Ok(Message::Submit(submission)) => self.accept(*submission),
                Ok(Message::Stop) => return false,
                Err(_) => return !self.schedule.is_empty(),
            }
        }
    }

    fn accept(&mut self, submission: Submission) {
        let Submission { caller, work, accepted } = submission;
        let gauges = &self.shared.gauges;
        if self.schedule.is_empty() {
            gauges.last_step_ms.store(self.shared.now_ms(), Relaxed);
        }
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        let (request, tokens, purpose) = LiveRequest::new(work, accepted, &self.shared.text);
        gauges.prompt_tokens.fetch_add(u64::from(request.usage.prompt_tokens), Relaxed);
        let (client, priority, cache_salt) = (caller.client, caller.priority, caller.cache_salt);
        self.schedule.enqueue(Arrival { id, client, priority, cache_salt, purpose, tokens });
        self.requests.insert(id, request);
    }

    fn step(&mut self) -> Result<(), ForwardError> {
        self.give_up();
        let step = self.schedule.step();
        let now = self.shared.now();
        for admitted in &step.admitted {
            if let Some(request) = self.requests.get_mut(&admitted.id) {
                request.start(now, admitted.cached_tokens);
            }
        }
        if step.batch.tokens.is_empty() {
            self.publish();
            return Ok(());
        }
        self.shared.gauges.begin_step(self.shared.now_ms());
        self.publish();
        let ended = self.compute(&step)?;
        let limit_ms = milliseconds(self.shared.timeouts.step);
        if let Some(took_ms) = self.shared.gauges.end_step(self.shared.now_ms(), limit_ms) {
            tracing::warn!(took_ms, limit_ms, tokens = step.batch.tokens.len(), "step took too long");
        }
        self.end(ended);
        Ok(())
    }

    /// Runs a step and takes its tokens on. Tells who has ended with it.
    fn compute(&mut self, step: &Step) -> Result<Vec<(SequenceId, End)>, ForwardError> {
        for part in step.parts.iter().filter(|part| part.complete) {
            if let Some(request) = self.requests.get_mut(&part.id) {
                request.begin(&self.masks);
            }
        }
        let mut requests = StepRequests { parts: &step.parts, requests: &mut self.requests };
        let output = self.forward.step(&step.batch, &mut requests)?;
        let mut ended = Vec::new();
        let mut sampled = 0;
        let sequences = step.parts.iter().zip(&step.batch.sequences);
        for ((part, sequence), output) in sequences.zip(output.by_sequence(&step.batch)) {
            let share = Share { position: sequence.position, complete: part.complete, output: output? };
            let Some(request) = self.requests.get_mut(&part.id) else { continue };
            let before = request.usage.completion_tokens;
            match request.advance(&mut self.sampler, share, &self.shared.text) {
                Ok(Advance::Computed) => {}
                Ok(Advance::Token(token)) => self.schedule.append(part.id, token),
                Ok(Advance::End(reason)) => ended.push((part.id, Ok(reason))),
                Err(error) => ended.push((part.id, Err(error))),
            }
            sampled += u64::from(request.usage.completion_tokens - before);
        }
        self.shared.gauges.generated_tokens.fetch_add(sampled, Relaxed);
        Ok(ended)
    }

    /// Ends the requests nobody reads any more, and those that took too long, wherever they are.
    fn give_up(&mut self) {
        let (now, timeouts) = (self.shared.now(), &self.shared.timeouts);
        let given_up =
            |(&id, request): (&SequenceId, &LiveRequest)| Some((id, request.given_up(now, timeouts)?));
        let ended: Vec<_> = self.requests.iter().filter_map(given_up).collect();
        if !ended.is_empty() {
            self.end(ended);
        }
    }

    /// Ends requests: first their blocks are free and the gauges say so, then their readers hear of it.
    fn end(&mut self, ended: Vec<(SequenceId, End)>) {
        let mut endings = Vec::with_capacity(ended.len());
        for (id, end) in ended {
            self.schedule.remove(id);
            endings.extend(self.requests.remove(&id).map(|request| (request, end)));
        }
        self.publish();
        for (request, end) in endings {
            match end {
                Ok(reason) => request.finish(&self.shared.text, reason),
                Err(error) => request.fail(error),
            }
        }
    }

    fn publish(&self) {
        let gauges = &self.shared.gauges;
        let counts = self.schedule.counts();
        let blocks_free = u32::try_from(self.schedule.pool().free_blocks()).unwrap_or(u32::MAX);
        gauges.running.store(u32::try_from(self.schedule.running()).unwrap_or(u32::MAX), Relaxed);
        gauges.kv_blocks_used.store(self.shared.kv_blocks.saturating_sub(blocks_free), Relaxed);
        gauges.preemptions.store(counts.preemptions, Relaxed);
        gauges.cache_queries.store(counts.cache_queries, Relaxed);
        gauges.cache_hits.store(counts.cache_hits, Relaxed);
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(EngineFailure::other("the worker panicked"));
        }
        self.0.end();
    }
}
