use std::{
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::Duration,
};

use llguidance::{
    Matcher, ParserFactory,
    api::{ParserLimits, TopLevelGrammar},
    earley::SlicedBiasComputer,
    toktrie::{INVALID_TOKEN, InferenceCapabilities},
};

use super::{
    GrammarError, GrammarSource,
    error::sentence,
    slots::{Slot, Slots},
    vocabulary::token_environment,
};
use crate::{heap::return_freed_pages, text::Text};

/// Grammars compiled at once: one of a hostile client leaves room for another.
const COMPILES_MAX: usize = 2;

/// How long a caller waits for its grammar. The fuel below is burnt in well under a second.
const COMPILE_LIMIT: Duration = Duration::from_secs(10);

/// Address space of a compiling thread's stack. A chain of `$ref`s as long as a source can hold is followed by recursion;
/// only pages that are touched are ever real.
const STACK_BYTES: usize = 256 << 20;

/// What one grammar may spend. llguidance gives the speeds; where it says nothing else, its defaults.
const LIMITS: ParserLimits = ParserLimits {
    max_items_in_row: 2000,
    // 50 thousand per millisecond: 20 ms to build the automata of all strings and numbers of a schema.
    initial_lexer_fuel: 1_000_000,
    // 14 thousand and 20 thousand per millisecond: a mask takes at most about 20 ms of one thread.
    step_lexer_fuel: 200_000,
    step_max_items: 50_000,
    // 1 to 2 kB each: at most 20 MB for a grammar that is out to take them; usual ones have some hundreds.
    max_lexer_states: 10_000,
    // Symbols: some hundred kilobytes of JSON Schema.
    max_grammar_size: 200_000,
    // Trades time here, which one client can make another wait for, for time in its own masks.
    precompute_large_lexemes: false,
    // Prompts and schemas stay out of errors.
    verbose_errors: false,
};

/// Compiles grammars for one vocabulary.
pub struct GrammarCompiler {
    factory: Arc<ParserFactory>,
    slots: Arc<Slots>,
}

/// A compiled grammar. Cheap to clone; what one request finds out about it, the next one need not.
#[derive(Clone)]
pub struct Grammar {
    /// At the beginning.
    matcher: Arc<Matcher>,
    /// Whether the model has a token that says the answer has ended.
    has_end: bool,
}

impl GrammarCompiler {
    /// Arranges the tokenizer's vocabulary, cut to the model's `vocab_size`, for masks. It takes the bytes that the footprint
    /// counts as `GRAMMAR_HOST_BYTES_PER_VOCABULARY_TOKEN`, so it is done before an engine is ready.
    pub fn new(text: &Text, vocab_size: u32) -> Result<Self, GrammarError> {
        let environment = token_environment(text, vocab_size);
        let slices = SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
            .map_err(|error| GrammarError::Vocabulary(sentence(&error.to_string())))?;
        factory.quiet();
        *factory.limits_mut() = LIMITS;
        return_freed_pages();
        Ok(Self { factory: Arc::new(factory), slots: Slots::new(COMPILES_MAX) })
    }

    /// Compiles a grammar on a thread of its own, and waits for it. Blocks for seconds at worst.
    pub fn compile(&self, source: &GrammarSource) -> Result<Grammar, GrammarError> {
        let grammar = source.parse()?;
        let timed_out = GrammarError::TimedOut { limit: COMPILE_LIMIT };
        let slot = Slots::take(&self.slots, COMPILE_LIMIT).ok_or_else(|| timed_out.clone())?;
        let (answer, compiled) = sync_channel(1);
        let factory = Arc::clone(&self.factory);
        let work = move || {
            let compiled = compile(&factory, grammar, slot);
            // A caller that has given up needs no answer.
            let _ = answer.send(compiled);
        };
        thread::Builder::new()
            .name("grammar".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(work)
            .map_err(|error| GrammarError::Thread(error.to_string()))?;
        compiled.recv_timeout(COMPILE_LIMIT).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => Err(timed_out),
            RecvTimeoutError::Disconnected => Err(GrammarError::Refused("its compiler panicked".to_owned())),
        })
    }
}

/// Compiles, and looks for the first tokens: a grammar that has none, or takes too long to tell, is refused here. The slot is
/// held to the end.
fn compile(factory: &ParserFactory, grammar: TopLevelGrammar, slot: Slot) -> Result<Grammar, GrammarError> {
    let refused = |message: &str| GrammarError::Refused(sentence(message));
    let matcher = Matcher::new(factory.create_parser(grammar)).into_cancellable();
    if let Some(message) = matcher.get_error() {
        return Err(refused(&message));
    }
    let has_end = factory.tok_env().eos_token() != INVALID_TOKEN;
    let mut first = matcher.clone();
    let may_be_empty = first.is_accepting().map_err(|error| refused(&error.to_string()))?;
    match first.compute_mask_or_eos() {
        Err(error) if !may_be_empty => return Err(refused(&error.to_string())),
        Ok(_) | Err(_) => {}
    }
    drop(slot);
    Ok(Grammar { matcher: Arc::new(matcher), has_end })
}

impl Grammar {
    pub(super) fn start(&self) -> (Matcher, bool) {
        ((*self.matcher).clone(), self.has_end)
    }
}

/// The same compilation; two compilations of one source are two grammars.
impl PartialEq for Grammar {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.matcher, &other.matcher)
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Grammar").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for GrammarCompiler {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("GrammarCompiler").field("slots", &self.slots).finish_non_exhaustive()
    }
}
