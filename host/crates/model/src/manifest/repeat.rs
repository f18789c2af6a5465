//! What makes tasks and groups many: `expand`, `expand_zip`, `expand_kwargs`, `loop`; and the roles `setup` and `teardown`.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::declared::{ExpandDecl, Input, Manifest, SourceDecl, TaskDecl};
use super::diagnostic::Findings;
use super::read;
use super::section::{Section, short};
use super::tree::{Kind, Node};
use crate::dag::{Combine, DEFAULT_MAP_LIMIT, TaskRole, length};
use crate::template::{Source, TemplateRoot, escape_pointer, is_template};

/// The most lists that one mapping names.
const MAX_SOURCES: usize = 100;

/// Reads what a task or a group is mapped over.
pub(super) fn expand(section: &Section<'_>, manifest: &Manifest, findings: &mut Findings) -> Option<ExpandDecl> {
    const KINDS: [(&str, Combine); 3] = [
        ("expand", Combine::Product),
        ("expand_zip", Combine::Zip),
        ("expand_kwargs", Combine::Kwargs),
    ];
    let limit = section.int("map_limit", findings);
    let mut found: Option<ExpandDecl> = None;
    for (key, how) in KINDS {
        let Some(node) = section.get(key) else { continue };
        if found.is_some() {
            findings
                .error(
                    "manifest_value",
                    section.key_pos(key),
                    "only one of `expand`, `expand_zip` and `expand_kwargs` can be used at a time",
                )
                .hint(
                    "keep one of them: `expand` combines each element with each, `expand_zip` goes side by side, `expand_kwargs` \
                     takes objects",
                );
            continue;
        }
        let sources = if how == Combine::Kwargs {
            vec![source("", node, manifest, findings)]
        } else {
            named_sources(key, node, manifest, findings)?
        };
        found = Some(ExpandDecl {
            pos: section.key_pos(key),
            how,
            sources,
            limit: limit.as_ref().map_or(DEFAULT_MAP_LIMIT, |limit| limit.value),
        });
    }
    if let (None, Some(_)) = (&found, &limit) {
        findings
            .error(
                "manifest_value",
                section.key_pos("map_limit"),
                "`map_limit` means nothing here: nothing is mapped",
            )
            .hint("remove it, or say what is mapped over with `expand`");
    }
    found
}

fn named_sources(key: &str, node: &Node, manifest: &Manifest, findings: &mut Findings) -> Option<Vec<SourceDecl>> {
    let Kind::Map(entries) = &node.kind else {
        findings
            .error(
                "manifest_type",
                node.pos,
                format!("`{key}` must be a map from name to list, not {}", node.what()),
            )
            .hint(format!("write `{key}: {{file: \"{{{{ xcom.list_files }}}}\"}}`"));
        return None;
    };
    if entries.is_empty() {
        findings
            .error(
                "manifest_value",
                node.pos,
                format!("`{key}` is empty: name at least one list"),
            )
            .hint(format!("write `{key}: {{file: \"{{{{ xcom.list_files }}}}\"}}`"));
        return None;
    }
    if entries.len() > MAX_SOURCES {
        findings
            .error(
                "manifest_value",
                node.pos,
                format!("`{key}` names {} lists; the limit is {MAX_SOURCES}", entries.len()),
            )
            .hint("map over one list of objects with `expand_kwargs` instead");
        return None;
    }
    let sources = entries
        .iter()
        .map(|entry| source(&entry.key, &entry.value, manifest, findings));
    Some(sources.collect())
}

fn source(name: &str, node: &Node, manifest: &Manifest, findings: &mut Findings) -> SourceDecl {
    let input = read::input(node, manifest, findings);
    let is_template = input.value.is_string() && input.template.is_some();
    let fits = match &input.value {
        Value::String(_) => input.template.is_none() || (is_template && path_of(&input).is_some()),
        value => length(value).is_some(),
    };
    if !fits {
        findings
            .error(
                "manifest_expand",
                node.pos,
                "what is mapped over must be a list, an object, or exactly one path to one: `xcom.<task>…` or `params.<name>…`",
            )
            .hint("for example `\"{{ xcom.list_files }}\"` or `[1, 2, 3]`");
    }
    SourceDecl {
        name: name.to_owned(),
        input,
        task: None,
    }
}

/// What a source is a path to, if it is a path.
pub(super) fn path_of(input: &Input) -> Option<Source<'_>> {
    let sources = input.template.as_ref()?.sources();
    match sources.as_slice() {
        [("", source @ (Source::Xcom { .. } | Source::Param { .. }))] => Some(*source),
        _ => None,
    }
}

