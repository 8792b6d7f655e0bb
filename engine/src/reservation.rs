use std::{hash::BuildHasher, sync::mpsc::Sender, time::Duration};

use crate::{
    embedding_output::EmbeddingOutput,
    output::Output,
    request::{
        Caller, EmbeddingRequest, Generation, GenerationRequest, PendingEmbedding, SubmitError,
        ValidEmbedding, ValidRequest,
    },
    shared::Place,
};

/// What the worker is told.
#[derive(Debug)]
pub(crate) enum Message {
    Submit(Box<Submission>),
    Stop,
}

/// An accepted request on its way to the worker.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) caller: Caller,
    pub(crate) work: Work,
    /// When its place was counted, by the engine's clock.
    pub(crate) accepted: Duration,
}

/// What is asked for, and where it goes.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a submission is boxed whole")]
pub(crate) enum Work {
    Generate(ValidRequest, Output),
    Embed(ValidEmbedding, EmbeddingOutput),
}

/// A place that is counted for one request. Dropping it gives the place back.
#[derive(Debug)]
pub struct Reservation {
    pub(crate) place: Place,
    pub(crate) accepted: Duration,
    pub(crate) caller: Caller,
    pub(crate) inbox: Sender<Message>,
}

impl Reservation {
    /// Accepts the request, or says why not. An accepted one ends in exactly one `Finished` or `Failed` (I19).
    ///
    /// A request without a seed gets a random one.
    pub fn submit(self, request: GenerationRequest) -> Result<Generation, SubmitError> {
        let Self { mut place, accepted, caller, inbox } = self;
        let random_seed = std::hash::RandomState::new().hash_one(());
        let request = request.validate(&place.shared().info, random_seed)?;
        let prompt_tokens = request.usage.prompt_tokens;
        place.add_prompt(u64::from(prompt_tokens))?;
        let (output, events) = Output::new(place, &request);
        let submission = Submission { caller, work: Work::Generate(request, output), accepted };
        inbox.send(Message::Submit(Box::new(submission))).map_err(|_| SubmitError::Stopped)?;
        Ok(Generation { prompt_tokens, events })
    }

    /// Accepts a text to embed, or says why not. An accepted one gets exactly one answer (I19).
    pub fn embed(self, request: EmbeddingRequest) -> Result<PendingEmbedding, SubmitError> {
        let Self { mut place, accepted, caller, inbox } = self;
        let request = request.validate(&place.shared().info)?;
        let prompt_tokens = request.usage.prompt_tokens;
        place.add_prompt(u64::from(prompt_tokens))?;
        let (output, answer) = EmbeddingOutput::new(place);
        let submission = Submission { caller, work: Work::Embed(request, output), accepted };
        inbox.send(Message::Submit(Box::new(submission))).map_err(|_| SubmitError::Stopped)?;
        Ok(PendingEmbedding { prompt_tokens, answer })
    }
}
