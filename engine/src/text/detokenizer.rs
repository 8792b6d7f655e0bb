//! The text of tokens that come one at a time: the pieces together are exactly what decoding all tokens at once gives.
//!
//! Two kinds of vocabulary are told apart. In a byte-level one a token is some bytes, so text is out as soon as its
//! characters are whole. In others (SentencePiece's) what a token adds depends on its neighbours, so each token is decoded
//! together with those before it since the last piece but one; there a run of byte tokens (`<0xE2>`) stands or falls as a
//! whole, and waits for its end.

use tokenizers::{DecoderWrapper, Tokenizer};

use super::{Text, TextError};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Detokenizer {
    skip_special_tokens: bool,
    form: Form,
}

#[derive(Debug)]
enum Form {
    ByteLevel { pending: Vec<u8> },
    Pieces(Window),
}

/// The last tokens of a sequence.
#[derive(Debug, Default)]
struct Window {
    skip_special_tokens: bool,
    tokens: Vec<u32>,
    /// How many of `tokens` have had their text returned.
    returned: usize,
    /// The text of `tokens[..returned]`.
    returned_text: String,
}

impl Detokenizer {
    pub(crate) fn new(text: &Text, skip_special_tokens: bool) -> Self {
        let form = match text.tokenizer().get_decoder() {
            Some(DecoderWrapper::ByteLevel(_)) => Form::ByteLevel { pending: Vec::new() },
            _ => Form::Pieces(Window { skip_special_tokens, ..Window::default() }),
        };
        Self { skip_special_tokens, form }
    }

    /// The text that is sure with this token. Special tokens, if skipped, and such as the tokenizer does not know, have none.
    pub(crate) fn push(&mut self, text: &Text, token: u32) -> Result<String, TextError> {
        let Some(name) = self.token_name(text.tokenizer(), token) else { return Ok(String::new()) };
        match &mut self.form {
            Form::ByteLevel { pending } => {
                push_bytes(&name, pending);
                Ok(take_whole_characters(pending))
            }
            Form::Pieces(window) => {
                window.tokens.push(token);
                if is_byte(&name) { Ok(String::new()) } else { window.take(text) }
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

    /// How the vocabulary writes a token; `None` for those without text.
    fn token_name(&self, tokenizer: &Tokenizer, token: u32) -> Option<String> {
        let skipped =
            |name: &str| self.skip_special_tokens && tokenizer.get_added_vocabulary().is_special_token(name);
        tokenizer.id_to_token(token).filter(|name| !skipped(name))
    }
}

impl Window {
    /// The text that the tokens not yet returned add to those that were.
    fn take(&mut self, text: &Text) -> Result<String, TextError> {
        let all = text.decode_with(&self.tokens, self.skip_special_tokens)?;
        match all.strip_prefix(&self.returned_text) {
            Some(added) if !added.is_empty() => {
                let added = added.to_owned();
                self.tokens.drain(..self.returned);
                self.returned = self.tokens.len();
                self.returned_text = text.decode_with(&self.tokens, self.skip_special_tokens)?;
                Ok(added)
            }
            _ => Ok(String::new()),
        }
    }
}

/// Whether a name is that of one raw byte, such as `<0x0A>`.
fn is_byte(name: &str) -> bool {
    let digits = name.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Appends the bytes of a byte-level name. A name with any other character (an added token) stands for itself.
fn push_bytes(name: &str, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    for character in name.chars() {
        if let Some(byte) = byte_of(character) {
            bytes.push(byte);
        } else {
            bytes.truncate(start);
            bytes.extend_from_slice(name.as_bytes());
            return;
        }
    }
}

/// The byte a character stands for in a byte-level vocabulary.
///
/// GPT-2's alphabet: a printable byte is the Latin-1 character of the same number; the 68 others (0 to 0x20, 0x7F to 0xA0,
/// and 0xAD) are, in that order, the characters from 0x100 on.
fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(),
        0x143 => Some(0xAD),
        _ => None,
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
