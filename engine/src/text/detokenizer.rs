//! The text of tokens that come one at a time: the pieces together are exactly what decoding all tokens at once gives.
//!
//! Two kinds of vocabulary are told apart. In a byte-level one a token is some bytes, so text is out as soon as its
//! characters are whole. In others (SentencePiece's) what a token adds depends on its neighbours, so each token is decoded
//! together with those before it since the last piece but one; there a run of byte tokens (`<0xE2>`) stands or falls as a
//! whole, and waits for its end.

use super::{SpecialTokenText, Text, TextError, token};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Detokenizer {
    special: SpecialTokenText,
    form: Form,
}

#[derive(Debug)]
enum Form {
    ByteLevel { pending: Vec<u8> },
    Pieces(Window),
}

/// The last tokens of a sequence.
#[derive(Debug)]
struct Window {
    tokens: Vec<u32>,
    /// How many of `tokens` have had their text returned.
    returned: usize,
    /// The text of `tokens[..returned]`.
    returned_text: String,
}

impl Detokenizer {
    /// Of the tokens that follow `prompt`. A vocabulary of pieces drops the space at the beginning of a text; between a
    /// prompt and its continuation it stays, so the prompt's last token is decoded along, unless it is a special one: what
    /// follows that is a text of its own.
    pub(crate) fn new(text: &Text, special: SpecialTokenText, prompt: &[u32]) -> Self {
        let tokenizer = text.tokenizer();
        if token::is_byte_level(tokenizer) {
            return Self { special, form: Form::ByteLevel { pending: Vec::new() } };
        }
        let last = prompt
            .last()
            .copied()
            .filter(|last| text.shows(*last, SpecialTokenText::Hidden) && !token::is_byte(tokenizer, *last));
        let tokens: Vec<u32> = last.into_iter().collect();
        let returned_text = text.decode(&tokens, SpecialTokenText::Shown).unwrap_or_default();
        Self { special, form: Form::Pieces(Window { returned: tokens.len(), tokens, returned_text }) }
    }

    /// The text that is sure with this token. Those that are not shown, and such as the tokenizer does not know, have none.
    pub(crate) fn push(&mut self, text: &Text, token: u32) -> Result<String, TextError> {
        if !text.shows(token, self.special) {
            return Ok(String::new());
        }
        match &mut self.form {
            Form::ByteLevel { pending } => {
                pending.extend(text.token_bytes(token).unwrap_or_default());
                Ok(take_whole_characters(pending))
            }
            Form::Pieces(window) => {
                window.tokens.push(token);
                if token::is_byte(text.tokenizer(), token) { Ok(String::new()) } else { window.take(text) }
            }
        }
    }

    /// The text of what is left, when no token follows.
    pub(crate) fn finish(&mut self, text: &Text) -> Result<String, TextError> {
        match &mut self.form {
            Form::ByteLevel { pending } => Ok(String::from_utf8_lossy(&std::mem::take(pending)).into_owned()),
            Form::Pieces(window) => window.take(text),
        }
    }
}

impl Window {
    /// The text that the tokens not yet returned add to those that were.
    fn take(&mut self, text: &Text) -> Result<String, TextError> {
        let all = text.decode(&self.tokens, SpecialTokenText::Shown)?;
        match all.strip_prefix(&self.returned_text) {
            Some(added) if !added.is_empty() => {
                let added = added.to_owned();
                self.tokens.drain(..self.returned);
                self.returned = self.tokens.len();
                self.returned_text = text.decode(&self.tokens, SpecialTokenText::Shown)?;
                Ok(added)
            }
            _ => Ok(String::new()),
        }
    }
}

/// Takes all but an unfinished character from the front; each run of bytes that can be no character becomes U+FFFD, as in
/// `String::from_utf8_lossy`.
fn take_whole_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut taken = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        taken += chunk.valid().len();
        let end = taken + chunk.invalid().len();
        let unfinished = std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
        if end == bytes.len() && unfinished {
            break;
        }
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
        taken = end;
    }
    bytes.drain(..taken);
    text
}
