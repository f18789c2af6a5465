//! Checks what `describe` answered.

use std::collections::HashSet;

use model::json;
use model::schema::Validator;
use ports::component::{Descriptor, Refusal, TaskDescriptor};
use serde_json::Value;

use super::protocol::refusal;

/// How many tasks a component may hold.
const MAX_TASKS: usize = 1_000;
/// The longest name of a task, label or need, in bytes.
const MAX_NAME_BYTES: usize = 250;
/// The automata of all patterns of a component, in bytes. All of them are held while it is ready to run.
const MAX_PATTERNS_BYTES: usize = 8 << 20;
/// The longest doc of a task, in bytes.
const MAX_DOC_BYTES: usize = 64 << 10;

/// Reads and checks a descriptor.
pub(super) fn parse(text: &str) -> Result<Descriptor, Refusal> {
    let broken = |message: String| refusal("component_descriptor_invalid", message);
    json::check_syntax(text, u64::MAX)
        .map_err(|error| broken(format!("`describe` answered something else than JSON: {error}")))?;
    let value: Value = serde_json::from_str(text).map_err(|error| broken(format!("`describe` answered {error}")))?;
    // Told apart first: a later format may look different in every other member.
    match value.get("format").and_then(Value::as_u64) {
        Some(1) => {}
        Some(other) => {
            return Err(refusal(
                "component_format_unknown",
                format!("the component describes itself in format {other}; this server knows format 1"),
            ));
        }
        None => return Err(broken("the descriptor has no member `format`".to_owned())),
    }
    let descriptor: Descriptor =
        serde_json::from_value(value).map_err(|error| broken(format!("the descriptor is not valid: {error}")))?;
    check(&descriptor).map_err(broken)?;
    Ok(descriptor)
}

fn check(descriptor: &Descriptor) -> Result<(), String> {
    if descriptor.tasks.is_empty() {
        return Err("the component describes no task".to_owned());
    }
    if descriptor.tasks.len() > MAX_TASKS {
        return Err(format!("the component describes more than {MAX_TASKS} tasks"));
    }
    let mut names = HashSet::new();
    let mut patterns = 0_usize;
    for task in &descriptor.tasks {
        check_name("task", &task.name)?;
        if !names.insert(task.name.as_str()) {
            return Err(format!("two tasks are named `{}`", task.name));
        }
        patterns += check_task(task).map_err(|problem| format!("task `{}`: {problem}", task.name))?;
        if patterns > MAX_PATTERNS_BYTES {
            return Err(format!(
                "the patterns of its schemas are too large together: compiled, they may have {} MiB",
                MAX_PATTERNS_BYTES >> 20
            ));
        }
    }
    Ok(())
}

