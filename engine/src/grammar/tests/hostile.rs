use serde_json::{Map, Value, json};

use super::{Constraint, GrammarSource, bench};
use crate::{grammar::GrammarError, request::ClientKey, sample::uniform};

/// A value of arrays in arrays.
fn nested(levels: usize) -> Value {
    (0..levels).fold(json!({"type": "null"}), |inner, _| json!({"items": inner, "type": "array"}))
}

/// Definitions that each refer to the next.
fn chain(length: usize) -> Value {
    let definitions: Map<String, Value> = (0..length)
        .map(|index| {
            let next = format!("#/$defs/d{}", (index + 1).min(length - 1));
            let definition = if index + 1 == length {
                json!({"type": "null"})
            } else {
                json!({"allOf": [{"$ref": next}, {"type": "null"}]})
            };
            (format!("d{index}"), definition)
        })
        .collect();
    json!({"$ref": "#/$defs/d0", "$defs": definitions})
}

#[test]
fn what_is_too_large_or_too_deep_is_refused_before_it_is_read() {
    let bench = bench();
    let refused = |source: GrammarSource| bench.compiler.compile(&source, ClientKey::default()).unwrap_err();
    let large = "a".repeat((256 << 10) + 1);
    for source in [
        GrammarSource::Regex(large.clone()),
        GrammarSource::Lark(large.clone()),
        GrammarSource::Choice(vec![large.clone()]),
        GrammarSource::JsonSchema(large),
    ] {
        assert_eq!(refused(source), GrammarError::TooLarge { bytes: 262_145, bytes_max: 262_144 });
    }
    let deep = refused(GrammarSource::JsonSchema(nested(70).to_string()));
    assert_eq!(deep, GrammarError::TooDeep { levels_max: 64 });
    let very_deep = "[".repeat(100_000);
    assert!(matches!(refused(GrammarSource::JsonSchema(very_deep.clone())), GrammarError::NotJson(_)));
    let lark = format!("start: {}", very_deep.replace('[', "("));
    assert_eq!(refused(GrammarSource::Lark(lark)), GrammarError::TooDeep { levels_max: 256 });
    assert_eq!(refused(GrammarSource::Choice(Vec::new())), GrammarError::NoChoice);
    assert_eq!(refused(GrammarSource::JsonSchema("3".to_owned())), GrammarError::NotASchema);
    assert!(matches!(refused(GrammarSource::JsonSchema("{".to_owned())), GrammarError::NotJson(_)));
}

/// Hundreds may wait.
#[test]
fn an_answer_that_has_not_begun_takes_no_memory_of_its_own() {
    let bench = bench();
    let grammar = bench.compile(&GrammarSource::JsonObject);
    let mut waiting: Vec<Constraint> = (0..300).map(|_| Constraint::new(&grammar)).collect();
    assert_eq!(bench.compiler.answers_leased(), 0);
    waiting[7].begin(&bench.threads);
    waiting[7].next().unwrap();
    assert_eq!(bench.compiler.answers_leased(), 1);
    drop(waiting);
    assert_eq!(bench.compiler.answers_leased(), 0);
}

/// Compiling them would take gigabytes.
#[test]
fn many_expressions_that_hold_together_are_refused_before_they_are_compiled() {
    let bench = bench();
    let pattern = |index: usize| json!({"type": "string", "pattern": format!("name {index}")});
    let all_of = |count: usize| json!({"allOf": (0..count).map(pattern).collect::<Vec<_>>()});
    let links: Map<String, Value> = (0..40)
        .map(|index| {
            (
                format!("d{index}"),
                json!({"$ref": format!("#/$defs/d{}", index + 1), "pattern": index.to_string()}),
            )
        })
        .chain([("d40".to_owned(), json!({"type": "string"}))])
        .collect();
    let expressions: Vec<String> = (0..40).map(|index| format!("/.*{index}.*/")).collect();
    for source in [
        GrammarSource::JsonSchema(all_of(40).to_string()),
        GrammarSource::JsonSchema(json!({"$ref": "#/$defs/d0", "$defs": links}).to_string()),
        GrammarSource::Lark(format!("start: \"x\" %json {}", all_of(40))),
        GrammarSource::Lark(format!("start: A\nA: {}", expressions.join(" & "))),
        // Marks that open nothing where they stand.
        GrammarSource::Lark(format!("start: A Q\nQ: /\"/ \"/\" // \"\nA: {}", expressions.join(" & "))),
        GrammarSource::Lark(format!("start: A Q\nQ: <a\"b> # /\nA: {}", expressions.join(" & "))),
    ] {
        let refused = bench.compiler.compile(&source, ClientKey::default()).unwrap_err();
        assert!(matches!(refused, GrammarError::Intersections { count_max: 16, .. }), "{refused}");
    }
    let words: Vec<String> = (0..40).map(|index| format!("\"{index} & &\" /a&{index}/ // &\n")).collect();
    bench.compile(&GrammarSource::Lark(format!("start: {}", words.join(" | "))));
    // What is common: many patterns side by side, and objects that extend others.
    let fields: Map<String, Value> = (0..60).map(|index| (format!("f{index}"), pattern(index))).collect();
    let base = json!({"type": "object", "properties": {"id": {"type": "integer"}}});
    let extended: Vec<Value> = (0..30)
        .map(|index| json!({"allOf": [base, {"type": "object", "properties": {format!("p{index}"): {"type": "boolean"}}}]}))
        .collect();
    bench.compile(&GrammarSource::JsonSchema(json!({"type": "object", "properties": fields}).to_string()));
    bench.compile(&GrammarSource::JsonSchema(json!({"anyOf": extended}).to_string()));
}

