//! `POST /v1/chat/completions`.

mod choice;
mod messages;
mod stream;
mod template;
mod tools;
mod whole;

use sparkherd_engine::LogprobOptions;
use sparkherd_engine::text::ChatPrompt;

use super::ApiError;
use super::ask::{Ask, Endpoint, Head, Prompt, Start};
use super::fields::Fields;
use super::logprobs::TOP_LOGPROBS_MAX;
use super::parameters::Parameters;
use super::wire::{EventWriter, Members};
use crate::body::BodyKind;

pub(crate) use tools::Tools;

use messages::take_messages;
use stream::ChatStream;
use template::{PromptEnd, take_documents, take_kwargs, take_prompt_end};
use whole::ChatWhole;

/// What [`ChatAsk::take`] reads.
pub(super) const CHAT_PROMPT_PARAMS: [&str; 10] = [
    "add_generation_prompt",
    "chat_template_kwargs",
    "continue_final_message",
    "documents",
    "enable_thinking",
    "messages",
    "parallel_tool_calls",
    "reasoning_effort",
    "tool_choice",
    "tools",
];

/// A conversation to go on with.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ChatAsk {
    pub(crate) prompt: ChatPrompt,
    pub(crate) tools: Tools,
}

impl ChatAsk {
    /// Reads what makes the prompt; `/tokenize` takes the same.
    pub(super) fn take(fields: &mut Fields<'_>, ignored: &mut Vec<String>) -> Result<Self, ApiError> {
        let messages = take_messages(fields, ignored)?;
        let tools = tools::take_tools(fields, ignored)?;
        let PromptEnd { add_generation_prompt, continue_final_message } = take_prompt_end(fields)?;
        let prompt = ChatPrompt {
            messages,
            tools: tools.shown.clone(),
            documents: take_documents(fields)?,
            template_kwargs: take_kwargs(fields)?,
            add_generation_prompt,
            continue_final_message,
        };
        Ok(Self { prompt, tools })
    }
}

#[derive(Debug)]
pub(crate) struct Chat;

impl Endpoint for Chat {
    const ID_PREFIX: &'static str = "chatcmpl-";
    const WHOLE: &'static str = "chat.completion";
    const EVENT: &'static str = "chat.completion.chunk";
    const PROMPT_PARAM: &'static str = "messages";
    const BODY: BodyKind = BodyKind::Prompt;

    type Whole = ChatWhole;
    type Stream = ChatStream;

    fn parse(body: &[u8]) -> Result<Ask, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let parameters = Parameters::take(&mut fields, 1)?;
        let logprobs = LogprobOptions { sampled: take_logprobs(&mut fields)?, prompt: None };
        if fields.take_flag("echo")? {
            return Err(ApiError::Unsupported { param: fields.path("echo"), allowed: "false" });
        }
        let mut ignored = Vec::new();
        let chat = ChatAsk::take(&mut fields, &mut ignored)?;
        ignored.extend(fields.left_over());
        Ok(Ask { parameters, prompt: Prompt::Chat(Box::new(chat)), logprobs, echo: false, ignored })
    }

    fn whole(members: Members, head: Head, starts: Vec<Start>) -> ChatWhole {
        ChatWhole::new(members, head, starts)
    }

    fn stream(events: EventWriter, head: Head, starts: Vec<Start>) -> ChatStream {
        ChatStream::new(events, head, starts)
    }
}

/// `logprobs` is a flag here, and `top_logprobs` says how many others beside each token.
fn take_logprobs(fields: &mut Fields<'_>) -> Result<Option<u32>, ApiError> {
    let wanted = fields.take_flag("logprobs")?;
    let top = fields.take_count("top_logprobs", 0)?.unwrap_or(0);
    if top > TOP_LOGPROBS_MAX {
        return Err(fields.invalid("top_logprobs", format!("a whole number from 0 to {TOP_LOGPROBS_MAX}")));
    }
    if top > 0 && !wanted {
        return Err(fields.invalid("top_logprobs", "left out unless 'logprobs' is true"));
    }
    Ok(wanted.then_some(top))
}
