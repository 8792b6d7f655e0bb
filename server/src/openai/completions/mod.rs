//! `POST /v1/completions`.

mod choice;
mod prompt;
mod stream;
mod whole;

use sparkherd_engine::LogprobOptions;

use super::ApiError;
use super::ask::{Ask, Endpoint, Head, Prompt, Start};
use super::fields::Fields;
use super::logprobs::TOP_LOGPROBS_MAX;
use super::parameters::Parameters;
use super::wire::{EventWriter, Members};
use crate::body::BodyKind;

use stream::CompletionStream;
use whole::CompletionWhole;

pub(super) use prompt::take_prompts;

/// OpenAI's default for this endpoint; chat has none.
const MAX_TOKENS_DEFAULT: u32 = 16;
/// Answers of one request, over all of its prompts: what evaluation harnesses send at once.
const ANSWERS_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Completions;

impl Endpoint for Completions {
    const ID_PREFIX: &'static str = "cmpl-";
    const WHOLE: &'static str = "text_completion";
    const EVENT: &'static str = "text_completion";
    const PROMPT_PARAM: &'static str = "prompt";
    const BODY: BodyKind = BodyKind::Prompts;

    type Whole = CompletionWhole;
    type Stream = CompletionStream;

    fn parse(body: &[u8]) -> Result<Ask, ApiError> {
        let mut fields = Fields::of_body(body)?;
        // A prompt that is only to be judged asks for no token behind it.
        let mut parameters = Parameters::take(&mut fields, 0)?;
        let max_tokens = *parameters.max_tokens.get_or_insert(MAX_TOKENS_DEFAULT);
        let echo = fields.take_flag("echo")?;
        if max_tokens == 0 && !echo {
            return Err(fields.invalid("max_tokens", "a whole number of at least 1 where 'echo' is not true"));
        }
        let expected = format!("a whole number from 0 to {TOP_LOGPROBS_MAX}");
        let sampled: Option<u32> = fields.take("logprobs", &expected)?;
        if sampled.is_some_and(|top| top > TOP_LOGPROBS_MAX) {
            return Err(fields.invalid("logprobs", expected));
        }
        let prompts = take_prompts(&mut fields, "prompt")?;
        if prompts.len().saturating_mul(parameters.choices as usize) > ANSWERS_MAX {
            return Err(
                fields.invalid("prompt", format!("few enough prompts for {ANSWERS_MAX} answers in all"))
            );
        }
        let logprobs = LogprobOptions { sampled, prompt: sampled.filter(|_| echo) };
        let ignored = fields.left_over().collect();
        Ok(Ask { parameters, prompt: Prompt::Texts(prompts), logprobs, echo, ignored })
    }

    fn whole(members: Members, head: Head, starts: Vec<Start>) -> CompletionWhole {
        CompletionWhole::new(members, head, starts)
    }

    fn stream(events: EventWriter, head: Head, starts: Vec<Start>) -> CompletionStream {
        CompletionStream::new(events, head, starts)
    }
}