/// Reads the name of a mapped instance: a template.
pub(super) fn map_index_template(
    section: &Section<'_>,
    manifest: &Manifest,
    findings: &mut Findings,
) -> Option<String> {
    let text = section.text("map_index_template", findings)?;
    let input = read::input(section.get("map_index_template")?, manifest, findings);
    if let Some(template) = &input.template
        && let Some(used) = template.xcom_uses().first()
    {
        findings
            .error(
                "manifest_value",
                manifest.locate(&input, &used.path, used.offset),
                "`map_index_template` cannot name XComs",
            )
            .hint("it sees `item`, `params`, `conf` and the run's names");
    }
    Some(text.value)
}

/// Reads `setup` and `teardown`.
pub(super) fn role(section: &Section<'_>, findings: &mut Findings) -> TaskRole {
    const KEY: &str = "on_failure_fail_dagrun";
    let setup = section.bool("setup", findings).is_some_and(|setup| setup.value);
    let teardown = section.get("teardown").and_then(|node| match &node.kind {
        Kind::Bool(value) => value.then_some(false),
        Kind::Map(entries) => match &entries[..] {
            [entry] if entry.key == KEY => match entry.value.kind {
                Kind::Bool(value) => Some(value),
                _ => {
                    findings
                        .error(
                            "manifest_type",
                            entry.value.pos,
                            format!("`{KEY}` must be true or false, not {}", entry.value.what()),
                        )
                        .hint("with `true` the run fails if the teardown does");
                    Some(false)
                }
            },
            _ => {
                findings
                    .error("manifest_unknown_key", node.pos, "unknown keys in `teardown`")
                    .hint(format!("known keys: {KEY}"));
                Some(false)
            }
        },
        _ => {
            findings
                .error(
                    "manifest_type",
                    node.pos,
                    format!("`teardown` must be true or false, not {}", node.what()),
                )
                .hint(format!("write `teardown: true`, or `teardown: {{{KEY}: true}}`"));
            None
        }
    });
    match teardown {
        Some(_) if setup => {
            findings
                .error(
                    "manifest_value",
                    section.key_pos("teardown"),
                    "a task cannot be a setup and a teardown",
                )
                .hint("make two tasks of it; the teardown names its setup in `after`");
            TaskRole::Setup
        }
        Some(on_failure_fail_dagrun) => {
            if section.get("trigger_rule").is_some() {
                findings
                    .error(
                        "manifest_value",
                        section.key_pos("trigger_rule"),
                        "a teardown has a trigger rule of its own (`all_done_setup_success`)",
                    )
                    .hint("remove it");
            }
            TaskRole::Teardown { on_failure_fail_dagrun }
        }
        None if setup => TaskRole::Setup,
        None => TaskRole::Work,
    }
}

/// What can be said about repeats once all names are resolved.
pub(super) fn check(manifest: &Manifest, findings: &mut Findings) {
    for task in &manifest.tasks {
        if findings.is_full() {
            return;
        }
        roles(task, findings);
        if let Some(expand) = &task.expand {
            names(task, expand, findings);
        }
        let around = manifest.around(task.group);
        let is_mapped = task.expand.is_some() || around.iter().any(|group| group.expand.is_some());
        let loops = around.iter().any(|group| group.repeat.is_some());
        for input in task.rendered() {
            roots(manifest, input, is_mapped, loops, findings);
        }
        let groups = around.iter().filter_map(|group| group.expand.as_ref());
        let mappings: Vec<&ExpandDecl> = task.expand.iter().chain(groups).collect();
        // What objects of `expand_kwargs` hold is known when they are there.
        if mappings.is_empty() || mappings.iter().any(|mapping| mapping.how == Combine::Kwargs) {
            continue;
        }
        for input in task.rendered() {
            elements(manifest, input, &mappings, findings);
        }
    }
    setups(manifest, findings);
}

/// What repeats a setup repeats its teardowns: each element, and each iteration, has its own.
fn setups(manifest: &Manifest, findings: &mut Findings) {
    let repeats = |task: &TaskDecl| {
        let is_repeated = |at: &usize| {
            let group = manifest.groups.get(*at);
            group.is_some_and(|group| group.expand.is_some() || group.repeat.is_some())
        };
        std::iter::successors(task.group, |at| manifest.groups.get(*at)?.parent).find(is_repeated)
    };
    for teardown in &manifest.tasks {
        if !matches!(teardown.role, TaskRole::Teardown { .. }) {
            continue;
        }
        for setup in teardown.upstream.iter().filter_map(|at| manifest.tasks.get(*at)) {
            if setup.role != TaskRole::Setup || repeats(setup) == repeats(teardown) {
                continue;
            }
            if findings.is_full() {
                return;
            }
            let within = |task: &TaskDecl| match repeats(task).and_then(|at| manifest.groups.get(at)) {
                Some(group) => format!("within `{}`, which is repeated", group.id),
                None => "outside of what is repeated".to_owned(),
            };
            findings
                .error(
                    "manifest_expand",
                    teardown.pos,
                    format!(
                        "teardown `{}` lies {}, and its setup `{}` {}: what is set up once is torn down once",
                        teardown.id,
                        within(teardown),
                        setup.id,
                        within(setup)
                    ),
                )
                .hint("put both into the same repeated group, or both outside of it");
        }
    }
}

