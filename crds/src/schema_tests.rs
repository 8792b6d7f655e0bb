//! The schema as users meet it: every field explained, every string, list and map bounded.

use kube::CustomResourceExt as _;
use serde_json::Value;

use crate::{Model, ModelDeployment, ModelReplica, SparkNode};

fn schemas() -> Vec<(String, Value)> {
    [ModelDeployment::crd(), Model::crd(), ModelReplica::crd(), SparkNode::crd()]
        .into_iter()
        .map(|definition| {
            let schema = definition.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
            (definition.spec.names.kind, serde_json::to_value(schema).unwrap())
        })
        .collect()
}

/// Calls `visit` with the path and schema of every field below `schema`.
fn each_field(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        visit(&path, field);
        each_field(&path, field, visit);
    }
    if schema["items"].is_object() {
        each_field(&format!("{path}[]"), &schema["items"], visit);
    }
}

#[test]
fn every_field_is_described() {
    let mut missing = Vec::new();
    for (kind, schema) in schemas() {
        for part in ["spec", "status"] {
            each_field(&format!("{kind}.{part}"), &schema["properties"][part], &mut |path, field| {
                if field["description"].as_str().is_none_or(str::is_empty) {
                    missing.push(path.to_owned());
                }
            });
        }
    }
    assert!(missing.is_empty(), "fields without a description: {missing:#?}");
}

#[test]
fn every_optional_field_a_user_writes_names_its_default() {
    let mut missing = Vec::new();
    for (kind, schema) in schemas().into_iter().filter(|(kind, _)| kind != "ModelReplica") {
        let spec = &schema["properties"]["spec"];
        let required: Vec<_> =
            spec["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, field) in spec["properties"].as_object().unwrap() {
            if !required.contains(&name.as_str())
                && !field["description"].as_str().unwrap_or_default().contains("Default:")
            {
                missing.push(format!("{kind}.spec.{name}"));
            }
        }
    }
    assert!(missing.is_empty(), "fields that do not name their default: {missing:#?}");
}

#[test]
fn every_string_list_and_map_is_bounded() {
    let mut unbounded = Vec::new();
    for (kind, schema) in schemas() {
        for part in ["spec", "status"] {
            each_field(&format!("{kind}.{part}"), &schema["properties"][part], &mut |path, field| {
                let limit = match field["type"].as_str() {
                    Some("array") => "maxItems",
                    Some("string") if field["enum"].is_null() && field["format"].is_null() => "maxLength",
                    Some("object") if field["additionalProperties"].is_object() => "maxProperties",
                    // A schema without a type takes anything.
                    None => "type",
                    _ => return,
                };
                if field[limit].is_null() {
                    unbounded.push(format!("{path}: {limit}"));
                }
            });
        }
    }
    assert!(unbounded.is_empty(), "unbounded fields: {unbounded:#?}");
}

#[test]
fn conditions_merge_by_type_so_that_writers_do_not_erase_each_other() {
    for (kind, schema) in schemas().into_iter().filter(|(kind, _)| kind != "Model") {
        let conditions = &schema["properties"]["status"]["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-type"], "map", "{kind}");
        assert_eq!(conditions["x-kubernetes-list-map-keys"], serde_json::json!(["type"]), "{kind}");
    }
}