/// Answers what the patterns of its schemas have, in bytes.
fn check_task(task: &TaskDescriptor) -> Result<usize, String> {
    if task.doc.len() > MAX_DOC_BYTES {
        return Err(format!("its doc has more than {MAX_DOC_BYTES} bytes"));
    }
    let mut patterns = 0;
    for (what, schema) in [("input", &task.input), ("output", &task.output)] {
        let validator = Validator::compile(schema).map_err(|error| format!("its {what} schema is refused: {error}"))?;
        patterns += validator.patterns_bytes();
    }
    for need in &task.needs {
        check_name("need", need)?;
    }
    if let Some(labels) = &task.labels {
        if labels.is_empty() {
            return Err("it is a branch without labels".to_owned());
        }
        let mut seen = HashSet::new();
        for label in labels {
            check_name("label", label)?;
            if !seen.insert(label) {
                return Err(format!("the label `{label}` is there twice"));
            }
        }
    }
    Ok(patterns)
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let shown: String = name.chars().take(64).collect();
        return Err(format!(
            "`{}` is not a valid {what} name: it must have 1 to {MAX_NAME_BYTES} bytes without white space",
            shown.escape_debug()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::manifest::DESCRIBE_SCHEMA;

    use super::*;

    fn code(text: &str) -> String {
        parse(text).unwrap_err().code
    }

    #[test]
    fn accepts_a_descriptor_and_ignores_what_it_does_not_know() {
        let text = r#"{"format": 1, "later": true, "tasks": [{"name": "a", "input": {}, "output": true, "x": 1}]}"#;
        let descriptor = parse(text).unwrap();
        assert_eq!(descriptor.tasks.len(), 1);
    }

    #[test]
    fn refuses_what_cannot_be_used() {
        assert_eq!(code("nonsense"), "component_descriptor_invalid");
        assert_eq!(code("{}"), "component_descriptor_invalid");
        assert_eq!(code(r#"{"format": 2}"#), "component_format_unknown");
        assert_eq!(code(r#"{"format": 1, "tasks": []}"#), "component_descriptor_invalid");
        let task = |members: &str| format!(r#"{{"format": 1, "tasks": [{members}]}}"#);
        let plain = r#"{"name": "a", "input": {}, "output": {}}"#;
        assert!(parse(&task(plain)).is_ok());
        assert_eq!(code(&task(&format!("{plain},{plain}"))), "component_descriptor_invalid");
        for bad in [
            r#"{"name": "a b", "input": {}, "output": {}}"#,
            r#"{"name": "a", "input": {"type": "strin"}, "output": {}}"#,
            r#"{"name": "a", "input": {"$ref": "https://example.com/x.json"}, "output": {}}"#,
            r#"{"name": "a", "input": {}, "output": {}, "labels": []}"#,
            r#"{"name": "a", "input": {}, "output": {}, "labels": ["x", "x"]}"#,
        ] {
            assert_eq!(code(&task(bad)), "component_descriptor_invalid", "{bad}");
        }
    }

    /// The published schema and the parser agree, but for what a schema cannot say.
    #[test]
    fn the_published_schema_says_what_is_taken() {
        let published = Validator::compile(&serde_json::from_str(DESCRIBE_SCHEMA).unwrap()).unwrap();
        let allowed = |text: &str| serde_json::from_str(text).is_ok_and(|value| published.is_valid(&value));
        let task = |members: &str| format!(r#"{{"format": 1, "tasks": [{members}]}}"#);
        let with = |members: &str| task(&format!(r#"{{"name": "a", "input": {{}}, "output": true{members}}}"#));
        let taken = [
            with(""),
            with(r#", "later": 1"#),
            with(r#", "doc": "", "needs": ["gpu"], "labels": ["x", "y"]"#),
            with(r#", "labels": null, "needs": []"#),
            r#"{"format": 1, "sdk": null, "later": {}, "tasks": [{"name": "ü.-", "input": false, "output": {}}]}"#
                .to_owned(),
            r#"{"format": 1, "sdk": "by hand", "tasks": [{"name": "a", "input": {}, "output": {}}]}"#.to_owned(),
            task(&format!(
                r#"{{"name": "{}", "input": {{}}, "output": {{}}}}"#,
                "n".repeat(MAX_NAME_BYTES)
            )),
        ];
        for text in &taken {
            assert!(parse(text).is_ok() && allowed(text), "{text}");
        }
        let refused = [
            "{}".to_owned(),
            "[]".to_owned(),
            r#"{"tasks": []}"#.to_owned(),
            r#"{"format": 1}"#.to_owned(),
            r#"{"format": 2, "tasks": []}"#.to_owned(),
            r#"{"format": "1", "tasks": []}"#.to_owned(),
            task(""),
            task("1"),
            r#"{"format": 1, "sdk": 7, "tasks": [{"name": "a", "input": {}, "output": {}}]}"#.to_owned(),
            task(r#"{"input": {}, "output": {}}"#),
            task(r#"{"name": "a", "input": {}}"#),
            task(r#"{"name": "a", "input": null, "output": {}}"#),
            task(r#"{"name": "", "input": {}, "output": {}}"#),
            task(r#"{"name": "a b", "input": {}, "output": {}}"#),
            task(r#"{"name": "a\u0085", "input": {}, "output": {}}"#),
            task(r#"{"name": "a\u0007", "input": {}, "output": {}}"#),
            task(&format!(
                r#"{{"name": "{}", "input": {{}}, "output": {{}}}}"#,
                "n".repeat(MAX_NAME_BYTES + 1)
            )),
            with(r#", "doc": null"#),
            with(r#", "needs": null"#),
            with(r#", "needs": ["a b"]"#),
            with(r#", "labels": []"#),
            with(r#", "labels": ["x", "x"]"#),
            with(r#", "labels": [1]"#),
            with(&format!(r#", "doc": "{}""#, "d".repeat(MAX_DOC_BYTES + 1))),
        ];
        for text in &refused {
            assert!(parse(text).is_err() && !allowed(text), "{text}");
        }
        // What a schema cannot say: names that are unique, schemas that are valid, bytes instead of characters.
        let plain = r#"{"name": "a", "input": {}, "output": {}}"#;
        for text in [
            task(&format!("{plain},{plain}")),
            task(r#"{"name": "a", "input": {"type": "strin"}, "output": {}}"#),
            task(r#"{"name": "a", "input": {"$ref": "https://example.com/x.json"}, "output": {}}"#),
            task(&format!(
                r#"{{"name": "{}", "input": {{}}, "output": {{}}}}"#,
                "ü".repeat(MAX_NAME_BYTES)
            )),
        ] {
            assert!(parse(&text).is_err() && allowed(&text), "{text}");
        }
    }
}
