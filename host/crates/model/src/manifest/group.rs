//! Tasks and task groups: the members of `tasks`, however deep, as one list each.

use std::collections::HashSet;

use super::declared::{GroupDecl, LoopDecl, Manifest, Settings};
use super::diagnostic::{Findings, Pos};
use super::field::{GROUP, LOOP, MAPPING};
use super::read::{self, DeclaredGroup, Plan};
use super::repeat;
use super::section::Section;
use super::tree::{Kind, Node};
use crate::id::TaskId;

/// How deep groups may lie in groups.
const MAX_DEPTH: usize = 8;

/// Reads a `tasks:` map into the plan.
pub(super) fn tasks(
    node: &Node,
    group: Option<usize>,
    defaults: &Settings,
    manifest: &Manifest,
    plan: &mut Plan,
    findings: &mut Findings,
) {
    let Kind::Map(entries) = &node.kind else {
        findings
            .error(
                "manifest_type",
                node.pos,
                format!("`tasks` must be a map from task id to task, not {}", node.what()),
            )
            .hint("write `tasks: {load: {component: …, task: …}}`");
        return;
    };
    if entries.is_empty() {
        let what = if group.is_some() { "a group" } else { "a DAG" };
        findings.error(
            "manifest_value",
            node.pos,
            format!("`tasks` is empty; {what} needs at least one task"),
        );
    }
    let mut known: HashSet<String> = plan.tasks.iter().map(|task| task.task.id.to_string()).collect();
    known.extend(plan.groups.iter().map(|group| group.group.id.clone()));
    for entry in entries.iter() {
        let around = group.and_then(|group| plan.groups.get(group));
        let id = match around {
            Some(around) => format!("{}.{}", around.group.id, entry.key),
            None => entry.key.clone(),
        };
        // The id within the group must be one by itself, too.
        let id = match TaskId::new(&entry.key).and_then(|_| TaskId::new(&id)) {
            Ok(id) => id,
            Err(error) => {
                findings.error("manifest_value", entry.pos, error.to_string());
                continue;
            }
        };
        if !known.insert(id.to_string()) {
            findings.error(
                "manifest_duplicate_key",
                entry.pos,
                format!("the id `{id}` is there twice; tasks of a group have the group's id in front"),
            );
            continue;
        }
        if is_group(&entry.value) {
            read_group(
                id.as_str(),
                entry.pos,
                &entry.value,
                group,
                defaults,
                manifest,
                plan,
                findings,
            );
        } else {
            let mut declared = read::task(id, entry.pos, &entry.value, defaults, manifest, findings);
            declared.task.group = group;
            plan.tasks.push(declared);
        }
    }
}

fn is_group(node: &Node) -> bool {
    match &node.kind {
        Kind::Map(entries) => entries.iter().any(|entry| entry.key == "tasks"),
        _ => false,
    }
}

#[expect(clippy::too_many_arguments, reason = "one call, and each says what it is")]
fn read_group(
    id: &str,
    pos: Pos,
    node: &Node,
    parent: Option<usize>,
    defaults: &Settings,
    manifest: &Manifest,
    plan: &mut Plan,
    findings: &mut Findings,
) {
    let name = format!("group `{id}`");
    let Some(section) = Section::open(&name, &[GROUP, MAPPING], node, findings) else {
        return;
    };
    let depth = std::iter::successors(parent, |at| plan.groups.get(*at)?.group.parent).count();
    if depth >= MAX_DEPTH {
        findings.error(
            "manifest_value",
            pos,
            format!("groups lie in groups more than {MAX_DEPTH} deep"),
        );
        return;
    }
    let own = section
        .get("defaults")
        .and_then(|node| Section::open("`defaults`", &[super::field::SETTINGS], node, findings))
        .map(|section| read::settings(&section, manifest, findings));
    let defaults = own.map_or_else(|| defaults.clone(), |own| read::over(own, defaults));
    let expand = repeat::expand(&section, manifest, findings);
    let repeat = section.get("loop").and_then(|node| read_loop(node, manifest, findings));
    if expand.is_some() && repeat.is_some() {
        findings
            .error(
                "manifest_value",
                section.key_pos("loop"),
                format!("{name} cannot be mapped and a loop at once"),
            )
            .hint("put the loop into a group of its own, inside the mapped group or around it");
    }
    plan.groups.push(DeclaredGroup {
        group: GroupDecl {
            id: id.to_owned(),
            parent,
            tooltip: section.text("tooltip", findings).map(|text| text.value),
            expand,
            repeat,
        },
        after: section.texts("after", findings).unwrap_or_default(),
    });
    let at = plan.groups.len() - 1;
    match section.get("tasks") {
        Some(node) => tasks(node, Some(at), &defaults, manifest, plan, findings),
        None => {
            findings.error("manifest_missing_key", section.key_pos("tasks"), "`tasks` is empty");
        }
    }
}

fn read_loop(node: &Node, manifest: &Manifest, findings: &mut Findings) -> Option<LoopDecl> {
    let section = Section::open("`loop`", &[LOOP], node, findings)?;
    section.missing("until", findings, node.pos);
    section.missing("max", findings, node.pos);
    section.text("until", findings)?;
    Some(LoopDecl {
        pos: section.key_pos("until"),
        max: section.int("max", findings)?.value,
        until: read::input(section.get("until")?, manifest, findings),
        task: None,
    })
}
