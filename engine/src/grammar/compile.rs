use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::Duration,
};

use llguidance::{
    ParserFactory, TokenParser,
    api::{ParserLimits, TopLevelGrammar},
    earley::SlicedBiasComputer,
    toktrie::{INVALID_TOKEN, InferenceCapabilities},
};
use sparkherd_footprint::GrammarRoom;

use super::{
    GrammarError, GrammarSource, NextTokens,
    error::sentence,
    matcher::{MatchError, Matcher, lexer_bytes},
    memory::{Lease, SharedBytes},
    slots::{Slot, Slots},
    source::SourceDigest,
    vocabulary::token_environment,
};
use crate::{heap::return_freed_pages, request::ClientKey, text::Text};

/// Grammars compiled at once: one of a hostile client leaves room for another.
const COMPILES_MAX: usize = 2;

/// How long a caller waits for its grammar. The fuel below is burnt in well under a second.
const COMPILE_LIMIT: Duration = Duration::from_secs(10);

/// Address space of a compiling thread's stack. A chain of `$ref`s as long as a source can hold is followed by recursion;
/// only pages that are touched are ever real.
const STACK_BYTES: usize = 256 << 20;

/// Host bytes of rules for each byte of their source, beside their lexer. Measured with llguidance 1.9: 31 for tools, 47 for
/// rules of two symbols, 62 for 200 properties of a schema, whose lexer is counted with more than it has.
const RULES_BYTES_PER_SOURCE_BYTE: u64 = 48;

/// What whoever sent such a grammar reads.
const TOO_MUCH_MEMORY: &str = "it takes too much memory";

/// What no rules take more of: the limit of symbols below is 3.4 MB.
const RULES_BYTES_MAX: u64 = 4 << 20;

/// What one grammar may spend. llguidance gives the speeds; the needs of usual grammars are measured: 100 tools of 8
/// parameters have 5000 to 10 000 symbols, 200 optional properties take 1700 items a mask, an answer of 400 numbers has 2600
/// states.
const LIMITS: ParserLimits = ParserLimits {
    max_items_in_row: 2000,
    // 50 thousand per millisecond: 4 ms to build the automata of all strings and numbers of a schema.
    initial_lexer_fuel: 200_000,
    // 14 thousand per millisecond: about 14 ms of one thread for a mask.
    step_lexer_fuel: 200_000,
    // Measured where a row has thousands of them: 50 thousand take 74 ms.
    step_max_items: 10_000,
    // About 1.2 kB each: 6 MB for a grammar that is out to take them.
    max_lexer_states: 5_000,
    // Compiling takes some 1.7 kB a symbol for a moment.
    max_grammar_size: 10_000,
    // Trades time here, which one client can make another wait for, for time in its own masks.
    precompute_large_lexemes: false,
    // Prompts and schemas stay out of errors.
    verbose_errors: false,
};

/// Compiles grammars for one vocabulary.
pub struct GrammarCompiler {
    factory: Arc<ParserFactory>,
    slots: Arc<Slots>,
    rules: Arc<SharedBytes>,
    answers: Arc<SharedBytes>,
    /// Those in use: clients send the same tools with every request.
    known: Mutex<BTreeMap<SourceDigest, Weak<Rules>>>,
}

/// A compiled grammar. Cheap to clone.
#[derive(Clone)]
pub struct Grammar {
    rules: Arc<Rules>,
    answers: Arc<SharedBytes>,
}

struct Rules {
    /// At the beginning.
    parser: TokenParser,
    /// Whether the model has a token that says the answer has ended.
    has_end: bool,
    _lease: Lease,
}

impl GrammarCompiler {
    /// Arranges the tokenizer's vocabulary, cut to the model's `vocab_size`, for masks. It takes the bytes that the footprint
    /// counts as `GRAMMAR_HOST_BYTES_PER_VOCABULARY_TOKEN`, so it is done before an engine is ready. Grammars will take no
    /// more than `room`.
    pub fn new(text: &Text, vocab_size: u32, room: GrammarRoom) -> Result<Self, GrammarError> {
        let environment = token_environment(text, vocab_size);
        let slices = SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
            .map_err(|error| GrammarError::Vocabulary(sentence(&error.to_string())))?;
        factory.quiet();
        *factory.limits_mut() = LIMITS;
        return_freed_pages();
        let GrammarRoom { rules_bytes, answers_bytes, compiling_bytes: _ } = room;
        Ok(Self {
            factory: Arc::new(factory),
            slots: Slots::new(COMPILES_MAX),
            rules: SharedBytes::new(rules_bytes),
            answers: SharedBytes::new(answers_bytes),
            known: Mutex::default(),
        })
    }

