//! The generations of one request, with their book-keeping.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sparkherd_engine::{
    FinishReason, Generation, GenerationError, GenerationEvent, Piece, Priority, Start, TokenLogprob, Usage,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::ApiError;
use super::answer::{Answer, ChoiceNow, Documents};
use super::ask::total_usage;
use crate::metrics::Outcome;
use crate::phase::ActiveRequest;
use crate::room::RoomShare;
use crate::service::Service;

/// What one choice says next.
#[derive(Debug)]
enum Step {
    Started,
    Prompt(Vec<TokenLogprob>),
    Piece(Piece),
    Finished(FinishReason),
    Failed(ApiError),
    /// The engine is gone and has not even said so.
    Gone,
}

/// How far a request has come.
#[derive(Debug)]
pub(super) enum Progress {
    /// Something may have been written, and more will come.
    Running,
    /// More can be written at once, after others had their turn.
    Interrupted,
    /// All choices are written to their end.
    Ended,
    Failed(ApiError),
    Gone,
}

/// All choices of a request. Whatever way each ends, metrics and health hear of it once (I19).
pub(super) struct Run {
    choices: Vec<Choice>,
    /// Choices of each prompt.
    choices_each: usize,
    /// Whether sampled tokens are none of the answer.
    only_echo: bool,
    /// Whether the beginning is written.
    opened: bool,
    aborting: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    _active: ActiveRequest,
    told: Option<RoomShare>,
}

/// What a request counts as until it is answered.
#[derive(Debug)]
pub(super) struct RunHolds {
    pub(super) active: ActiveRequest,
    /// Of prompts: given back when they are written, and more is asked for.
    pub(super) told: Option<RoomShare>,
}

/// Tokens of a prompt whose probabilities are written in one go: with twenty others each, about a millisecond's work.
const JUDGED_SLICE: usize = 256;

/// What a run has to know of its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// Choices of each prompt.
    pub(super) choices_each: usize,
    /// Whether sampled tokens are none of the answer.
    pub(super) only_echo: bool,
    pub(super) priority: Priority,
    pub(super) arrived: Instant,
}

struct Choice {
    /// Gone once the choice has ended.
    events: Option<mpsc::Receiver<GenerationEvent>>,
    /// What was told of the prompt and is not yet written.
    prompt: std::vec::IntoIter<TokenLogprob>,
    /// Whether all of that is written, where events are: they come before the answer's own.
    prompt_written: bool,
    record: Record,
}

struct Record {
    service: Arc<Service>,
    priority: Priority,
    /// When the request came.
    arrived: Instant,
    /// When its first step began.
    began: Option<Instant>,
    first_piece: Option<Instant>,
    last_piece: Option<Instant>,
    /// As far as it came.
    usage: Usage,
    outcome: Outcome,
}

impl Run {
    pub(super) fn new(
        generations: Vec<Generation>,
        asked: Asked,
        service: &Arc<Service>,
        holds: RunHolds,
    ) -> Self {
        let RunHolds { active, told } = holds;
        let Asked { choices_each, only_echo, priority, arrived } = asked;
        let choices = generations.into_iter().map(|generation| {
            let usage = Usage { prompt_tokens: generation.prompt_tokens, ..Usage::default() };
            // What nobody waits to see finished was aborted.
            let record = Record {
                service: Arc::clone(service),
                priority,
                arrived,
                began: None,
                first_piece: None,
                last_piece: None,
                usage,
                outcome: Outcome::Abort,
            };
            Choice {
                events: Some(generation.events),
                prompt: Vec::new().into_iter(),
                prompt_written: false,
                record,
            }
        });
        Self {
            choices: choices.collect(),
            choices_each,
            only_echo,
            opened: false,
            aborting: Box::pin(service.lifecycle().aborting()),
            _active: active,
            told,
        }
    }

