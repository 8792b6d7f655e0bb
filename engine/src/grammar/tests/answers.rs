use serde_json::{Value, json};

use super::{Ending, GrammarSource, bench, schema::violation};
use crate::text::{ChatFormat, ReasoningStart, Tool, ToolChoice};

const SEEDS: u64 = 12;

fn schemas() -> Vec<Value> {
    vec![
        json!({
            "type": "object", "additionalProperties": false, "required": ["name", "age", "tags"],
            "properties": {
                "name": {"type": "string", "maxLength": 12},
                "age": {"type": "integer", "minimum": 0, "maximum": 130},
                "tags": {"type": "array", "items": {"enum": ["a", "b", "ü\"\n"]}, "minItems": 1, "maxItems": 3},
            },
        }),
        json!({
            "type": "object", "additionalProperties": false, "required": ["root"],
            "properties": {"root": {"$ref": "#/$defs/node"}},
            "$defs": {"node": {
                "type": "object", "additionalProperties": false, "required": ["value", "next"],
                "properties": {
                    "value": {"type": ["string", "null"], "minLength": 1, "maxLength": 4},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                },
            }},
        }),
        json!({"type": "number", "minimum": -3.5, "exclusiveMaximum": 12.25}),
        json!({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 5}),
        json!({"enum": ["red", 3, null, {"a": [1, 2]}]}),
        json!({"const": {"kind": "fixed", "of": [true]}}),
        json!({"anyOf": [{"type": "integer", "exclusiveMinimum": 9, "maximum": 99}, {"type": "string", "maxLength": 3}]}),
        json!({
            "type": "object", "required": ["a"], "additionalProperties": {"type": "integer", "minimum": 1, "maximum": 9},
            "properties": {"a": {"type": "object", "properties": {"b": {"type": "object", "properties": {}}}, "required": ["b"]}},
        }),
    ]
}

#[test]
fn every_answer_that_ends_by_itself_parses_and_is_valid() {
    let bench = bench();
    let mut complete = 0;
    for schema in schemas() {
        let grammar = bench.compile(&GrammarSource::JsonSchema(schema.to_string()));
        let mut ended = 0;
        for seed in 0..SEEDS {
            let (answer, ending) = bench.babble(&grammar, seed, 600);
            if ending == Ending::Length {
                continue;
            }
            ended += 1;
            let value: Value = serde_json::from_str(&answer)
                .unwrap_or_else(|error| panic!("{error}: {answer} for {schema}"));
            assert_eq!(violation(&schema, &schema, &value), None);
        }
        assert!(ended > 0, "no answer ended: {schema}");
        complete += ended;
    }
    assert!(complete > SEEDS * schemas().len() as u64 / 2, "{complete} answers ended");
}

/// What a schema forbids is found by the tests' own reading of it.
#[test]
fn the_reading_of_schemas_finds_what_is_wrong() {
    let schemas = schemas();
    for (index, value) in [
        (0, json!({"name": "x", "age": 131, "tags": ["a"]})),
        (0, json!({"name": "x", "age": 1, "tags": []})),
        (0, json!({"name": "x", "age": 1, "tags": ["a"], "more": 1})),
        (0, json!({"name": "x", "tags": ["a"]})),
        (1, json!({"root": {"value": "", "next": null}})),
        (1, json!({"root": {"value": "a", "next": {"value": 1, "next": null}}})),
        (2, json!(12.25)),
        (3, json!([true, 1])),
        (4, json!("green")),
        (6, json!(9)),
    ] {
        assert!(violation(&schemas[index], &schemas[index], &value).is_some(), "{value}");
    }
}

#[test]
fn json_object_ends_as_an_object() {
    let bench = bench();
    let grammar = bench.compile(&GrammarSource::JsonObject);
    let mut ended = 0;
    for seed in 0..SEEDS {
        let (answer, ending) = bench.babble(&grammar, seed, 2000);
        if ending == Ending::Complete {
            let value: Value =
                serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
            assert!(value.is_object(), "{answer}");
            ended += 1;
        }
    }
    assert!(ended >= SEEDS / 2, "{ended} of {SEEDS} ended");
}

/// Every run of white space outside strings is bounded, however much a model likes to write it.
#[test]
fn white_space_is_bounded() {
    let bench = bench();
    let alone = GrammarSource::JsonObject;
    let within = GrammarSource::Lark(format!("start: {}", alone.lark_expression().unwrap()));
    for source in [alone, within] {
        white_space_is_bounded_in(&bench, &source);
    }
}

fn white_space_is_bounded_in(bench: &super::Bench, source: &GrammarSource) {
    let grammar = bench.compile(source);
    let mut constraint = super::Constraint::new(&grammar);
    let blank = bench.text.encode(" ", false).unwrap()[0];
    let open = bench.text.encode("{", false).unwrap()[0];
    let mut may_be_blank = |token: Option<u32>| {
        if let Some(token) = token {
            assert!(!constraint.accept(token).unwrap());
        }
        constraint.begin(&bench.threads);
        let super::NextTokens::Of(mask) = constraint.next().unwrap() else { panic!("it is not complete") };
        mask.allows(blank)
    };
    assert!(!may_be_blank(None), "no blank before the object");
    assert!(may_be_blank(Some(open)), "one is allowed");
    assert!(!may_be_blank(Some(blank)), "a second one is not");
}

/// Reads an answer independently.
type IsValid<'a> = &'a dyn Fn(&str) -> bool;