    /// Compiles a grammar on a thread of its own, and waits for it; one that is in use is not compiled again. Blocks for
    /// seconds at worst. What it takes counts as the account's.
    pub fn compile(&self, source: &GrammarSource, account: ClientKey) -> Result<Grammar, GrammarError> {
        let digest = source.digest();
        if let Some(rules) = self.known(&digest) {
            return Ok(Grammar { rules, answers: Arc::clone(&self.answers) });
        }
        let rules = Arc::new(self.compile_anew(source, account)?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, rules| rules.strong_count() > 0);
        known.insert(digest, Arc::downgrade(&rules));
        Ok(Grammar { rules, answers: Arc::clone(&self.answers) })
    }

    /// Tells what is too large for ever from what has to wait for others.
    fn claim(&self, lease: &Lease, account: ClientKey, bytes: u64) -> Result<(), GrammarError> {
        match lease.claim(account, bytes) {
            true => Ok(()),
            false if self.rules.could_hold(bytes) => Err(GrammarError::NoRoom),
            false => Err(GrammarError::Refused(TOO_MUCH_MEMORY.to_owned())),
        }
    }

    #[cfg(test)]
    pub(super) fn answers_leased(&self) -> usize {
        self.answers.leased()
    }

    fn known(&self, digest: &SourceDigest) -> Option<Arc<Rules>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(digest)?.upgrade()
    }

    fn compile_anew(&self, source: &GrammarSource, account: ClientKey) -> Result<Rules, GrammarError> {
        let grammar = source.parse()?;
        let lease = SharedBytes::lease(&self.rules);
        let rules_bytes = (source.bytes() as u64 * RULES_BYTES_PER_SOURCE_BYTE).min(RULES_BYTES_MAX);
        self.claim(&lease, account, rules_bytes)?;
        let timed_out = GrammarError::TimedOut { limit: COMPILE_LIMIT };
        let slot = Slots::take(&self.slots, COMPILE_LIMIT).ok_or_else(|| timed_out.clone())?;
        let (answer, compiled) = sync_channel(1);
        let (factory, alone) = (Arc::clone(&self.factory), self.answers.as_empty());
        let work = move || {
            let compiled = compile(&factory, grammar, &alone, slot);
            // A caller that has given up needs no answer.
            let _ = answer.send(compiled);
        };
        thread::Builder::new()
            .name("grammar".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(work)
            .map_err(|error| GrammarError::Thread(error.to_string()))?;
        let compiled = compiled.recv_timeout(COMPILE_LIMIT).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => Err(timed_out),
            RecvTimeoutError::Disconnected => Err(GrammarError::Refused("its compiler panicked".to_owned())),
        });
        let parser = compiled?;
        self.claim(&lease, account, rules_bytes + lexer_bytes(&parser))?;
        let has_end = self.factory.tok_env().eos_token() != INVALID_TOKEN;
        Ok(Rules { parser, has_end, _lease: lease })
    }
}

/// Compiles, and looks for the first tokens: a grammar that has none, or takes too long to tell, is refused here. `alone` is
/// the answers' room without others: whether it may be followed at all is no matter of what they take. The slot is held to
/// the end.
fn compile(
    factory: &ParserFactory,
    grammar: TopLevelGrammar,
    alone: &Arc<SharedBytes>,
    slot: Slot,
) -> Result<TokenParser, GrammarError> {
    let mut parser = factory
        .create_parser(grammar)
        .map_err(|error| GrammarError::Refused(sentence(&error.to_string())))?;
    parser.start_without_prompt();
    let first = Matcher::start(&parser, alone).next_tokens(false);
    drop(slot);
    match first {
        Ok(NextTokens::Of(_) | NextTokens::Nothing) => Ok(parser),
        Err(MatchError::Grammar(message)) => Err(GrammarError::Refused(message)),
        Err(MatchError::NoRoom) => Err(GrammarError::Refused(TOO_MUCH_MEMORY.to_owned())),
    }
}

impl Grammar {
    pub(super) fn start(&self) -> Matcher {
        Matcher::start(&self.rules.parser, &self.answers)
    }

    pub(super) fn has_end(&self) -> bool {
        self.rules.has_end
    }
}

/// The same compilation.
impl PartialEq for Grammar {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rules, &other.rules)
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
