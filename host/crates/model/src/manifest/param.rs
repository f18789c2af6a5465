//! `params:`: each a default value, or a JSON Schema with the member `default` (Airflow: `Param`).

use serde_json::Value;

use super::declared::{Input, Manifest};
use super::diagnostic::{COSTLY_HINT, Findings, TOO_COSTLY};
use super::read::Plan;
use super::section::short;
use super::suggest;
use super::tree::{Kind, Node};
use crate::dag::Param;
use crate::schema::{SchemaError, Validator};

/// A map with one of these is a schema; any other value is a default.
const SCHEMA_MARKS: &[&str] = &["type", "default", "enum", "const", "$ref", "anyOf", "oneOf", "allOf"];

/// What a schema may say; anything else is likely a slip.
const SCHEMA_WORDS: &[&str] = &[
    "$comment",
    "$defs",
    "$ref",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "contains",
    "default",
    "deprecated",
    "description",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "if",
    "then",
    "else",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "maxProperties",
    "minItems",
    "minLength",
    "minimum",
    "minProperties",
    "multipleOf",
    "not",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "propertyNames",
    "readOnly",
    "required",
    "title",
    "type",
    "uniqueItems",
    "writeOnly",
    "definitions",
    "dependentRequired",
    "dependentSchemas",
    "minContains",
    "maxContains",
    "unevaluatedItems",
    "unevaluatedProperties",
    "description_md",
    "section",
    "values_display",
];

/// Reads `params:`.
pub(super) fn read(node: &Node, findings: &mut Findings) -> Vec<(String, Param)> {
    let Kind::Map(entries) = &node.kind else {
        findings
            .error(
                "manifest_type",
                node.pos,
                format!("`params` must be a map, not {}", node.what()),
            )
            .hint("write `params: {threshold: 0.85}`, or `params: {threshold: {type: number, default: 0.85}}`");
        return Vec::new();
    };
    node.bad_numbers(findings);
    entries
        .iter()
        .map(|entry| {
            if entry.key.is_empty() || entry.key.len() > 250 {
                findings
                    .error(
                        "manifest_value",
                        entry.pos,
                        "the name of a parameter must have 1 to 250 bytes",
                    )
                    .hint("templates use it: `params.<name>`; longer texts belong into its `description`");
            }
            (entry.key.clone(), param(&entry.key, &entry.value, findings))
        })
        .collect()
}

fn param(name: &str, node: &Node, findings: &mut Findings) -> Param {
    let entries = match &node.kind {
        Kind::Map(entries) if entries.iter().any(|entry| SCHEMA_MARKS.contains(&&*entry.key)) => entries,
        _ => {
            return Param {
                schema: Value::Object(serde_json::Map::new()),
                default: Some(node.to_json()),
            };
        }
    };
    let mut schema = serde_json::Map::new();
    let mut default = None;
    let mut default_pos = node.pos;
    for entry in entries.iter() {
        if entry.key == "default" {
            default = Some(entry.value.to_json());
            default_pos = entry.value.pos;
            continue;
        }
        if !SCHEMA_WORDS.contains(&&*entry.key) && !entry.key.starts_with("x-") {
            let hint = suggest::closest(&entry.key, SCHEMA_WORDS.iter().copied())
                .map(|word| format!("did you mean `{word}`?"));
            findings
                .warning(
                    "manifest_unknown_key",
                    entry.pos,
                    format!(
                        "`{}` is not a JSON Schema keyword and checks nothing",
                        short(&entry.key)
                    ),
                )
                .hint(hint.unwrap_or_else(|| {
                    if entry.key.contains(' ') {
                        return "a text with a comma in it must be in quotes where it stands in braces".to_owned();
                    }
                    "remove it; a keyword of your own begins with `x-`; a value of several members is `default: {…}`"
                        .to_owned()
                }));
        }
        schema.insert(entry.key.clone(), entry.value.to_json());
    }
    let schema = Value::Object(schema);
    match Validator::compile(&schema) {
        Err(error @ SchemaError::TooCostly(_)) => {
            findings
                .error(TOO_COSTLY, node.pos, format!("parameter `{name}`: {error}"))
                .hint(COSTLY_HINT);
        }
        Err(error) => {
            findings
                .error("manifest_param", node.pos, format!("parameter `{name}`: {error}"))
                .hint(schema_hint(&error));
        }
        Ok(validator) => {
            if let Some(default) = &default {
                let found = validator.check(default).unwrap_or_else(|why| {
                    let message =
                        format!("the default of parameter `{name}` cannot be checked against its schema: {why}");
                    findings.error(TOO_COSTLY, default_pos, message).hint(COSTLY_HINT);
                    Vec::new()
                });
                for finding in found {
                    findings
                        .error(
                            "manifest_param",
                            default_pos,
                            format!("the default of parameter `{name}` does not match its schema: {finding}"),
                        )
                        .hint("change the default or the schema; without `default` the parameter is required");
                }
            }
        }
    }
    Param { schema, default }
}

fn schema_hint(error: &SchemaError) -> &'static str {
    match error {
        SchemaError::TooLarge { .. } => "describe the parameter in a few words; its shape is the task's own business",
        SchemaError::RemoteReference(_) => "write the schema out, or refer to a place in it: `#/$defs/…`",
        _ => {
            "write a default alone, such as `name: 5`, or a JSON Schema such as `name: {type: integer, default: 5}`; types are \
             string, integer, number, boolean, array, object and null"
        }
    }
}

/// Reports parameters that templates name and nobody declares.
pub(super) fn check_uses(plan: &Plan, manifest: &Manifest, findings: &mut Findings) {
    let of_tasks = plan.tasks.iter().flat_map(|declared| {
        let sources = declared.task.expand.iter().flat_map(|expand| &expand.sources);
        declared.task.rendered().chain(sources.map(|source| &source.input))
    });
    let of_groups = plan.groups.iter().flat_map(|declared| {
        let sources = declared.group.expand.iter().flat_map(|expand| &expand.sources);
        let until = declared.group.repeat.iter().map(|repeat| &repeat.until);
        sources.map(|source| &source.input).chain(until)
    });
    for input in of_tasks.chain(of_groups) {
        check_input(manifest, input, findings);
    }
}

/// Reports those that one input names.
pub(super) fn check_input(manifest: &Manifest, input: &Input, findings: &mut Findings) {
    for (pointer, offset, name) in input.template.iter().flat_map(|template| template.param_uses()) {
        if manifest.params.contains_key(name) || findings.is_full() {
            continue;
        }
        let hint = findings
            .closest(name, manifest.params.keys().map(String::as_str))
            .map_or_else(
                || format!("declare it in `params:`, or use `conf.{name}` for what the caller passes"),
                |known| format!("did you mean `{known}`?"),
            );
        findings
            .error(
                "manifest_unknown_param",
                manifest.locate(input, pointer, offset),
                format!("parameter `{}` is not declared", short(name)),
            )
            .hint(hint);
    }
}
