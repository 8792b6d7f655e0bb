//! The part of JSON Schema that the tests use, read independently of what compiles it.

use serde_json::Value;

/// Why `value` is not valid, if it is not.
pub(super) fn violation(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    let wrong = |what: &str| Some(format!("{value} is not {what} of {schema}"));
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.strip_prefix('#').unwrap()).unwrap();
        return violation(root, target, value);
    }
    if let Some(options) = schema["anyOf"].as_array() {
        let valid = options.iter().any(|option| violation(root, option, value).is_none());
        return if valid { None } else { wrong("any") };
    }
    if let Some(values) = schema["enum"].as_array() {
        return if values.contains(value) { None } else { wrong("in the enum") };
    }
    if !schema["const"].is_null() {
        return if schema["const"] == *value { None } else { wrong("the const") };
    }
    let named = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.as_f64().unwrap().fract() == 0.0 => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types: Vec<&str> = match &schema["type"] {
        Value::String(only) => vec![only],
        Value::Array(several) => several.iter().map(|one| one.as_str().unwrap()).collect(),
        _ => vec![named],
    };
    if !(types.contains(&named) || named == "integer" && types.contains(&"number")) {
        return wrong("the type");
    }
    let within = |count: usize, least: &str, most: &str| {
        let bound = |name: &str| schema[name].as_u64();
        bound(least).is_none_or(|least| count as u64 >= least)
            && bound(most).is_none_or(|most| count as u64 <= most)
    };
    match value {
        Value::Number(number) => {
            let number = number.as_f64().unwrap();
            let bound = |name: &str| schema[name].as_f64();
            let valid = bound("minimum").is_none_or(|least| number >= least)
                && bound("maximum").is_none_or(|most| number <= most)
                && bound("exclusiveMinimum").is_none_or(|below| number > below)
                && bound("exclusiveMaximum").is_none_or(|above| number < above);
            if valid { None } else { wrong("in the range") }
        }
        Value::String(text) => {
            let valid = within(text.chars().count(), "minLength", "maxLength");
            if valid { None } else { wrong("the length") }
        }
        Value::Array(items) if !within(items.len(), "minItems", "maxItems") => wrong("the size"),
        Value::Array(items) => items.iter().find_map(|item| violation(root, &schema["items"], item)),
        Value::Object(members) => {
            let required = schema["required"].as_array().map_or(&[][..], |names| names);
            if required.iter().any(|name| !members.contains_key(name.as_str().unwrap())) {
                return wrong("complete");
            }
            members.iter().find_map(|(name, member)| match schema["properties"].get(name) {
                Some(property) => violation(root, property, member),
                None if schema["additionalProperties"] == false => wrong("closed"),
                None => None,
            })
        }
        _ => None,
    }
}
