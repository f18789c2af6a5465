//! `retry_policy:`: a list of rules, each for some causes of death or codes of failures.

use super::diagnostic::Findings;
use super::field::RETRY_RULE;
use super::section::{Section, short, text};
use super::suggest;
use super::tree::{Kind, Node};
use crate::cause::Cause;
use crate::retry_rule::{MoreMemory, RetryAction, RetryRule};

/// The largest policy: a task instance remembers a rule in one byte.
const MAX_RULES: usize = 100;
/// The largest memory limit of the format.
const MAX_MEMORY: u64 = 64 << 30;
/// The longest code of a failure, in bytes.
const MAX_CODE_BYTES: usize = 250;

/// Reads `retry_policy:`.
pub(super) fn read(node: &Node, findings: &mut Findings) -> Vec<RetryRule> {
    let Kind::Seq(items) = &node.kind else {
        findings
            .error(
                "manifest_type",
                node.pos,
                format!("`retry_policy` must be a list of rules, not {}", node.what()),
            )
            .hint("write `retry_policy: [{on: [out_of_memory], action: retry, memory_factor: 2}]`");
        return Vec::new();
    };
    if items.len() > MAX_RULES {
        findings
            .error(
                "manifest_value",
                node.pos,
                format!("`retry_policy` has {} rules; the limit is {MAX_RULES}", items.len()),
            )
            .hint("one rule may name several causes and codes in `on`");
        return Vec::new();
    }
    items.iter().filter_map(|item| rule(item, findings)).collect()
}

fn rule(node: &Node, findings: &mut Findings) -> Option<RetryRule> {
    let section = Section::open("a rule of `retry_policy`", &[RETRY_RULE], node, findings)?;
    section.missing("on", findings, node.pos);
    let (causes, codes) = section.get("on").map(|on| ends(on, findings)).unwrap_or_default();
    let actions: Vec<&str> = RetryAction::ALL.iter().map(|action| action.as_str()).collect();
    let action = section.choice("action", &actions, findings);
    let action = action
        .and_then(|action| action.value.parse().ok())
        .unwrap_or(RetryAction::Retry);
    let delay = section.duration("delay", findings);
    let percent = section.percent("memory_factor", findings);
    let max_bytes = section.size("max_memory", findings);
    for (key, is_set) in [("delay", delay.is_some()), ("memory_factor", percent.is_some())] {
        if is_set && action != RetryAction::Retry {
            findings
                .error(
                    "manifest_value",
                    section.key_pos(key),
                    format!("`{key}` is for the action `retry`, not for `{action}`"),
                )
                .hint(format!("write `action: retry`, or remove `{key}`"));
        }
    }
    if max_bytes.is_some() && section.get("memory_factor").is_none() {
        findings
            .error(
                "manifest_value",
                section.key_pos("max_memory"),
                "`max_memory` bounds `memory_factor`, which is not set",
            )
            .hint("write `memory_factor: 2`");
    }
    Some(RetryRule {
        causes,
        codes,
        action,
        delay: delay.map(|delay| delay.value),
        memory: percent.map(|percent| MoreMemory {
            percent: percent.value,
            max_bytes: max_bytes.map_or(MAX_MEMORY, |max| max.value),
        }),
    })
}

/// Reads `on:`: causes by name, codes as `code: text`.
fn ends(node: &Node, findings: &mut Findings) -> (Vec<Cause>, Vec<String>) {
    let (mut causes, mut codes) = (Vec::new(), Vec::new());
    let items = match &node.kind {
        Kind::Seq(items) => items.as_slice(),
        _ => {
            findings
                .error(
                    "manifest_type",
                    node.pos,
                    format!("`on` must be a list, not {}", node.what()),
                )
                .hint(
                    "write `on: [out_of_memory, timed_out]`, or `on: [code: rate_limited]` for the code of a failure",
                );
            return (causes, codes);
        }
    };
    if items.is_empty() {
        findings
            .error("manifest_value", node.pos, "`on` is empty; the rule would never match")
            .hint("write `on: [out_of_memory, timed_out]`, or remove the rule");
    }
    for item in items {
        if let Kind::Map(entries) = &item.kind {
            match entries.as_slice() {
                [entry] if entry.key == "code" => {
                    let Some(code) = text("code", &entry.value, findings) else {
                        continue;
                    };
                    if code.value.is_empty() || code.value.len() > MAX_CODE_BYTES {
                        let message = format!("a code must have 1 to {MAX_CODE_BYTES} bytes");
                        findings
                            .error("manifest_value", code.pos, message)
                            .hint("write the code that the task fails with, such as `code: rate_limited`");
                    }
                    codes.push(code.value);
                }
                _ => {
                    findings
                        .error(
                            "manifest_type",
                            item.pos,
                            "`on` holds causes, and codes as `code: text`",
                        )
                        .hint("write `on: [out_of_memory, code: rate_limited]`");
                }
            }
        } else if let Some(name) = text("on", item, findings) {
            cause(&name.value, &mut causes).unwrap_or_else(|hint| {
                findings
                    .error(
                        "manifest_value",
                        name.pos,
                        format!("`{}` is not a cause of a failed try", short(&name.value)),
                    )
                    .hint(hint);
            });
        }
    }
    causes.sort_unstable();
    causes.dedup();
    codes.sort_unstable();
    codes.dedup();
    (causes, codes)
}

fn cause(name: &str, causes: &mut Vec<Cause>) -> Result<(), String> {
    let names = || failures().map(Cause::as_str);
    match failures().find(|cause| cause.as_str() == name) {
        Some(cause) => causes.push(cause),
        None => {
            let close = suggest::closest(name, names());
            return Err(close.map_or_else(
                || {
                    let known: Vec<&str> = names().collect();
                    format!(
                        "known: {}; the code of a failure is written `code: {}`",
                        known.join(", "),
                        short(name)
                    )
                },
                |close| format!("did you mean `{close}`?"),
            ));
        }
    }
    Ok(())
}

/// The causes after which a task may be tried again: a try that answered has not failed, one that was cancelled is over.
pub(super) fn failures() -> impl Iterator<Item = Cause> + Clone {
    Cause::ALL
        .iter()
        .copied()
        .filter(|cause| !matches!(cause, Cause::Returned | Cause::Cancelled))
}
