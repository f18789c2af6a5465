//! JSON Schemas (draft 2020-12) of inputs and outputs.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// The schema of a task without an input: anything, which it ignores.
pub fn any_input() -> Value {
    json!({})
}

/// The input of a task function: every type that is `Deserialize` and `JsonSchema`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the input of a task",
    note = "put `#[data]` on the type, or derive `Deserialize` and `JsonSchema` for it"
)]
pub trait TaskInput: DeserializeOwned + JsonSchema {}

impl<T: DeserializeOwned + JsonSchema> TaskInput for T {}

/// What deserializes into a `T`.
pub fn input_schema<T: TaskInput>() -> Value {
    SchemaSettings::draft2020_12()
        .for_deserialize()
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// What a `T` serializes to. Objects are closed: a struct never has members beside its fields, and only a closed schema lets a misspelt
/// `{{ xcom.load.rowz }}` be found when a DAG is deployed.
pub(crate) fn output_schema<T: JsonSchema>() -> Value {
    let mut schema = SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    close(&mut schema);
    schema
}

/// Keywords that apply other schemas to the same value.
const IN_PLACE: &[&str] = &[
    "$ref",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "dependentSchemas",
];
/// Keywords about an object's members beside `properties`; where one of them stands, the author has spoken.
const MEMBERS: &[&str] = &[
    "additionalProperties",
    "patternProperties",
    "unevaluatedProperties",
    "propertyNames",
];

/// Closes every object schema that alone describes its value. `#[serde(flatten)]` and tagged enums put several schemas on one value; each of
/// these sees only some of the members and has to stay open.
fn close(root: &mut Value) {
    let mut shared = BTreeSet::new();
    loop {
        let before = shared.len();
        visit_document(root, &mut shared, false);
        if shared.len() == before {
            break;
        }
    }
    visit_document(root, &mut shared, true);
}

fn visit_document(root: &mut Value, shared: &mut BTreeSet<String>, close: bool) {
    if let Some(Value::Object(definitions)) = root.get_mut("$defs") {
        let mut definitions = std::mem::take(definitions);
        for (name, definition) in &mut definitions {
            let alone = !shared.contains(&format!("#/$defs/{name}"));
            visit(definition, alone, shared, close);
        }
        root["$defs"] = Value::Object(definitions);
    }
    let alone = !shared.contains("#");
    visit(root, alone, shared, close);
}

/// `alone`: nothing else describes the value that this schema describes. Notes in `shared` what is referred to from where that is not so.
fn visit(schema: &mut Value, alone: bool, shared: &mut BTreeSet<String>, close: bool) {
    let Value::Object(schema) = schema else { return };
    let in_place = schema.keys().filter(|key| IN_PLACE.contains(&key.as_str())).count();
    let has_members = schema.contains_key("properties") || MEMBERS.iter().any(|key| schema.contains_key(*key));
    let inner = alone && in_place + usize::from(has_members) == 1;

    if let (Some(Value::String(target)), false) = (schema.get("$ref"), inner) {
        shared.insert(target.clone());
    }
    for (key, value) in schema.iter_mut() {
        match (key.as_str(), value) {
            ("anyOf" | "oneOf", Value::Array(arms)) => arms.iter_mut().for_each(|arm| visit(arm, inner, shared, close)),
            ("allOf", Value::Array(arms)) => arms.iter_mut().for_each(|arm| visit(arm, false, shared, close)),
            ("not" | "if" | "then" | "else", arm) => visit(arm, false, shared, close),
            ("properties" | "patternProperties", Value::Object(members)) => {
                members
                    .values_mut()
                    .for_each(|member| visit(member, true, shared, close));
            }
            ("prefixItems", Value::Array(items)) => items.iter_mut().for_each(|item| visit(item, true, shared, close)),
            ("items" | "additionalProperties" | "contains", item) => visit(item, true, shared, close),
            _ => {}
        }
    }
    if close && inner && is_open_object(schema) {
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
}

fn is_open_object(schema: &Map<String, Value>) -> bool {
    schema.get("type").is_some_and(|ty| ty == "object")
        && schema.contains_key("properties")
        && !MEMBERS.iter().any(|key| schema.contains_key(*key))
}
