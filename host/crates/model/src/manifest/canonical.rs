//! The content of a DAG version as one text: what the version's digest is of.
//!
//! It is made from the compiled DAG, so comments, formatting, the order of keys and the way a default is spelled make no new
//! version; the order of tasks and of parameters does (the pages show it), and so does the content of a component.

use serde_json::{Map, Value};

use crate::dag::Dag;

/// Raised when compiled DAGs of the same text would differ in meaning.
const FORMAT: u32 = 1;

/// The canonical text.
pub(super) fn text(dag: &Dag) -> String {
    let mut value = serde_json::to_value(dag).expect("a DAG holds only what JSON can hold");
    if let Some(params) = value.get_mut("params")
        && let Value::Object(members) = params.take()
    {
        *params = members
            .into_iter()
            .map(|(name, param)| Value::Array(vec![name.into(), param]))
            .collect();
    }
    Value::Array(vec![FORMAT.into(), sorted(value)]).to_string()
}

/// The value with the keys of all objects in order.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> =
                members.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(members.into_iter().collect::<Map<_, _>>())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}
