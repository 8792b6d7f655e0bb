//! Forms and calls that a grammar makes, and that something ends before they are whole.

use serde_json::{Value, json};

use crate::harness::Server;

fn tools() -> Value {
    let parameters = json!({
        "type": "object", "additionalProperties": false, "required": ["city"],
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
    });
    json!([{"type": "function", "function": {"name": "weather", "parameters": parameters}}])
}

fn forced(ended_by: &Value) -> Value {
    let mut changes = json!({"tools": tools(), "tool_choice": "required", "parallel_tool_calls": false});
    changes.as_object_mut().unwrap().extend(ended_by.as_object().unwrap().clone());
    changes
}

/// A forced call, ended within its arguments: never `tool_calls`, and no half call in a whole answer.
#[tokio::test]
async fn a_forced_call_that_is_cut_is_no_call() {
    let server = Server::example().await;
    for (ended_by, reason) in [
        (json!({}), "tool_calls"),
        (json!({"stop": "\"city\""}), "stop"),
        (json!({"stop": ["}}"]}), "stop"),
        (json!({"max_tokens": 30}), "length"),
    ] {
        let choice = server.choice(forced(&ended_by)).await;
        assert_eq!(choice["finish_reason"], reason, "{choice}");
        let message = &choice["message"];
        if reason == "tool_calls" {
            let arguments = message["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
            assert!(serde_json::from_str::<Value>(arguments).unwrap().is_object(), "{choice}");
        } else {
            assert_eq!(message.get("tool_calls"), None, "{choice}");
            assert!(message["content"].as_str().unwrap().contains("\"name\""), "{choice}");
        }
        let (deltas, streamed) = server.deltas(forced(&ended_by)).await;
        assert_eq!(streamed, reason, "{deltas:?}");
        let arguments: String = deltas
            .iter()
            .filter_map(|delta| delta["tool_calls"][0]["function"]["arguments"].as_str())
            .collect();
        let is_whole = serde_json::from_str::<Value>(&arguments).is_ok_and(|value| value.is_object());
        assert_eq!(is_whole, reason == "tool_calls", "{arguments:?} {deltas:?}");
    }
}

/// Clients send both: the answer has the form, or is calls.
#[tokio::test]
async fn a_form_beside_tools_is_kept_to_or_a_tool_is_called() {
    let server = Server::example().await;
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["ok"],
        "properties": {"ok": {"type": "boolean"}},
    });
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    for seed in 0..6 {
        let asked = json!({
            "tools": tools(), "parallel_tool_calls": false, "response_format": format, "seed": seed, "temperature": 2,
        });
        let choice = server.choice(asked).await;
        let message = &choice["message"];
        if let Some(calls) = message.get("tool_calls") {
            assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
            for call in calls.as_array().unwrap() {
                let arguments: Value =
                    serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
                assert!(["Paris", "Rome"].contains(&arguments["city"].as_str().unwrap()), "{choice}");
            }
        } else {
            assert_eq!(choice["finish_reason"], "stop", "{choice}");
            let value: Value = serde_json::from_str(message["content"].as_str().unwrap()).unwrap();
            assert!(value["ok"].is_boolean(), "{choice}");
        }
    }
}
