use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::text::parser::json_object::{ObjectScanner, Scan};

fn scan(text: &str) -> Scan {
    ObjectScanner::new().scan(text)
}

#[test]
fn objects_end_where_they_end() {
    for text in ["{}", "{ }", r#"{"a":{"b":[1,[],{}]},"c":"}\"\\\u00e9"}"#, r#"{"a":-0.5e+3,"b":null}"#] {
        assert_eq!(scan(text), Scan::Complete(text.len()), "{text}");
        assert_eq!(scan(&format!("{text} }}")), Scan::Complete(text.len()), "{text}");
        for (end, _) in text.char_indices() {
            assert_eq!(scan(&text[..end]), Scan::Incomplete, "{}", &text[..end]);
        }
    }
}

#[test]
fn what_serde_refuses_is_malformed() {
    let cases = [
        " {}",
        "[]",
        "{,",
        "{\"a\",",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\":01",
        "{\"a\":1.}",
        "{\"a\":.5",
        "{\"a\":+1",
        "{\"a\":1e}",
        "{\"a\":tru}",
        "{\"a\":[1,]",
        "{\"a\":[}",
        "{\"a\":{]",
        "{'a'",
        "{\"a\\x",
        "{\"a\":\"\n",
        "{\"a\":\"\\u12g",
        "{\"a\":-}",
        "{\"a\":NaN",
        "{a",
    ];
    for text in cases {
        assert_eq!(scan(text), Scan::Malformed, "{text}");
    }
    let deep = "{\"a\":".repeat(127);
    assert_eq!(scan(&deep), Scan::Incomplete);
    assert_eq!(scan(&format!("{deep}{{")), Scan::Malformed);
    let fits = format!("{{\"a\":{}{}}}", "[".repeat(126), "]".repeat(126));
    assert_eq!(scan(&fits), Scan::Complete(fits.len()));
    assert!(serde_json::from_str::<Value>(&fits).is_ok());
}

#[test]
fn members_are_found() {
    let text = r#"{"a" : [1, {"x": 2}], "b\"": 12, "c": "open"#;
    let mut scanner = ObjectScanner::new();
    scanner.scan(text);
    let found: Vec<(&str, &str)> = scanner
        .members()
        .iter()
        .map(|member| {
            (&text[member.key.clone()], &text[member.value_start..member.value_end.unwrap_or(text.len())])
        })
        .collect();
    assert_eq!(found, [("\"a\"", "[1, {\"x\": 2}]"), ("\"b\\\"\"", "12"), ("\"c\"", "\"open")]);
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn every_object_of_serde_is_complete(members in prop::collection::vec((any::<String>(), value()), 0..4), pretty: bool) {
        let object = Value::Object(members.into_iter().collect());
        let text = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) }.unwrap();
        prop_assert_eq!(scan(&text), Scan::Complete(text.len()));
    }

    /// Whatever the bytes: what is complete, serde reads; what serde reads is complete; and pieces do not matter.
    #[test]
    fn scan_and_serde_agree(text in r#"\{("a"|[{}\[\]:,"\\ a1.e-]|true|null|\\u00e9){0,12}\}?"#, cut in 0..20_usize) {
        let found = scan(&text);
        let mut scanner = ObjectScanner::new();
        scanner.scan(&text[..text.floor_char_boundary(cut.min(text.len()))]);
        prop_assert_eq!(scanner.scan(&text), found);
        match found {
            Scan::Complete(bytes) => prop_assert!(serde_json::from_str::<Value>(&text[..bytes]).is_ok()),
            _ => prop_assert!(serde_json::from_str::<Value>(&text).is_err()),
        }
    }
}
