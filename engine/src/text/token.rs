//! What single tokens stand for.

use tokenizers::{DecoderWrapper, Tokenizer};

/// SentencePiece's space.
const SPACE: char = '▁';

/// Whether a token is written in GPT-2's alphabet of bytes.
pub(super) fn is_byte_level(tokenizer: &Tokenizer) -> bool {
    matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_)))
}

/// Whether a token is one raw byte of a vocabulary that is not byte-level.
pub(super) fn is_byte(tokenizer: &Tokenizer, token: u32) -> bool {
    !is_added(tokenizer, token)
        && tokenizer.id_to_token(token).is_some_and(|name| byte_of_name(&name).is_some())
}

/// The bytes a token adds to a text that has others before it; `None` if there is no such token.
pub(super) fn bytes(tokenizer: &Tokenizer, token: u32) -> Option<Vec<u8>> {
    let name = tokenizer.id_to_token(token)?;
    if is_added(tokenizer, token) {
        return Some(name.into_bytes());
    }
    if is_byte_level(tokenizer) {
        return Some(bytes_of_alphabet(&name).unwrap_or_else(|| name.into_bytes()));
    }
    Some(byte_of_name(&name).map_or_else(|| name.replace(SPACE, " ").into_bytes(), |byte| vec![byte]))
}

/// Whether a token is special: one that means something to the model and nothing to a reader.
pub(super) fn is_special(tokenizer: &Tokenizer, token: u32) -> bool {
    let added = tokenizer.get_added_vocabulary();
    added.simple_id_to_token(token).is_some_and(|name| added.is_special_token(&name))
}

/// An added token stands for its own name.
fn is_added(tokenizer: &Tokenizer, token: u32) -> bool {
    tokenizer.get_added_vocabulary().simple_id_to_token(token).is_some()
}

/// The byte that a name such as `<0x0A>` stands for.
fn byte_of_name(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'))?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// The bytes of a name in GPT-2's alphabet; `None` if it has any other character.
fn bytes_of_alphabet(name: &str) -> Option<Vec<u8>> {
    name.chars().map(byte_of).collect()
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
