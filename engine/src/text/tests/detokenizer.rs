use proptest::prelude::*;

use super::vocabulary::{byte_level, pieces, text};
use crate::text::{Detokenizer, Text};

/// The pieces of text that come out token by token, the last one by finishing.
fn stream(text: &Text, tokens: &[u32]) -> Vec<String> {
    let mut detokenizer = Detokenizer::new(text, true);
    let mut out: Vec<String> = tokens.iter().map(|token| detokenizer.push(text, *token).unwrap()).collect();
    out.push(detokenizer.finish(text).unwrap());
    out
}

#[test]
fn a_character_of_several_tokens_comes_out_whole() {
    let text = text(&byte_level());
    let tokens = text.encode("a日b", false).unwrap();
    assert_eq!(tokens.len(), 5);
    assert_eq!(stream(&text, &tokens), ["a", "", "", "日", "b", ""]);
    assert_eq!(stream(&text, &tokens[..3]), ["a", "", "", "\u{FFFD}"]);
}

#[test]
fn bytes_that_are_no_character_do_not_wait() {
    let text = text(&byte_level());
    let continuation = text.encode("日", false).unwrap()[2];
    let pieces = stream(&text, &[continuation; 3]);
    assert_eq!(pieces, ["\u{FFFD}", "\u{FFFD}", "\u{FFFD}", ""]);
}

#[test]
fn special_tokens_have_no_text_and_added_ones_have_their_own() {
    let text = text(&byte_level());
    let tokens = text.encode("he<|end|>ll<think>工具", true).unwrap();
    assert_eq!(stream(&text, &tokens).concat(), "hell<think>工具");
    assert_eq!(stream(&text, &[9_999, u32::MAX]).concat(), "");
}

#[test]
fn only_the_first_space_of_pieces_is_dropped() {
    let text = text(&pieces());
    let tokens = text.encode("a a b", false).unwrap();
    assert_eq!(stream(&text, &tokens).concat(), "a a b");
    assert_eq!(stream(&text, &tokens).iter().filter(|piece| !piece.is_empty()).count(), tokens.len());
}

proptest! {
    /// Any tokens at all, valid text or not, special, added and unknown ones among them.
    #[test]
    fn byte_level_pieces_are_the_whole(tokens in prop::collection::vec(0..270_u32, 0..60)) {
        let text = text(&byte_level());
        prop_assert_eq!(stream(&text, &tokens).concat(), text.decode(&tokens).unwrap());
    }

    #[test]
    fn sentence_pieces_are_the_whole(tokens in prop::collection::vec(prop_oneof![0..3_u32, 3..259_u32, 259..270_u32], 0..60)) {
        let text = text(&pieces());
        prop_assert_eq!(stream(&text, &tokens).concat(), text.decode(&tokens).unwrap());
    }

    /// Real text survives the way there and back.
    #[test]
    fn text_comes_back(words in "\\PC{0,40}") {
        let text = text(&byte_level());
        let tokens = text.encode(&words, false).unwrap();
        prop_assert_eq!(stream(&text, &tokens).concat(), words);
    }
}
