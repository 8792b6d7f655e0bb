use std::{panic::AssertUnwindSafe, sync::Arc};

use llguidance::{CancellationHandle, TokenParser, panic_utils::catch_unwind};

use super::{
    NextTokens,
    error::sentence,
    memory::{Lease, SharedBytes},
};
use crate::sample::TokenMask;

/// Bytes of a lexer for each byte that llguidance says it has: hash maps keep room, and it does not count all of them.
/// Measured with llguidance 1.9 by the allocator's own count, over schemas of 1 to 100 tools, long enumerations and texts, and
/// expressions that explode: 0.9 to 2.4, the latter for an enumeration of 8000 strings.
const LEXER_BYTES_PER_COUNTED_BYTE: u64 = 2;

/// Of an item of the parser, which has 8 bytes, with the room that growing leaves.
const ITEM_BYTES: u64 = 16;

/// Of a byte of the answer: what the parser remembers of the place. Measured: 20 in a long string, 250 in a row of numbers,
/// whose lexer above is counted with more than it has.
const ANSWER_BYTE_BYTES: u64 = 64;

/// Why an answer cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MatchError {
    Grammar(String),
    /// All answers together take more memory than there is, and this one most.
    NoRoom,
}

/// Where one answer is in its grammar, and what that takes.
pub(super) struct Matcher {
    /// Its lexer is this answer's own.
    parser: TokenParser,
    cancellation: CancellationHandle,
    /// Items of the answer so far.
    items: u64,
    /// Most items of one mask: the room for them stays.
    mask_items: u64,
    lease: Lease,
}

impl Matcher {
    /// At the beginning of an answer. Nothing in it is shared with another answer's, so that none waits for another.
    pub(super) fn start(grammar: &TokenParser, answers: &Arc<SharedBytes>) -> Self {
        let mut parser = grammar.deep_clone();
        let cancellation = parser.enable_cancellation();
        Self { parser, cancellation, items: 0, mask_items: 0, lease: SharedBytes::lease(answers) }
    }

    /// Ends the mask that is being computed.
    pub(super) fn cancellation(&self) -> CancellationHandle {
        self.cancellation.clone()
    }

    pub(super) fn next_tokens(&mut self, has_end: bool) -> Result<NextTokens, MatchError> {
        let parser = &mut self.parser;
        // A parser that panics fails its own answer.
        let mask = catch_unwind(AssertUnwindSafe(|| {
            let may_end = !has_end && parser.is_accepting();
            let mask = if parser.stopped() {
                Ok(parser.token_env.tok_trie().eos_token_set())
            } else {
                parser.compute_mask()
            };
            match mask {
                Ok(mask) => Ok(NextTokens::Of(TokenMask::new(mask.into()))),
                Err(_) if may_end => Ok(NextTokens::Nothing),
                Err(error) => Err(error),
            }
        }));
        self.mask_items = self.mask_items.max(self.parser.last_step_stats().all_items as u64);
        let next = mask.map_err(|error| MatchError::Grammar(sentence(&error.to_string())))?;
        self.settle()?;
        Ok(next)
    }

    /// Goes on by a token. Tells whether nothing may follow it.
    pub(super) fn accept(&mut self, token: u32) -> Result<bool, MatchError> {
        let parser = &mut self.parser;
        let items = parser.parser_stats().all_items;
        let stopped = catch_unwind(AssertUnwindSafe(|| {
            parser.consume_token(token)?;
            parser.check_stop()?;
            Ok(parser.stopped())
        }));
        let stopped = stopped.map_err(|error| MatchError::Grammar(sentence(&error.to_string())))?;
        self.items += self.parser.parser_stats().all_items.saturating_sub(items) as u64;
        self.settle()?;
        Ok(stopped)
    }

    /// Refuses to go on with more memory than there is.
    fn settle(&self) -> Result<(), MatchError> {
        let bytes = lexer_bytes(&self.parser)
            + (self.items + self.mask_items) * ITEM_BYTES
            + self.parser.final_bytes().len() as u64 * ANSWER_BYTE_BYTES;
        if self.lease.grow(bytes) { Ok(()) } else { Err(MatchError::NoRoom) }
    }
}

/// Bytes of the lexer's tables.
pub(super) fn lexer_bytes(parser: &TokenParser) -> u64 {
    parser.parser.lexer_stats().num_bytes as u64 * LEXER_BYTES_PER_COUNTED_BYTE
}
