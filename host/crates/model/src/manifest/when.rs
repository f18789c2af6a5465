//! `when:`: a template of true or false, on any task.

use serde_json::json;

use super::declared::{Input, Manifest, TaskDecl};
use super::diagnostic::{Findings, Severity};
use super::input::{Inputs, follow};
use super::read;
use super::section::{Section, short};
use super::tree::Kind;
use crate::schema::Shape;
use crate::template::{Source, is_template, show_path};

/// Reads `when`. Of a literal, `true` is the same as nothing.
pub(super) fn condition(section: &Section<'_>, manifest: &Manifest, findings: &mut Findings) -> Option<Input> {
    const HINT: &str = "write exactly one expression: `when: \"{{ params.full and xcom.load.rows > 0 }}\"`";
    let node = section.get("when")?;
    match &node.kind {
        Kind::Bool(true) => None,
        Kind::Bool(false) => Some(read::input_of(node, "{{ false }}".into(), manifest, findings)),
        Kind::Text(text) if is_template(text) => {
            let when = read::input(node, manifest, findings);
            let sources = when.template.as_ref().map(|template| template.sources());
            if sources.is_some_and(|sources| matches!(sources.as_slice(), [(_, Source::Text)])) {
                findings
                    .error(
                        "manifest_value",
                        node.pos,
                        "`when` must render to true or false, and this renders to text",
                    )
                    .hint(HINT);
            }
            Some(when)
        }
        Kind::Text(text) => {
            findings
                .error(
                    "manifest_value",
                    node.pos,
                    format!("`when` must be a template, not the text `{}`", short(text)),
                )
                .hint(HINT);
            None
        }
        _ => {
            findings
                .error(
                    "manifest_type",
                    node.pos,
                    format!("`when` must be a template of true or false, not {}", node.what()),
                )
                .hint(HINT);
            None
        }
    }
}

/// The template of a task's `when`.
pub(super) fn template(task: &TaskDecl) -> Option<String> {
    Some(task.when.as_ref()?.value.as_str()?.to_owned())
}

/// Reports what can never be true or false: a path to something else.
pub(super) fn check<'m>(manifest: &'m Manifest, inputs: &mut Inputs<'m>, findings: &mut Findings) {
    let boolean = json!({"type": "boolean"});
    for task in &manifest.tasks {
        let Some(when) = &task.when else { continue };
        inputs.paths(task.group, when, findings);
        for (pointer, source) in when.template.iter().flat_map(|template| template.sources()) {
            if findings.is_full() {
                return;
            }
            if source == Source::Text {
                continue;
            }
            let Some((name, path, publishes)) = inputs.source(task.group, source) else {
                continue;
            };
            let pos = || manifest.locate(when, pointer, 0);
            let Some(given) = follow(publishes, &name, path, &pos, Severity::Error, true, findings) else {
                continue;
            };
            if let Some(why) = given.excludes(&Shape::of(&boolean)) {
                let shown = format!("{name}{}", show_path(path));
                findings
                    .error(
                        "manifest_schema_mismatch",
                        pos(),
                        format!("`{shown}` can never be what `when` of task `{}` takes: {why}", task.id),
                    )
                    .hint("compare it, as in `{{ x > 0 }}`, `{{ x == 'yes' }}` or `{{ x | length > 0 }}`");
            }
        }
    }
}