/// Reports names that mean something only elsewhere.
fn roots(manifest: &Manifest, input: &Input, is_mapped: bool, loops: bool, findings: &mut Findings) {
    for (pointer, offset, root) in input.template.iter().flat_map(|template| template.root_uses()) {
        let (missing, hint) = match root {
            TemplateRoot::Item if !is_mapped => ("nothing is mapped here", "say what is mapped over with `expand`"),
            TemplateRoot::Callback => (
                "this is not a callback",
                "only what stands under `on_failure` and its like sees it",
            ),
            TemplateRoot::Iteration if !loops => {
                ("there is no loop around the task", "put it into a group with `loop`")
            }
            _ => continue,
        };
        if findings.is_full() {
            return;
        }
        findings
            .error(
                "manifest_expand",
                manifest.locate(input, pointer, offset),
                format!("`{root}` means nothing: {missing}"),
            )
            .hint(hint);
    }
}

/// Reports elements that no mapping brings.
fn elements(manifest: &Manifest, input: &Input, mappings: &[&ExpandDecl], findings: &mut Findings) {
    let names = || {
        mappings
            .iter()
            .flat_map(|mapping| &mapping.sources)
            .map(|source| &*source.name)
    };
    let known: HashSet<&str> = names().collect();
    for (pointer, offset, name) in input.template.iter().flat_map(|template| template.item_uses()) {
        if !known.contains(name) && !findings.is_full() {
            let hint = findings.suggest(name, names());
            findings
                .error(
                    "manifest_expand",
                    manifest.locate(input, pointer, offset),
                    format!("nothing is mapped over as `{}`", short(name)),
                )
                .hint(hint.unwrap_or_else(|| "`item` has the names that stand under `expand`".to_owned()));
        }
    }
}

/// A setup or a teardown is not mapped by itself.
fn roles(task: &TaskDecl, findings: &mut Findings) {
    if task.role == TaskRole::Work {
        return;
    }
    if let Some(expand) = &task.expand {
        findings
            .error(
                "manifest_expand",
                expand.pos,
                format!("task `{}` is a setup or a teardown and cannot be mapped", task.id),
            )
            .hint("put it into a group that is mapped: each element has its own then; or let one task prepare, or clean up, what all instances use");
    }
}

/// An element of a component's mapping becomes a member of the input: it cannot have the name of something that the input has. A
/// step that is built in sees elements as `item` only.
fn names(task: &TaskDecl, expand: &ExpandDecl, findings: &mut Findings) {
    if task.is_built_in() {
        return;
    }
    let Value::Object(members) = &task.input.value else {
        findings
            .error(
                "manifest_expand",
                task.input.pos,
                format!(
                    "task `{}` is mapped: its input must be a map, elements become members of it",
                    task.id
                ),
            )
            .hint("write `input: {name: value}`, or leave it out");
        return;
    };
    const HINT: &str = "remove it from `input`; what an element should not replace needs another name";
    for source in &expand.sources {
        if members.contains_key(&source.name) {
            findings
                .error(
                    "manifest_expand",
                    source.input.pos,
                    format!(
                        "`{}` is in `input` already: an element cannot have the same name",
                        short(&source.name)
                    ),
                )
                .hint(HINT);
        }
    }
    if expand.how == Combine::Kwargs {
        objects(members, expand, findings);
    }
}

/// Of objects that stand in the manifest, the members are known.
fn objects(members: &Map<String, Value>, expand: &ExpandDecl, findings: &mut Findings) {
    let elements = expand.sources.iter().filter_map(|source| match &source.input.value {
        Value::Array(elements) => Some((&source.input, elements)),
        _ => None,
    });
    for (input, elements) in elements {
        for (at, element) in elements.iter().enumerate() {
            if findings.is_full() {
                return;
            }
            let node = |pointer: String| input.node.as_ref().map_or(input.pos, |node| node.at(&pointer).pos);
            match element {
                Value::Object(element) => {
                    for name in element.keys().filter(|name| members.contains_key(*name)) {
                        findings
                            .error(
                                "manifest_expand",
                                node(format!("/{at}/{}", escape_pointer(name))),
                                format!(
                                    "`{}` is in `input` already: an element cannot have the same name",
                                    short(name)
                                ),
                            )
                            .hint("remove it from `input`, or from the objects of `expand_kwargs`");
                    }
                }
                // A template that is the whole element may become an object.
                Value::String(text) if is_template(text) => {}
                _ => {
                    findings
                        .error(
                            "manifest_expand",
                            node(format!("/{at}")),
                            "an element of `expand_kwargs` must be an object: its members go into the input",
                        )
                        .hint(
                            "write `expand_kwargs: [{name: value}]`, or map over values with `expand: {name: [value]}`",
                        );
                }
            }
        }
    }
}
