//! Answers that follow a grammar, through the whole engine.

use serde_json::Value;
use sparkherd_engine::{
    ClientKey, Ends, FinishReason, GenerationRequest, Grammar, GrammarError, GrammarSource, Sampling,
};

use crate::{
    Answer,
    fake::{Fake, Running, text},
    read, request, submit,
};

const SCHEMA: &str = r#"{
    "type": "object", "additionalProperties": false, "required": ["kind", "size"],
    "properties": {"kind": {"enum": ["ram", "ewe"]}, "size": {"type": "integer", "minimum": 1, "maximum": 99}}
}"#;

fn engine(eos: bool) -> Running {
    Running::start(Fake::new(64, 8, 256), text(eos), 256, 64)
}

fn schema() -> GrammarSource {
    GrammarSource::JsonSchema(SCHEMA.to_owned())
}

fn following(grammar: &Grammar, seed: u64, max_tokens: u32) -> GenerationRequest {
    let sampling = Sampling { temperature: 1.0, seed: Some(seed), ..Sampling::default() };
    GenerationRequest { grammar: Some(grammar.clone()), sampling, ..request("json", max_tokens) }
}

fn ask(engine: &Running, request: GenerationRequest) -> Answer {
    read(submit(&engine.handle, request).unwrap())
}

fn reason(answer: &Answer) -> FinishReason {
    answer.end.clone().unwrap().0
}

/// With a token that says the answer has ended, and with a model that has none.
#[test]
fn answers_of_a_schema_are_valid_and_end_by_themselves() {
    for eos in [true, false] {
        let engine = engine(eos);
        let grammar = engine.handle.compile_grammar(&schema(), ClientKey::default()).unwrap();
        for seed in 0..20 {
            let answer = ask(&engine, following(&grammar, seed, 100));
            assert_eq!(reason(&answer), FinishReason::Stop, "{answer:?}");
            let value: Value = serde_json::from_str(&answer.text).unwrap();
            assert!(["ram", "ewe"].contains(&value["kind"].as_str().unwrap()), "{value}");
            assert!((1..=99).contains(&value["size"].as_u64().unwrap()), "{value}");
            assert_eq!(value.as_object().unwrap().len(), 2);
        }
    }
}

#[test]
fn an_answer_that_is_cut_says_so_and_a_grammar_outlasts_what_would_go_on() {
    let engine = engine(true);
    let grammar = engine.handle.compile_grammar(&schema(), ClientKey::default()).unwrap();
    let cut = ask(&engine, following(&grammar, 1, 5));
    assert_eq!(reason(&cut), FinishReason::Length);
    assert!(serde_json::from_str::<Value>(&cut.text).is_err() && cut.text.starts_with('{'));
    let ends = Ends { ignore_eos: true, min_tokens: 60, ..Ends::default() };
    let whole = ask(&engine, GenerationRequest { ends, ..following(&grammar, 1, 100) });
    assert_eq!(reason(&whole), FinishReason::Stop);
    assert!(serde_json::from_str::<Value>(&whole.text).is_ok(), "{whole:?}");
}

/// Same seed, same answer: alone, and among others that follow the same grammar, another one, or none.
#[test]
fn answers_are_the_same_alone_and_among_others() {
    let alone = engine(true);
    let together = engine(true);
    let choice = GrammarSource::Choice(vec!["yes".to_owned(), "no".to_owned()]);
    let requests = |engine: &Running| -> Vec<GenerationRequest> {
        let of_schema = engine.handle.compile_grammar(&schema(), ClientKey::default()).unwrap();
        let of_choice = engine.handle.compile_grammar(&choice, ClientKey::default()).unwrap();
        (0..12)
            .map(|seed| match seed % 3 {
                0 => following(&of_schema, seed, 60),
                1 => following(&of_choice, seed, 60),
                _ => request("plain", 30),
            })
            .collect()
    };
    let wanted: Vec<Answer> =
        requests(&alone).into_iter().map(|request| ask(&alone, request).without_cache()).collect();
    let running: Vec<_> =
        requests(&together).into_iter().map(|request| submit(&together.handle, request).unwrap()).collect();
    let got: Vec<Answer> = running.into_iter().map(|generation| read(generation).without_cache()).collect();
    assert_eq!(got, wanted);
}

/// The worker stands still meanwhile: whatever a grammar costs to compile, it is not the worker's time.
#[test]
fn grammars_are_compiled_beside_the_worker() {
    let (engine, open) = Running::start_gated(Fake::new(64, 4, 64), 256, 8);
    let stream = submit(&engine.handle, request("stream", 20)).unwrap();
    assert!(engine.handle.compile_grammar(&schema(), ClientKey::default()).is_ok());
    let hostile = [
        GrammarSource::Regex("(".to_owned()),
        GrammarSource::JsonSchema("[".repeat(100_000)),
        GrammarSource::Lark("start: start".to_owned()),
    ];
    for source in hostile {
        let refused = engine.handle.compile_grammar(&source, ClientKey::default()).unwrap_err();
        assert!(matches!(refused, GrammarError::Refused(_) | GrammarError::NotJson(_)), "{refused}");
    }
    assert_eq!(engine.handle.stats().steps, 0, "no step was needed");
    drop(open);
    assert_eq!(read(stream).tokens.len(), 20);
}