    /// Writes all that the choices have said so far. Not to be polled again after `Ended`, `Failed` or `Gone`.
    pub(super) fn poll_write(
        &mut self,
        answer: &mut impl Answer,
        out: &mut Documents,
        context: &mut Context<'_>,
    ) -> Poll<serde_json::Result<Progress>> {
        let mut wrote = false;
        // Whoever asks for more has taken what was written.
        if self.choices.iter().all(|choice| choice.prompt_written) {
            self.told = None;
        }
        if !std::mem::replace(&mut self.opened, true) {
            wrote = true;
            for (index, choice) in self.choices.iter().enumerate() {
                if let Err(error) = answer.opening(choice.now(index), out) {
                    return Poll::Ready(Err(error));
                }
            }
        }
        for (index, choice) in self.choices.iter_mut().enumerate() {
            while let Poll::Ready(step) = choice.poll_step(context) {
                wrote = true;
                let now = choice.now(index);
                let written = match step {
                    Step::Started => Ok(()),
                    Step::Prompt(tokens) => {
                        let written = answer.prompt(now, tokens, out);
                        return Poll::Ready(written.map(|()| Progress::Interrupted));
                    }
                    Step::Piece(piece) => {
                        choice.prompt_written = true;
                        answer.piece(now, piece, out)
                    }
                    Step::Finished(reason) => {
                        choice.prompt_written = true;
                        choice.events = None;
                        answer.closing(now, reason, out)
                    }
                    Step::Failed(error) => return Poll::Ready(Ok(Progress::Failed(error))),
                    Step::Gone => return Poll::Ready(Ok(Progress::Gone)),
                };
                if let Err(error) = written {
                    return Poll::Ready(Err(error));
                }
                if choice.events.is_none() {
                    break;
                }
            }
        }
        if self.choices.iter().all(|choice| choice.events.is_none()) {
            return Poll::Ready(answer.end(self.usage(), out).map(|()| Progress::Ended));
        }
        if wrote {
            return Poll::Ready(Ok(Progress::Running));
        }
        self.aborting.as_mut().poll(context).map(|()| Ok(Progress::Failed(ApiError::Draining)))
    }

    fn usage(&self) -> Usage {
        let usages: Vec<Usage> = self.choices.iter().map(|choice| choice.record.usage).collect();
        let total = total_usage(&usages, self.choices_each);
        if self.only_echo { Usage { completion_tokens: 0, ..total } } else { total }
    }
}

impl Choice {
    const fn now(&self, index: usize) -> ChoiceNow {
        ChoiceNow { index, usage: self.record.usage }
    }

    /// Pending for good once the choice has ended.
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        let Some(events) = &mut self.events else { return Poll::Pending };
        if self.prompt.len() == 0 {
            match std::task::ready!(events.poll_recv(context)) {
                Some(GenerationEvent::Prompt(tokens)) => self.prompt = tokens.into_iter(),
                event => return Poll::Ready(self.record.note(event)),
            }
        }
        Poll::Ready(Step::Prompt(self.prompt.by_ref().take(JUDGED_SLICE).collect()))
    }
}

impl Record {
    fn note(&mut self, event: Option<GenerationEvent>) -> Step {
        match event {
            Some(GenerationEvent::Started(start)) => {
                self.note_start(start);
                Step::Started
            }
            Some(GenerationEvent::Prompt(tokens)) => Step::Prompt(tokens),
            Some(GenerationEvent::Text(piece)) => {
                self.note_piece(&piece);
                Step::Piece(piece)
            }
            Some(GenerationEvent::Finished { reason, usage }) => {
                self.service.health().note_token();
                self.usage = usage;
                if let Some(began) = self.began {
                    self.service.metrics().inferred(began, self.first_piece);
                }
                self.outcome = match reason {
                    FinishReason::Stop | FinishReason::StopString | FinishReason::StopToken(_) => {
                        Outcome::Stop
                    }
                    FinishReason::Length => Outcome::Length,
                };
                Step::Finished(reason)
            }
            Some(GenerationEvent::Failed(error)) => self.note_error(&error),
            None => {
                self.note_failure();
                Step::Gone
            }
        }
    }

    fn note_start(&mut self, start: Start) {
        let Start { waited, cached_tokens } = start;
        self.usage.cached_tokens = cached_tokens;
        self.began = Some(Instant::now());
        self.service.metrics().started(self.priority, waited);
    }

    fn note_piece(&mut self, piece: &Piece) {
        let tokens = u32::try_from(piece.tokens.len()).unwrap_or(u32::MAX);
        self.usage.completion_tokens = self.usage.completion_tokens.saturating_add(tokens);
        self.service.health().note_token();
        let now = Instant::now();
        if let Some(previous) = self.last_piece.replace(now) {
            self.service.metrics().inter_token(previous);
            return;
        }
        self.first_piece = Some(now);
        self.service.metrics().first_token(self.arrived);
        if let Some(began) = self.began {
            self.service.metrics().prefilled(began);
        }
    }

    fn note_error(&mut self, error: &GenerationError) -> Step {
        if matches!(error, GenerationError::Engine(_)) {
            self.note_failure();
        }
        Step::Failed(error.into())
    }

    fn note_failure(&mut self) {
        self.service.health().note_failure();
        self.outcome = Outcome::Error;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.service.metrics().finish(self.outcome, self.arrived, self.usage);
    }
}