/// Each is refused with one sentence.
#[test]
fn what_cannot_be_kept_to_or_takes_too_much_is_refused_with_a_sentence() {
    let bench = bench();
    let schema = |schema: Value| GrammarSource::JsonSchema(schema.to_string());
    let hostile = [
        schema(json!(false)),
        schema(json!({"type": "string", "pattern": "("})),
        schema(json!({"type": "integer", "minimum": 5, "maximum": 4})),
        schema(json!({"$ref": "#/$defs/missing"})),
        schema(json!({"$ref": "https://example.com/schema.json"})),
        schema(json!({"type": "object", "unevaluatedProperties": false})),
        schema(json!({"not": {"type": "string"}})),
        GrammarSource::Regex("(".to_owned()),
        GrammarSource::Lark("begin: \"a\"".to_owned()),
        GrammarSource::Lark("start: start".to_owned()),
        GrammarSource::Lark("start: <|no_such_token|>".to_owned()),
    ];
    for source in hostile {
        match bench.compiler.compile(&source, ClientKey::default()) {
            Err(GrammarError::Refused(reason)) => {
                assert!(!reason.is_empty() && reason.chars().count() <= 400, "{source:?}: {reason}");
                assert!(!reason.contains("<state>"), "{source:?}: {reason}");
            }
            other => panic!("{source:?}: {other:?}"),
        }
    }
}

/// These may be taken or refused; what counts is that an answer comes, and the process lives.
#[test]
fn long_chains_and_large_lists_end() {
    let bench = bench();
    let names: Vec<String> = (0..15_000).map(|index| format!("name {index}")).collect();
    let properties: Map<String, Value> =
        (0..4000).map(|index| (format!("p{index}"), json!({"type": "string"}))).collect();
    let rules: Vec<String> = (0..4000).map(|n| format!("a{n}: a{} | \"x\"\n", n + 1)).collect();
    for source in [
        GrammarSource::JsonSchema(chain(4000).to_string()),
        GrammarSource::JsonSchema(json!({"enum": names}).to_string()),
        GrammarSource::JsonSchema(json!({"type": "string", "minLength": 100_000_000}).to_string()),
        GrammarSource::JsonSchema(json!({"type": "array", "minItems": 100_000_000}).to_string()),
        GrammarSource::JsonSchema(
            json!({"type": "string", "pattern": "([ab]{1,3000}c){1,3000}"}).to_string(),
        ),
        GrammarSource::Regex("((a{1,1000}b){1,1000}c){1,1000}".to_owned()),
        GrammarSource::JsonSchema(json!({"type": "object", "properties": properties}).to_string()),
        GrammarSource::Choice(names),
        GrammarSource::Regex("(".repeat(100_000) + &")".repeat(100_000)),
        GrammarSource::Regex("(a|b|ab)*".repeat(2000)),
        GrammarSource::Lark(format!("start: a0\n{}a4000: \"x\"", rules.concat())),
    ] {
        match bench.compiler.compile(&source, ClientKey::default()) {
            Ok(_) | Err(GrammarError::Refused(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

/// An automaton of 2^400 states is built only as far as an answer leads into it, and counting states and fuel ends that.
#[test]
fn a_grammar_that_explodes_later_fails_its_own_request() {
    let bench = bench();
    let grammar = bench.compile(&GrammarSource::Regex("([ab]*a[ab]{400}c)+".to_owned()));
    let letters = ["a", "b"].map(|letter| bench.text.encode(letter, false).unwrap()[0]);
    let mut constraint = Constraint::new(&grammar);
    let failed = (0..50_000).find_map(|step| {
        constraint.begin(&bench.threads);
        let letter = letters[usize::from(uniform(1, step) < 0.5)];
        constraint.next().and_then(|_| constraint.accept(letter)).err()
    });
    let reason = failed.expect("the states are used up").to_string();
    assert!(!reason.is_empty() && !reason.contains('\n'), "{reason}");
    assert!(constraint.accept(letters[0]).is_err(), "it goes no further");
    let other = bench.compile(&GrammarSource::Choice(vec!["still here".to_owned()]));
    assert_eq!(bench.babble(&other, 1, 50).0, "still here");
}
