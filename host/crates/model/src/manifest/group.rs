//! Tasks and task groups: the members of `tasks`, however deep, as one list each.

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

/// The most that the copies of `defaults` may take: each task has its own.
const MAX_DEFAULTS: usize = 16 << 20;

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
        findings
            .error(
                "manifest_value",
                node.pos,
                format!("`tasks` is empty; {what} needs at least one task"),
            )
            .hint("write `tasks: {load: {component: name@version}}`");
    }
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
                read::invalid_id(&error, &entry.key, entry.pos, findings);
                continue;
            }
        };
        if !plan.ids.insert(id.to_string()) {
            findings
                .error(
                    "manifest_duplicate_key",
                    entry.pos,
                    format!("the id `{id}` is there twice; tasks of a group have the group's id in front"),
                )
                .hint("give one of the two another name");
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
            plan.defaults = plan.defaults.saturating_add(defaults.weight);
            if plan.defaults > MAX_DEFAULTS {
                too_many_defaults(entry.pos, plan, findings);
                return;
            }
        }
    }
}

/// Told once: all that follows would be too many as well.
fn too_many_defaults(pos: Pos, plan: &Plan, findings: &mut Findings) {
    findings
        .error(
            "manifest_too_large",
            pos,
            format!(
                "`defaults` is copied into each of its tasks; up to here, the {}th, that takes more than {MAX_DEFAULTS} bytes",
                plan.tasks.len()
            ),
        )
        .hint("shorten `defaults`: what is long in it, such as the texts and inputs of callbacks, belongs to the DAG's own callbacks");
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
        findings
            .error(
                "manifest_value",
                pos,
                format!("groups lie in groups more than {MAX_DEPTH} deep"),
            )
            .hint("move the tasks of the innermost groups up into the one around them");
        return;
    }
    let own = section
        .get("defaults")
        .and_then(|node| Section::open("`defaults`", &[super::field::SETTINGS], node, findings))
        .map(|section| Settings {
            weight: section.weight(),
            ..read::settings(&section, manifest, findings)
        });
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
            findings
                .error("manifest_missing_key", section.key_pos("tasks"), "`tasks` is empty")
                .hint("write the group's tasks below it: `tasks: {load: {component: name@version}}`");
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
