//! Inputs against what the components say of themselves: literals are validated, and what one task publishes is compared with
//! what the next one takes. Only what is certainly wrong is an error.

use std::collections::HashMap;

use serde_json::Value;

use super::component::TaskDescriptor;
use super::declared::{Manifest, TaskDecl};
use super::diagnostic::{Findings, TOO_COSTLY};
use crate::schema::{Finding, Shape, Step, Validator};
use crate::template::{RETURN_VALUE, Segment, Source, is_template, show_path};

/// What is known of what tasks publish: of those that are not mapped, by their ids.
pub(super) fn outputs<'m>(
    manifest: &'m Manifest,
    described: &[Option<&'m TaskDescriptor>],
) -> HashMap<&'m str, &'m TaskDescriptor> {
    manifest
        .tasks
        .iter()
        .zip(described)
        .filter(|(task, _)| {
            let around = manifest.around(task.group);
            task.expand.is_none() && around.iter().all(|group| group.expand.is_none())
        })
        .filter_map(|(task, described)| Some((task.id.as_str(), (*described)?)))
        .collect()
}

/// Checks the input of something that is like a task.
pub(super) fn check_one(
    manifest: &Manifest,
    task: &TaskDecl,
    described: &TaskDescriptor,
    outputs: &HashMap<&str, &TaskDescriptor>,
    findings: &mut Findings,
) {
    if let Some(validator) = validator(task, described, findings) {
        literals(task, &validator, findings);
        templates(manifest, task, described, outputs, findings);
    }
}

fn validator(task: &TaskDecl, described: &TaskDescriptor, findings: &mut Findings) -> Option<Validator> {
    Validator::compile(&described.input)
        .map_err(|error| {
            let message = format!("the input schema of `{}` cannot be used: {error}", described.name);
            findings.error("component_schema", task.pos, message);
        })
        .ok()
}

/// Checks the inputs of all tasks whose component is known.
pub(super) fn check(
    manifest: &Manifest,
    described: &[Option<&TaskDescriptor>],
    outputs: &HashMap<&str, &TaskDescriptor>,
    findings: &mut Findings,
) {
    // Many tasks of a DAG are of one component task: its schema is compiled once.
    let mut validators: HashMap<*const TaskDescriptor, Option<Validator>> = HashMap::new();
    for (task, described) in manifest.tasks.iter().zip(described) {
        let Some(described) = described else { continue };
        let validator = validators
            .entry(std::ptr::from_ref(*described))
            .or_insert_with(|| validator(task, described, findings));
        if let Some(validator) = validator {
            literals(task, validator, findings);
            templates(manifest, task, described, outputs, findings);
        }
    }
}

/// Validates what does not depend on templates.
fn literals(task: &TaskDecl, validator: &Validator, findings: &mut Findings) {
    let input = &task.input;
    // What the elements of a mapping bring is known only to the run.
    let mut value = std::borrow::Cow::Borrowed(&input.value);
    for source in task.expand.iter().flat_map(|expand| &expand.sources) {
        if source.name.is_empty() {
            return;
        }
        if let Value::Object(members) = value.to_mut() {
            members.insert(source.name.clone(), "{{ item }}".into());
        }
    }
    let found = match validator.check(&value) {
        Ok(found) => found,
        Err(why) => {
            let message = format!(
                "the input of task `{}` cannot be checked against its schema: {why}",
                task.id
            );
            findings.error(TOO_COSTLY, task.pos, message);
            return;
        }
    };
    for finding in found {
        if depends_on_templates(&value, &finding) {
            continue;
        }
        let pos = input.node.as_ref().map_or(task.pos, |node| node.at(&finding.path).pos);
        findings.error(
            "manifest_input",
            pos,
            format!("the input of task `{}` is not valid: {finding}", task.id),
        );
    }
}

/// Whether a finding could vanish when templates are rendered. A finding about the shape of a map or a list stays: templates
/// stand for values, never for keys.
fn depends_on_templates(input: &Value, finding: &Finding) -> bool {
    let near = input.pointer(&finding.path).is_some_and(has_template);
    let far = finding.conditional && has_template(input);
    if !near && !far {
        return false;
    }
    let shape = matches!(
        finding.keyword.as_str(),
        "type" | "required" | "additionalProperties" | "minItems" | "maxItems" | "minProperties" | "maxProperties"
    );
    finding.conditional || !shape || input.pointer(&finding.path).is_some_and(Value::is_string)
}

fn has_template(value: &Value) -> bool {
    match value {
        Value::String(text) => is_template(text),
        Value::Array(items) => items.iter().any(has_template),
        Value::Object(members) => members.values().any(has_template),
        _ => false,
    }
}

