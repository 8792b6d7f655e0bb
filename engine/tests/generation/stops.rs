//! What ends an answer, and which tokens come with its text.

use sparkherd_engine::{Ends, FinishReason, GenerationRequest, Sampling, SpecialTokenText};

use crate::{
    Answer,
    fake::{EOS, Fake, Running, text},
    read, request,
};

fn answer(engine: &Running, ends: Ends) -> Answer {
    read(engine.submit(GenerationRequest { ends, ..request("tell-me", 60) }).unwrap())
}

fn reason(answer: &Answer) -> FinishReason {
    answer.end.clone().unwrap().0
}

/// The token of each character.
fn tokens_of(text: &str) -> Vec<u32> {
    text.bytes().map(|byte| u32::from(byte) - 0x21).collect()
}

#[test]
fn a_stop_token_ends_an_answer_without_being_in_it() {
    let engine = Running::start(Fake::new(64, 4, 64), text(false), 256, 4);
    let whole = answer(&engine, Ends::default());
    assert_eq!(whole.tokens.len(), 60);
    let stop = whole.tokens[30];
    let first = whole.tokens.iter().position(|token| *token == stop).unwrap();
    let stopped = answer(&engine, Ends { stop_token_ids: vec![94, stop], ..Ends::default() });
    assert_eq!(reason(&stopped), FinishReason::StopToken(stop));
    assert_eq!(stopped.tokens, whole.tokens[..first]);
    assert!(whole.text.starts_with(&stopped.text));
    // Before so many tokens another one is chosen in its place.
    let min_tokens = u32::try_from(first).unwrap() + 1;
    let later = answer(&engine, Ends { stop_token_ids: vec![stop], min_tokens, ..Ends::default() });
    assert!(later.tokens.len() > first && later.tokens[first] != stop);
    assert_eq!(later.tokens[..first], whole.tokens[..first]);
}

#[test]
fn a_stop_string_counts_where_it_begins_after_min_tokens() {
    let engine = Running::start(Fake::new(64, 4, 64), text(false), 256, 4);
    let whole = answer(&engine, Ends::default());
    let stop = vec![whole.text[20..24].to_owned()];
    let min = |min_tokens| answer(&engine, Ends { stop: stop.clone(), min_tokens, ..Ends::default() });
    let stopped = min(20);
    assert_eq!((reason(&stopped), stopped.text.as_str()), (FinishReason::StopString, &whole.text[..20]));
    assert_eq!(stopped.tokens, tokens_of(&whole.text[..20]));
    assert_ne!(min(21).text, stopped.text);
}

#[test]
fn the_end_of_sequence_can_be_ignored() {
    let engine = Running::start(Fake::new(64, 4, 64), text(true), 512, 4);
    let ask = |prompt: &str, ends: Ends| {
        let sampling = Sampling { temperature: 1.5, seed: Some(5), ..Sampling::default() };
        read(engine.submit(GenerationRequest { ends, sampling, ..request(prompt, 300) }).unwrap())
    };
    let prompts: Vec<String> = (0..20).map(|index| format!("prompt-{index}")).collect();
    let ends = |prompt: &&String| reason(&ask(prompt, Ends::default())) == FinishReason::Stop;
    let prompt = prompts.iter().find(ends).expect("one of them ends");
    let ended = ask(prompt, Ends::default());
    let ignored = ask(prompt, Ends { ignore_eos: true, ..Ends::default() });
    assert_eq!(reason(&ignored), FinishReason::Length);
    assert!(ignored.text.starts_with(&ended.text) && ignored.tokens.contains(&EOS));
    assert_eq!(ignored.tokens.len(), 300);
    let min_tokens = u32::try_from(ended.tokens.len()).unwrap() + 1;
    let longer = ask(prompt, Ends { min_tokens, ..Ends::default() });
    assert!(longer.tokens.len() > ended.tokens.len());
    // Special tokens are text where they are wanted.
    let shown = GenerationRequest {
        ends: Ends { ignore_eos: true, ..Ends::default() },
        special_tokens: SpecialTokenText::Shown,
        sampling: Sampling { temperature: 1.5, seed: Some(5), ..Sampling::default() },
        ..request(prompt, 300)
    };
    let shown = read(engine.submit(shown).unwrap());
    assert_eq!(shown.text.replace("<eos>", ""), ignored.text);
    assert!(shown.text.contains("<eos>"));
}
