use std::sync::Arc;

use llguidance::toktrie::{ApproximateTokEnv, INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie};

use crate::text::{SpecialTokenText, Text};

/// Bytes of a token that a grammar may use. The longest ones in use are 128 blanks; a vocabulary is a stranger's file.
const TOKEN_BYTES_MAX: usize = 512;

/// The vocabulary as a tree of bytes.
///
/// A special token, and any that ends the answer, has no bytes: text inside an answer cannot be written with it, and a
/// grammar has to name it. The end is allowed where the grammar may end, and nowhere else.
pub(super) fn token_environment(text: &Text, vocab_size: u32) -> TokEnv {
    let ends = text.eos_token_ids();
    let words: Vec<Vec<u8>> = (0..vocab_size)
        .map(|token| match text.token_bytes(token) {
            Some(bytes) if bytes.len() > TOKEN_BYTES_MAX => Vec::new(),
            Some(name) if is_mark(text, token) => [&[TokTrie::SPECIAL_TOKEN_MARKER], &name[..]].concat(),
            Some(bytes) => bytes,
            None => Vec::new(),
        })
        .collect();
    let known: Vec<u32> = ends.iter().copied().filter(|token| *token < vocab_size).collect();
    let first = known.first().copied().unwrap_or(INVALID_TOKEN);
    let mut trie = TokTrie::from(&TokRxInfo::new(vocab_size, first), &words);
    if known.len() > 1 {
        trie = trie.with_eos_tokens(&known);
    }
    // Tokens are never forced, so how a text would be tokenised does not matter.
    Arc::new(ApproximateTokEnv::new(trie))
}

/// Whether a token stands for no text, or ends the text.
fn is_mark(text: &Text, token: u32) -> bool {
    !text.shows(token, SpecialTokenText::Hidden) || text.eos_token_ids().binary_search(&token).is_ok()
}
