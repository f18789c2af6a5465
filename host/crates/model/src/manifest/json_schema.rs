//! The JSON Schema of the format, for editors: made from the tables that the reader goes by.

use serde_json::{Map, Value, json};

use super::field::{APPROVAL, CALLBACK, DAG, Field, FieldKind, GROUP, MAPPING, RETRY_RULE, SETTINGS, TASK};
use super::retry;
use crate::callback::MAX_CALLBACKS;
use crate::cause::Cause;
use crate::trigger_rule::TriggerRule;
use crate::weight::WeightRule;

/// The JSON Schema of manifests. It accepts every manifest that the reader accepts; the reader checks more (names, edges,
/// templates, components).
pub fn json_schema() -> Value {
    let mut schema = section(&[DAG], &["dag", "tasks"]);
    let members = schema.as_object_mut().expect("a section is an object");
    members.insert(
        "$schema".to_owned(),
        "https://json-schema.org/draft/2020-12/schema".into(),
    );
    members.insert("title".to_owned(), "Airtight DAG manifest".into());
    let mut task = section(&[TASK, MAPPING, SETTINGS], &[]);
    let instead = ["component", "human", "latest_only", "trigger_dag", "wait_for_dag"];
    task["anyOf"] = instead.map(|key| json!({"required": [key]})).to_vec().into();
    let group = section(&[GROUP, MAPPING], &["tasks"]);
    let either = json!({"if": {"type": "object", "required": ["tasks"]}, "then": group, "else": task});
    let mut callback = section(&[CALLBACK], &[]);
    callback["anyOf"] = json!([{"required": ["component"]}, {"required": ["notify"]}]);
    let list = json!({"type": "array", "items": {"$ref": "#/$defs/callback"}, "maxItems": MAX_CALLBACKS});
    let callbacks = json!({"anyOf": [{"$ref": "#/$defs/callback"}, list]});
    let definitions = json!({"task": either, "callback": callback, "callbacks": callbacks});
    members.insert("$defs".to_owned(), definitions);
    schema
}

fn section(fields: &[&[Field]], required: &[&str]) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .copied()
        .flatten()
        .map(|field| {
            let mut value = value(field.kind);
            value["description"] = field.doc.into();
            // An empty value is the same as none, except where one is required.
            if required.contains(&field.name) || matches!(field.kind, FieldKind::NotSupported | FieldKind::Input) {
                return (field.name.to_owned(), value);
            }
            (
                field.name.to_owned(),
                json!({"anyOf": [value, {"type": "null"}], "description": field.doc}),
            )
        })
        .collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn value(kind: FieldKind) -> Value {
    let list = || json!({"type": "array", "items": {"type": "string"}});
    match kind {
        FieldKind::Text => json!({"type": "string"}),
        FieldKind::Key => json!({"type": "string", "pattern": "^[\\p{L}\\p{N}_.-]+$", "maxLength": 250}),
        FieldKind::Bool => json!({"type": "boolean"}),
        FieldKind::Int { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        FieldKind::Duration => json!({
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": "^\\s*([0-9]+(\\.[0-9]+)?(ms|sec|s|min|m|h|d)?\\s*)+$"},
            ],
            "examples": ["90s", "5m", "1h30m"],
        }),
        FieldKind::Size { min, max } => json!({
            "anyOf": [
                {"type": "integer", "minimum": min, "maximum": max},
                {"type": "string", "pattern": "^\\s*[0-9]+(\\.[0-9]+)?\\s*(B|[kKMGT]B|[KMGT]iB)?\\s*$"},
            ],
            "examples": ["512MiB", "10MB"],
        }),
        FieldKind::Tags | FieldKind::TaskIds => list(),
        FieldKind::TriggerRule => {
            json!({"enum": TriggerRule::ALL.iter().map(|rule| rule.as_str()).collect::<Vec<_>>()})
        }
        FieldKind::Factor => json!({"type": "number", "exclusiveMinimum": 1, "maximum": 1000}),
        FieldKind::Choice(names) => json!({"enum": names}),
        FieldKind::RetryPolicy => json!({"type": "array", "maxItems": 100, "items": section(&[RETRY_RULE], &["on"])}),
        FieldKind::Ends => {
            let causes: Vec<&str> = retry::failures().map(Cause::as_str).collect();
            let code = json!({
                "type": "object",
                "properties": {"code": {"type": "string", "minLength": 1}},
                "required": ["code"],
                "additionalProperties": false,
            });
            json!({"type": "array", "minItems": 1, "items": {"anyOf": [{"enum": causes}, code]}})
        }
        FieldKind::WeightRule => {
            json!({"enum": WeightRule::ALL.iter().map(|rule| rule.as_str()).collect::<Vec<_>>()})
        }
        FieldKind::Component => json!({"type": "string", "examples": ["ml@1.2", "./ml.wasm"]}),
        FieldKind::Params => json!({"type": "object"}),
        FieldKind::Section(fields) => section(&[fields], &[]),
        FieldKind::Tasks => {
            json!({"type": "object", "minProperties": 1, "additionalProperties": {"$ref": "#/$defs/task"}})
        }
        FieldKind::Sources => json!({
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"type": ["array", "object", "string"]},
        }),
        FieldKind::Teardown => json!({
            "anyOf": [
                {"type": "boolean"},
                {
                    "type": "object",
                    "properties": {"on_failure_fail_dagrun": {"type": "boolean"}},
                    "required": ["on_failure_fail_dagrun"],
                    "additionalProperties": false,
                },
            ],
        }),
        FieldKind::Condition => json!({"type": ["boolean", "string"], "examples": ["{{ params.full }}"]}),
        FieldKind::Input => json!({}),
        FieldKind::Branches => json!({"type": "object", "additionalProperties": list()}),
        FieldKind::ShortCircuit => json!({
            "anyOf": [
                {"type": "boolean"},
                {
                    "type": "object",
                    "properties": {"ignore_downstream_trigger_rules": {"type": "boolean"}},
                    "additionalProperties": false,
                },
            ],
        }),
        FieldKind::Callbacks => json!({"$ref": "#/$defs/callbacks"}),
        FieldKind::Approval => json!({"anyOf": [{"type": "boolean"}, section(&[APPROVAL], &[])]}),
        FieldKind::Grants => json!({"type": "object", "maxProperties": 0}),
        FieldKind::NotSupported => json!({"type": "null"}),
    }
}
