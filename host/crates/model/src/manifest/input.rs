//! Inputs against what the components say of themselves: literals are validated, and what one task publishes is compared with
//! what the next one takes.

use serde_json::Value;

use super::component::TaskDescriptor;
use super::declared::{Manifest, TaskDecl};
use super::diagnostic::Findings;
use crate::schema::Validator;
use crate::template::is_template;

/// Checks the inputs of all tasks whose component is known.
pub(super) fn check(manifest: &Manifest, described: &[Option<&TaskDescriptor>], findings: &mut Findings) {
    for (task, described_task) in manifest.tasks.iter().zip(described) {
        if let Some(described_task) = described_task {
            literals(task, described_task, findings);
        }
    }
}

/// Validates an input without templates, or the parts of one that have none.
fn literals(task: &TaskDecl, described: &TaskDescriptor, findings: &mut Findings) {
    let input = &task.input;
    let validator = match Validator::compile(&described.input) {
        Ok(validator) => validator,
        Err(error) => {
            findings.error(
                "component_schema",
                task.pos,
                format!("the input schema of `{}` cannot be used: {error}", described.name),
            );
            return;
        }
    };
    if has_template(&input.value) {
        return;
    }
    for finding in validator.findings(&input.value) {
        let pos = input.node.as_ref().map_or(input.pos, |node| node.at(&finding.path).pos);
        findings.error(
            "manifest_input",
            pos,
            format!("the input of task `{}` is not valid: {finding}", task.id),
        );
    }
}

fn has_template(value: &Value) -> bool {
    match value {
        Value::String(text) => is_template(text),
        Value::Array(items) => items.iter().any(has_template),
        Value::Object(members) => members.values().any(has_template),
        _ => false,
    }
}
