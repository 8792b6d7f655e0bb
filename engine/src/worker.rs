//! The loop: take in, schedule, run, sample, emit.

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
    kv::BlockPool,
    output::Output,
    request::{Ends, FinishReason, GenerationError, SampledToken, Sampling, Usage, ValidRequest},
    reservation::{Message, Submission},
    sample::{Draw, Sampler},
    schedule::{ScheduleLimits, SequenceId, State},
    shared::Shared,
    text::Text,
};

/// Owns the device and all requests. Blocks when there is nothing to do.
pub(crate) struct Worker {
    forward: Box<dyn ForwardPass>,
    shared: Arc<Shared>,
    messages: Receiver<Message>,
    schedule: State,
    requests: BTreeMap<SequenceId, Request>,
    sampler: Sampler,
    next_id: u64,
}

/// What the scheduler need not know of a request.
struct Request {
    output: Output,
    sampling: Sampling,
    seed: u64,
    ends: Ends,
    max_tokens: u32,
    usage: Usage,
}

/// Says that the worker has ended when it does, be it by unwinding.
struct Ending<'a>(&'a Shared);

impl Worker {
    pub(crate) fn new(
        forward: Box<dyn ForwardPass>,
        shared: Arc<Shared>,
        messages: Receiver<Message>,
    ) -> Self {
        let limits =
            ScheduleLimits { tokens_per_step: forward.tokens_max(), sequences: forward.sequences_max() };
        let schedule = State::new(limits, BlockPool::new(shared.kv_blocks));
        let (requests, sampler) = (BTreeMap::new(), Sampler::default());
        Self { forward, shared, messages, schedule, requests, sampler, next_id: 0 }
    }

    /// Works until told to stop, until a forward pass fails, or until nobody is left to ask. Requests unfinished by then
    /// end when they are dropped.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _ending = Ending(&shared);
        while self.take_in() {
            if let Err(error) = self.step() {
                tracing::error!(%error, running = self.schedule.running(), "engine failed");
                shared.fail(error.to_string());
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
        let Submission { caller: _, request, output } = submission;
        let gauges = &self.shared.gauges;
        if self.schedule.is_empty() {
            gauges.last_step_ms.store(self.shared.now_ms(), Relaxed);
        }
        gauges.prompt_tokens.fetch_add(u64::from(request.usage.prompt_tokens), Relaxed);
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.schedule.enqueue(id, request.prompt);
        let ValidRequest { sampling, seed, ends, max_tokens, usage, .. } = request;
        self.requests.insert(id, Request { output, sampling, seed, ends, max_tokens, usage });
    }

    fn step(&mut self) -> Result<(), ForwardError> {
        self.forget_cancelled();
        let step = self.schedule.step();
        self.publish();
        if step.batch.tokens.is_empty() {
            return Ok(());
        }
        let output = self.forward.forward(&step.batch)?;
        let mut ended = Vec::new();
        for (row, &id) in step.sampled.iter().enumerate() {
            let Some(request) = self.requests.get_mut(&id) else { continue };
            let logits = output.logits.row(row).ok_or_else(|| {
                ForwardError::Inconsistent(format!(
                    "{} sequences wanted logits, got {row} rows",
                    step.sampled.len()
                ))
            })?;
            match request.advance(&mut self.sampler, logits, &self.shared.text) {
                Ok((token, None)) => self.schedule.append(id, token),
                Ok((_, Some(end))) => ended.push((id, Ok(end))),
                Err(error) => ended.push((id, Err(error))),
            }
        }
        let gauges = &self.shared.gauges;
        gauges.generated_tokens.fetch_add(step.sampled.len() as u64, Relaxed);
        gauges.steps.fetch_add(1, Relaxed);
        gauges.last_step_ms.store(self.shared.now_ms(), Relaxed);
        self.end(ended);
        Ok(())
    }

    /// Frees what requests hold whose reader is gone.
    fn forget_cancelled(&mut self) {
        let gone = |(&id, request): (&SequenceId, &Request)| {
            request.output.is_cancelled().then_some((id, Ok(FinishReason::Length)))
        };
        let cancelled = self.requests.iter().filter_map(gone).collect();
        self.end(cancelled);
    }

    /// Ends requests: first their blocks are free and the gauges say so, then their readers hear of it.
    fn end(&mut self, ended: Vec<(SequenceId, Result<FinishReason, GenerationError>)>) {
        let mut endings = Vec::with_capacity(ended.len());
        for (id, end) in ended {
            self.schedule.remove(id);
            endings.extend(self.requests.remove(&id).map(|request| (request, end)));
        }
        self.publish();
        for (request, end) in endings {
            match end {
                Ok(end) => request.output.finish(&self.shared.text, end, request.usage),
                Err(error) => request.output.fail(error),
            }
        }
    }

    fn publish(&self) {
        let gauges = &self.shared.gauges;
        let blocks_free = u32::try_from(self.schedule.pool().free_blocks()).unwrap_or(u32::MAX);
        gauges.running.store(u32::try_from(self.schedule.running()).unwrap_or(u32::MAX), Relaxed);
        gauges.kv_blocks_used.store(self.shared.kv_blocks.saturating_sub(blocks_free), Relaxed);
        gauges.preemptions.store(self.schedule.preemptions(), Relaxed);
    }
}

impl Request {
    /// Chooses the next token and sends its text. Tells the token, and the end if this was the last one.
    fn advance(
        &mut self,
        sampler: &mut Sampler,
        logits: &[f32],
        text: &Text,
    ) -> Result<(u32, Option<FinishReason>), GenerationError> {
        self.output.prompt_computed();
        let position = u64::from(self.usage.prompt_tokens) + u64::from(self.usage.completion_tokens);
        let token = sampler
            .choose(logits, &self.sampling, Draw { seed: self.seed, position })
            .map_err(|error| GenerationError::Engine(error.to_string()))?;
        self.usage.completion_tokens += 1;
        let may_end = self.usage.completion_tokens > self.ends.min_tokens;
        if let Some(reason) = self.ended_by(token, text).filter(|_| may_end) {
            return Ok((token, Some(reason)));
        }
        if self.output.push(text, SampledToken { token, logprob: None }, may_end)? {
            return Ok((token, Some(FinishReason::StopString)));
        }
        let used_up = self.usage.completion_tokens >= self.max_tokens;
        Ok((token, used_up.then_some(FinishReason::Length)))
    }

    fn ended_by(&self, token: u32, text: &Text) -> Option<FinishReason> {
        if self.ends.stop_token_ids.contains(&token) {
            return Some(FinishReason::StopToken(token));
        }
        let ends = !self.ends.ignore_eos && text.eos_token_ids().binary_search(&token).is_ok();
        ends.then_some(FinishReason::Stop)
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("the worker panicked".to_owned());
        }
        self.0.end();
    }
}