/// Compares the schemas along the templates.
fn templates(
    manifest: &Manifest,
    task: &TaskDecl,
    described: &TaskDescriptor,
    outputs: &HashMap<&str, &TaskDescriptor>,
    findings: &mut Findings,
) {
    let Some(template) = &task.input.template else { return };
    let sources = template.sources();
    if sources.is_empty() {
        return;
    }
    let takes = Shape::of(&described.input);
    let text = serde_json::json!({"type": "string"});
    for (pointer, source) in sources {
        let (name, path, publishes) = match &source {
            Source::Text => (String::new(), &[][..], Shape::of(&text)),
            Source::Param { name, path } => match manifest.params.iter().find(|(known, _)| known == name) {
                Some((_, param)) => (format!("params.{name}"), *path, Shape::of(&param.schema)),
                None => continue,
            },
            // What a repeated task published may be a list of answers, and what an iteration left may be missing: unknown.
            Source::Xcom { xcom, path } if xcom.key == RETURN_VALUE && !xcom.previous => {
                match outputs.get(manifest.full_name(task, &xcom.task).as_str()) {
                    Some(producer) => (format!("xcom.{}", xcom.task), *path, Shape::of(&producer.output)),
                    None => continue,
                }
            }
            Source::Xcom { .. } => continue,
        };
        let pos = || manifest.locate(&task.input, pointer, 0);
        if publishes.only_null() && matches!(source, Source::Xcom { .. }) {
            findings.error(
                "manifest_schema_mismatch",
                pos(),
                format!("`{name}` is never there: the task answers null, which is not published"),
            );
            continue;
        }
        let Some(given) = follow(publishes, &name, path, &pos, findings) else {
            continue;
        };
        let Some(wanted) = consumer(&takes, pointer) else {
            continue;
        };
        let what = if name.is_empty() {
            "the text".to_owned()
        } else {
            format!("`{name}{}`", show_path(path))
        };
        if let Some(why) = given.excludes(&wanted) {
            findings.error(
                "manifest_schema_mismatch",
                pos(),
                format!(
                    "{what} can never be what task `{}` takes at `{}`: {why}",
                    task.id,
                    place(pointer)
                ),
            );
            continue;
        }
        for member in given.may_lack(&wanted) {
            findings.warning(
                "manifest_may_be_missing",
                pos(),
                format!(
                    "{what} may lack `{member}`, which task `{}` demands at `{}`",
                    task.id,
                    place(pointer)
                ),
            );
        }
    }
}

fn place(pointer: &str) -> String {
    if pointer.is_empty() {
        "input".to_owned()
    } else {
        format!("input{}", pointer.replace('/', "."))
    }
}

/// Follows a template's path through the schema of what is published.
fn follow<'s>(
    mut shape: Shape<'s>,
    name: &str,
    path: &[Segment],
    pos: &dyn Fn() -> super::Pos,
    findings: &mut Findings,
) -> Option<Shape<'s>> {
    for (at, segment) in path.iter().enumerate() {
        let step = match segment {
            Segment::Key(key) => shape.member(key),
            Segment::Index(index) => shape.element(*index),
        };
        let shown = |upto: usize| format!("{name}{}", show_path(path.get(..upto).unwrap_or(path)));
        match step {
            Step::Never(why) => {
                findings.error(
                    "manifest_schema_mismatch",
                    pos(),
                    format!("`{}` is never there: in `{}` {why}", shown(at + 1), shown(at)),
                );
                return None;
            }
            Step::To { shape: next, certain } => {
                if !certain && matches!(segment, Segment::Key(key) if shape.declares(key)) {
                    findings
                        .warning(
                            "manifest_may_be_missing",
                            pos(),
                            format!("`{}` may be missing", shown(at + 1)),
                        )
                        .hint("supply a value for this case: `| default(…)`");
                }
                shape = next;
            }
        }
    }
    Some(shape)
}

/// What the consumer takes at a place of its input; nothing where that is unknown or reported elsewhere.
fn consumer<'s>(takes: &Shape<'s>, pointer: &str) -> Option<Shape<'s>> {
    let mut shape = takes.clone();
    for step in pointer.split('/').skip(1) {
        let key = step.replace("~1", "/").replace("~0", "~");
        // The pointer does not say whether a number is an index or a key.
        let next = match (shape.member(&key), key.parse::<usize>()) {
            (Step::To { shape, .. }, _) => shape,
            (Step::Never(_), Ok(index)) => match shape.element(index) {
                Step::To { shape, .. } => shape,
                Step::Never(_) => return None,
            },
            (Step::Never(_), Err(_)) => return None,
        };
        shape = next;
    }
    Some(shape)
}