#[test]
fn formats_patterns_expressions_and_choices_are_kept_to() {
    let bench = bench();
    let is_date = |text: &str| {
        let parts: Vec<&str> = text.split('-').collect();
        parts.iter().map(|part| part.len()).eq([4, 2, 2])
            && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
    };
    let is_code = |text: &str| {
        let (letters, digits) = text.split_at(2);
        text.len() == 5
            && letters.bytes().all(|byte| byte.is_ascii_uppercase())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let string = |answer: &str| serde_json::from_str::<String>(answer).unwrap();
    let date = json!({"type": "string", "format": "date"}).to_string();
    let code = json!({"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"}).to_string();
    let choices = ["yes", "yes, but", "no \"thanks\"\n", "été"];
    let cases: [(GrammarSource, IsValid<'_>); 6] = [
        (GrammarSource::JsonSchema(date), &|answer| is_date(&string(answer))),
        (GrammarSource::JsonSchema(code), &|answer| is_code(&string(answer))),
        (GrammarSource::Regex("[A-Z]{2}[0-9]{3}".to_owned()), &|answer| is_code(answer)),
        (GrammarSource::Regex("^[A-Z]{2}/?[0-9]{3}$".to_owned()), &|answer| {
            is_code(&answer.replace('/', ""))
        }),
        (GrammarSource::Choice(choices.map(str::to_owned).to_vec()), &|answer| choices.contains(&answer)),
        (
            GrammarSource::Lark("start: \"<\" word (\",\" word)? \">\"\nword: /[a-z]{2}/".to_owned()),
            &|answer| answer.len() == 4 || answer.len() == 7 && answer.as_bytes()[3] == b',',
        ),
    ];
    for (source, is_valid) in cases {
        let grammar = bench.compile(&source);
        for seed in 0..SEEDS {
            let (answer, ending) = bench.babble(&grammar, seed, 100);
            assert_eq!(ending, Ending::Complete, "{answer:?} for {source:?}");
            assert!(is_valid(&answer), "{answer:?} for {source:?}");
        }
    }
}

/// Whether an answer may be these words, and end there.
fn allows(bench: &super::Bench, source: &GrammarSource, answer: &str) -> bool {
    let grammar = bench.compile(source);
    let mut constraint = super::Constraint::new(&grammar);
    for token in bench.text.encode(answer, false).unwrap() {
        constraint.begin(&bench.threads);
        match constraint.next().unwrap() {
            super::NextTokens::Of(mask) if mask.allows(token) => drop(constraint.accept(token).unwrap()),
            _ => return false,
        }
    }
    constraint.begin(&bench.threads);
    match constraint.next().unwrap() {
        super::NextTokens::Nothing => true,
        super::NextTokens::Of(mask) => bench.text.eos_token_ids().iter().any(|end| mask.allows(*end)),
    }
}

/// Every form holds for what follows the thoughts, and for nothing in them.
#[test]
fn forms_begin_behind_the_thoughts() {
    let bench = bench();
    let lark = "start: word \"/\" word # two\nword: /[a-z]{2}/ # letters";
    for (source, answer) in [
        (GrammarSource::Regex("^[a-z]{2}/\\d$".to_owned()), "ab/7"),
        (GrammarSource::Lark(lark.to_owned()), "ab/cd"),
        (GrammarSource::Choice(vec!["yes".to_owned(), "no".to_owned()]), "no"),
        (GrammarSource::JsonSchema("true".to_owned()), "7"),
        (GrammarSource::JsonObject, "{\"a\": 1}"),
    ] {
        let expression = source.lark_expression().unwrap();
        let format = ChatFormat::hermes();
        let behind = |start| GrammarSource::Lark(format.after_reasoning(&expression, start).unwrap());
        let open = behind(ReasoningStart::Reasoning);
        assert!(allows(&bench, &open, &format!("Hm? </think>\n\n{answer}")), "{source:?}");
        assert!(!allows(&bench, &open, answer), "thoughts do not end: {source:?}");
        assert!(!allows(&bench, &open, "Hm? </think>\n\nHm."), "{source:?}");
        let undecided = behind(ReasoningStart::Undecided);
        assert!(allows(&bench, &undecided, answer), "{source:?}");
        assert!(allows(&bench, &undecided, &format!("<think>Hm?</think>{answer}")), "{source:?}");
        assert!(allows(&bench, &source, answer), "{source:?}");
    }
}

/// Where both are asked for, an answer is calls or has the form.
#[test]
fn an_answer_beside_tools_is_calls_or_has_its_form() {
    let bench = bench();
    let tools = [Tool { name: "f".to_owned(), parameters: None, strict: false }];
    let answer = GrammarSource::JsonObject.lark_expression().unwrap();
    let (choice, start) = (ToolChoice::Auto, ReasoningStart::Answer);
    let lark = ChatFormat::hermes().tool_grammar(&tools, &choice, true, start, Some(&answer)).unwrap();
    let source = GrammarSource::Lark(lark);
    let call = "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>";
    let two = format!("{call}\n{call}");
    for (text, expected) in [(call, true), (&two, true), ("{\"a\": 1}", true), ("words", false), ("", false)]
    {
        assert_eq!(allows(&bench, &source, text), expected, "{text} {source:?}");
    }
}

/// The same seed gives the same answer, whoever used the grammar before.
#[test]
fn answers_do_not_depend_on_who_shares_the_grammar() {
    let bench = bench();
    let source = GrammarSource::JsonSchema(schemas()[0].to_string());
    let fresh: Vec<String> = (0..4).map(|seed| bench.babble(&bench.compile(&source), seed, 200).0).collect();
    let shared = bench.compile(&source);
    let again: Vec<String> = (0..4).rev().map(|seed| bench.babble(&shared, seed, 200).0).collect();
    assert!(fresh.iter().eq(again.iter().rev()));
}
