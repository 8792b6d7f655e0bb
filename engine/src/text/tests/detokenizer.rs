use proptest::prelude::*;

use super::vocabulary::{byte_level, pieces, sentence_pieces, text};
use crate::text::{Detokenizer, SpecialTokenText, Text};

/// The pieces of text that come out token by token, the last one by finishing.
fn stream_with(text: &Text, tokens: &[u32], special: SpecialTokenText) -> Vec<String> {
    let mut detokenizer = Detokenizer::new(text, special, &[]);
    let mut out: Vec<String> = tokens.iter().map(|token| detokenizer.push(text, *token).unwrap()).collect();
    out.push(detokenizer.finish(text).unwrap());
    out
}

fn stream(text: &Text, tokens: &[u32]) -> Vec<String> {
    stream_with(text, tokens, SpecialTokenText::Hidden)
}

fn special() -> impl Strategy<Value = SpecialTokenText> {
    prop::sample::select(vec![SpecialTokenText::Hidden, SpecialTokenText::Markers, SpecialTokenText::Shown])
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

#[test]
fn special_tokens_show_where_they_are_asked_for() {
    let text = text(&pieces());
    let tokens = [1, 262, 3, 263, 2];
    let shown = |special| stream_with(&text, &tokens, special).concat();
    assert_eq!(shown(SpecialTokenText::Hidden), "ab");
    assert_eq!(shown(SpecialTokenText::Markers), "a[TOOL_CALLS]b");
    assert_eq!(shown(SpecialTokenText::Shown), "<s>a[TOOL_CALLS]b</s>");
}

/// The first token of a continuation is not the first of the text.
#[test]
fn the_space_between_prompt_and_answer_stays() {
    let text = text(&pieces());
    let (a, space_a, end_of_question) = (262, 264, 5);
    let first = |prompt: &[u32]| {
        Detokenizer::new(&text, SpecialTokenText::Hidden, prompt).push(&text, space_a).unwrap()
    };
    assert_eq!(first(&[1, space_a]), " a");
    assert_eq!(first(&[1, a]), " a");
    assert_eq!(first(&[1, space_a, end_of_question]), "a");
    assert_eq!(first(&[]), "a");
}

#[test]
fn bytes_that_are_tokens_wait_for_their_character() {
    let text = text(&pieces());
    // 🐑 is 4 bytes; then half of one, and a letter.
    let bytes: Vec<u32> = "🐑".bytes().map(|byte| 6 + u32::from(byte)).collect();
    let tokens = [&bytes[..], &bytes[..2], &[262]].concat();
    assert_eq!(stream(&text, &tokens).concat(), text.decode(&tokens, SpecialTokenText::Hidden).unwrap());
    assert_eq!(stream(&text, &bytes), ["", "", "", "", "🐑"]);
    assert_eq!(stream(&text, &[262, bytes[0], 262])[1], "");
    assert_eq!(stream(&text, &[262, bytes[0], 262]).concat(), "a\u{FFFD}a");
}

#[test]
fn tokens_have_bytes_of_their_own() {
    let byte_level = text(&byte_level());
    let tokens = byte_level.encode("日<|end|> w", false).unwrap();
    let bytes: Vec<_> = tokens.iter().map(|token| byte_level.token_bytes(*token).unwrap()).collect();
    assert_eq!(bytes, [&[0xE6][..], &[0x97], &[0xA5], b"<|end|>", b" w"]);
    assert_eq!(byte_level.token_text(tokens[0]).as_deref(), Some("\u{FFFD}"));
    assert_eq!(byte_level.token_bytes(9_999), None);
    let pieces = text(&pieces());
    let of = |token| pieces.token_bytes(token).unwrap();
    assert_eq!([of(6 + 0xEF), of(264), of(1)], [vec![0xEF], b" a".to_vec(), b"<s>".to_vec()]);
}

proptest! {
    /// Any tokens at all, valid text or not, special, added and unknown ones among them.
    #[test]
    fn byte_level_pieces_are_the_whole(tokens in prop::collection::vec(0..270_u32, 0..60), special in special()) {
        let text = text(&byte_level());
        prop_assert_eq!(stream_with(&text, &tokens, special).concat(), text.decode(&tokens, special).unwrap());
        let bytes: Vec<u8> = tokens.iter().filter_map(|token| text.token_bytes(*token)).flatten().collect();
        prop_assert_eq!(String::from_utf8_lossy(&bytes), text.decode(&tokens, SpecialTokenText::Shown).unwrap());
    }

    /// In each of the forms that checkpoints ship: Llama 2's, Mistral's, and one that adds no space in front.
    #[test]
    fn sentence_pieces_are_the_whole(
        tokens in prop::collection::vec(prop_oneof![0..6_u32, 6..262_u32, 262..275_u32], 0..60),
        special in special(),
        form in 0..3_usize,
    ) {
        let text = text(&sentence_pieces()[form]);
        prop_assert_eq!(stream_with(&text, &tokens, special).concat(), text.decode(&tokens, special).unwrap());
    }

    /// What a SentencePiece tokenizer is given comes back, unknown characters by their bytes. (A space at its beginning
    /// does not: in these vocabularies it is the one put there.)
    #[test]
    fn text_of_pieces_comes_back(words in "([abé日🐑\n][ab é日🐑\n]{0,11})?", form in 0..3_usize) {
        let text = text(&sentence_pieces()[form]);
        let tokens = text.encode(&words, false).unwrap();
        prop_assert_eq!(stream(&text, &tokens).concat(), words);
    }

    /// Real text survives the way there and back.
    #[test]
    fn text_comes_back(words in "\\PC{0,40}") {
        let text = text(&byte_level());
        let tokens = text.encode(&words, false).unwrap();
        prop_assert_eq!(stream(&text, &tokens).concat(), words);
    }
}
