//! The size of a schema where the engine unrolls it. To know which members are evaluated elsewhere, `unevaluatedProperties` and
//! `unevaluatedItems` are compiled with a copy of everything that applies to the same value, along every way through references: few
//! bytes can stand for very many copies.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::validator::SchemaError;
use crate::budget;

/// The most copies of one schema.
const MAX_COPIES: usize = 2_000;
/// The cost of a copy, in steps.
const COPY_STEPS: u64 = 1_000;

/// Refuses a schema that would become too large.
pub(super) fn check(schema: &Value) -> Result<(), SchemaError> {
    let mut document = Document {
        roots: vec![schema],
        ..Document::default()
    };
    document.read(schema);
    let unevaluated = std::mem::take(&mut document.unevaluated);
    let mut unrolling = Unrolling {
        document: &document,
        around: Vec::new(),
        copies: 0,
    };
    for members in unevaluated {
        unrolling.node(members)?;
    }
    Ok(())
}

/// Everything that references can lead to.
#[derive(Default)]
struct Document<'s> {
    /// The schema, and those in it that have an identifier of their own.
    roots: Vec<&'s Value>,
    anchors: HashMap<&'s str, &'s Value>,
    unevaluated: Vec<&'s Map<String, Value>>,
}

impl<'s> Document<'s> {
    fn read(&mut self, schema: &'s Value) {
        match schema {
            Value::Object(members) => {
                if members.contains_key("unevaluatedProperties") || members.contains_key("unevaluatedItems") {
                    self.unevaluated.push(members);
                }
                for word in ["$anchor", "$dynamicAnchor", "$id", "id"] {
                    if let Some(name) = members.get(word).and_then(Value::as_str) {
                        let name = name.strip_prefix('#').unwrap_or(name);
                        self.anchors.insert(name, schema);
                        self.roots.push(schema);
                    }
                }
                for (key, value) in members {
                    if !matches!(key.as_str(), "const" | "enum" | "default" | "examples") {
                        self.read(value);
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.read(item)),
            _ => {}
        }
    }

    /// Everything that a reference may mean.
    fn targets(&self, reference: &str) -> Vec<&'s Value> {
        let Some(fragment) = reference.strip_prefix('#') else {
            return Vec::new();
        };
        if !fragment.is_empty() && !fragment.starts_with('/') {
            return self.anchors.get(fragment).copied().into_iter().collect();
        }
        let decoded = percent_decoded(fragment);
        self.roots.iter().filter_map(|root| root.pointer(&decoded)).collect()
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten();
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() {
            after.get(2..).unwrap_or_default()
        } else {
            after
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Unrolling<'d, 's> {
    document: &'d Document<'s>,
    /// Where references have led on the way: nothing is copied into itself.
    around: Vec<*const Map<String, Value>>,
    copies: usize,
}

impl<'s> Unrolling<'_, 's> {
    fn node(&mut self, members: &'s Map<String, Value>) -> Result<(), SchemaError> {
        let here = std::ptr::from_ref(members);
        if self.around.contains(&here) {
            return Ok(());
        }
        self.copies += 1;
        budget::spend(COPY_STEPS).map_err(SchemaError::TooCostly)?;
        if self.copies > MAX_COPIES {
            return Err(SchemaError::TooManyCopies { limit: MAX_COPIES });
        }
        self.around.push(here);
        for (key, value) in members {
            match (key.as_str(), value) {
                ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(reference)) => {
                    for target in self.document.targets(reference) {
                        self.value(target)?;
                    }
                }
                ("allOf" | "anyOf" | "oneOf", Value::Array(branches)) => {
                    for branch in branches {
                        self.value(branch)?;
                    }
                }
                ("dependentSchemas" | "dependencies", Value::Object(by_name)) => {
                    for branch in by_name.values() {
                        self.value(branch)?;
                    }
                }
                ("not" | "if" | "then" | "else" | "unevaluatedProperties" | "unevaluatedItems", value) => {
                    self.value(value)?;
                }
                _ => {}
            }
        }
        self.around.pop();
        Ok(())
    }

    fn value(&mut self, schema: &'s Value) -> Result<(), SchemaError> {
        match schema {
            Value::Object(members) => self.node(members),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Each definition leads to the next in two ways.
    fn doubling(levels: usize, reference: impl Fn(usize) -> String) -> Value {
        let defs: Map<String, Value> = (0..levels)
            .map(|at| {
                let next = json!({"$ref": reference(at + 1)});
                (
                    at.to_string(),
                    json!({"$anchor": format!("n{at}"), "anyOf": [next, next]}),
                )
            })
            .chain([(
                levels.to_string(),
                json!({"$anchor": format!("n{levels}"), "type": "object"}),
            )])
            .collect();
        json!({"$ref": reference(0), "unevaluatedProperties": false, "$defs": defs})
    }

    #[test]
    fn copies_are_counted_along_every_way() {
        let pointer = |at| format!("#/$defs/{at}");
        let anchor = |at| format!("#n{at}");
        let encoded = |at| format!("#/%24defs/{at}");
        assert_eq!(check(&doubling(5, pointer)), Ok(()));
        let refused = Err(SchemaError::TooManyCopies { limit: MAX_COPIES });
        assert_eq!(check(&doubling(30, pointer)), refused);
        assert_eq!(check(&doubling(30, anchor)), refused);
        assert_eq!(check(&doubling(30, encoded)), refused);
        let mut plain = doubling(30, pointer);
        plain.as_object_mut().unwrap().remove("unevaluatedProperties");
        assert_eq!(check(&plain), Ok(()), "nothing is copied");
    }

    #[test]
    fn a_reference_into_a_document_of_its_own_is_followed() {
        let schema = doubling(30, |at| format!("#/$defs/{at}"));
        let mut inner = schema;
        inner["$id"] = json!("https://example.com/inner");
        let outer = json!({"properties": {"a": inner}});
        assert!(check(&outer).is_err());
    }

    #[test]
    fn a_recursive_schema_ends() {
        let schema = json!({
            "type": "object",
            "properties": {"children": {"items": {"$ref": "#"}}},
            "anyOf": [{"$ref": "#"}, {"$dynamicRef": "#node"}],
            "$dynamicAnchor": "node",
            "unevaluatedProperties": false,
        });
        assert_eq!(check(&schema), Ok(()));
    }
}
