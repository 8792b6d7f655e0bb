//! From an understood request to prompts of tokens, and to the grammar of their answers.

use std::sync::Arc;
use std::time::Duration;

use sparkherd_engine::text::{ParserOptions, ReasoningStart, ToolChoice};
use sparkherd_engine::{ClientKey, Grammar, GrammarError, GrammarSource, SpecialTokenText};

use super::ApiError;
use super::ask::{Endpoint, Prompt, Start, TextPrompt};
use super::chat::ChatAsk;
use super::parameters::Structure;
use super::visit::bad_prompt;
use crate::engine::{ChatEngine, PromptError};
use crate::service::Service;

/// One prompt, ready to be submitted once for each of its answers.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) tokens: Arc<[u32]>,
    /// Its text, where answers begin with it.
    echo: Option<Arc<str>>,
    /// How an answer is split; ids of calls are another thing in each.
    parser: Option<ParserOptions>,
    /// What an answer must be, and the parameter that says so.
    pub(super) structure: Option<Structure>,
}

impl Prepared {
    /// What splits an answer has to see its marks, even where the client wants to see none.
    pub(super) const fn special_tokens(&self, skip: bool) -> SpecialTokenText {
        match (skip, &self.parser) {
            (false, _) => SpecialTokenText::Shown,
            (true, Some(_)) => SpecialTokenText::Markers,
            (true, None) => SpecialTokenText::Hidden,
        }
    }

    pub(super) fn start(&self, only_echo: bool, id_seed: u64) -> Start {
        let parser = self.parser.clone().map(|options| ParserOptions { id_seed, ..options });
        Start { prompt_tokens: Arc::clone(&self.tokens), echo: self.echo.clone(), only_echo, parser }
    }
}

/// What the answers to a request are to be.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) echo: bool,
    pub(super) structure: Option<Structure>,
}

/// `held` is what the request holds meanwhile.
pub(super) async fn prepare<E: Endpoint, H: Send + 'static>(
    service: &Arc<Service>,
    prompt: Prompt,
    wanted: Wanted,
    held: H,
) -> Result<(Vec<Prepared>, H), ApiError> {
    let Wanted { echo, structure } = wanted;
    let engine = Arc::clone(service.engine_arc());
    let prepared = match prompt {
        Prompt::Chat(chat) => {
            service
                .blocking(held, move || prepare_chat(&*engine, chat, structure).map(|prompt| vec![prompt]))
                .await
        }
        Prompt::Texts(texts) => {
            let prepare = move || {
                texts.into_iter().map(|text| prepare_text(&*engine, text, echo, structure.clone())).collect()
            };
            service.blocking(held, prepare).await
        }
    };
    let (prepared, held): (Result<Vec<Prepared>, PromptError>, H) = prepared.ok_or(ApiError::EngineFailed)?;
    let prepared = prepared.map_err(|error| bad_prompt(service, E::PROMPT_PARAM, &error))?;
    Ok((prepared, held))
}

fn prepare_chat(
    engine: &dyn ChatEngine,
    chat: Box<ChatAsk>,
    structure: Option<Structure>,
) -> Result<Prepared, PromptError> {
    let ChatAsk { prompt, tools } = *chat;
    let encoded = engine.encode_chat(&prompt)?;
    let start = encoded.reasoning_start;
    let forced = matches!(tools.choice, ToolChoice::Required | ToolChoice::Named(_));
    let words = structure.as_ref().and_then(|structure| structure.source.lark_expression());
    // A form that cannot be followed is refused, also beside calls that could.
    let follows = forced || structure.is_some() == words.is_some();
    let calls = follows.then(|| {
        let format = engine.chat_format();
        format.tool_grammar(&tools.callable, &tools.choice, tools.parallel, start, words.as_deref())
    });
    // What may be either is called what the client has a form for.
    let param = structure.as_ref().filter(|_| !forced).map_or("tools", |structure| structure.param);
    let calls = calls.flatten().map(|lark| Structure { param, source: GrammarSource::Lark(lark) });
    let words = structure.map(|structure| behind_thoughts(engine, structure, start));
    let parser = ParserOptions {
        start,
        tools: tools.callable.into_iter().map(|tool| tool.name).collect(),
        parallel: tools.parallel,
        id_seed: 0,
    };
    // Where calls are forced there are no words that could have a form.
    Ok(Prepared {
        tokens: encoded.tokens.into(),
        echo: None,
        parser: Some(parser),
        structure: calls.or(words),
    })
}

/// The form of an answer whose thoughts, if it has any, are free.
fn behind_thoughts(engine: &dyn ChatEngine, structure: Structure, start: ReasoningStart) -> Structure {
    let Structure { param, source } = structure;
    let free =
        source.lark_expression().and_then(|answer| engine.chat_format().after_reasoning(&answer, start));
    Structure { param, source: free.map_or(source, GrammarSource::Lark) }
}

fn prepare_text(
    engine: &dyn ChatEngine,
    prompt: TextPrompt,
    echo: bool,
    structure: Option<Structure>,
) -> Result<Prepared, PromptError> {
    let (tokens, text) = match prompt {
        TextPrompt::Text(text) => (engine.encode_text(&text, true)?, echo.then_some(text)),
        TextPrompt::Tokens(tokens) => {
            let text = echo.then(|| engine.decode(&tokens)).transpose()?;
            (tokens, text)
        }
    };
    Ok(Prepared { tokens: tokens.into(), echo: text.map(Into::into), parser: None, structure })
}

/// Answers under a grammar take seconds, and each that ends may make room.
const GRAMMARS_RETRY: Duration = Duration::from_secs(2);

/// `held` is what the request holds meanwhile.
pub(super) async fn compile<H: Send + 'static>(
    service: &Arc<Service>,
    structure: Option<Structure>,
    account: ClientKey,
    held: H,
) -> Result<(Option<Grammar>, H), ApiError> {
    let Some(Structure { param, source }) = structure else { return Ok((None, held)) };
    let engine = Arc::clone(service.engine_arc());
    let work = move || engine.compile_grammar(&source, account);
    let (compiled, held) = service.compiling(account, held, work).await?;
    match compiled {
        Ok(grammar) => Ok((Some(grammar), held)),
        Err(GrammarError::NoRoom) => {
            Err(ApiError::GrammarsFull { retry_after_seconds: service.retry_after_seconds(GRAMMARS_RETRY) })
        }
        Err(GrammarError::Vocabulary(_) | GrammarError::Thread(_)) => Err(ApiError::EngineFailed),
        Err(error) => Err(ApiError::Grammar { param, detail: error.to_string() }),
    }
}
