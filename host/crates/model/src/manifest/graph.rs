//! Edges: from `after` and from the tasks that templates name. Unknown names, self edges, cycles and branches that lead
//! nowhere are reported here; nothing of this needs to know the components.
//!
//! A name stands for a task or group of the same group, or of one further out; else for the whole id. Waiting for a group is
//! waiting for its last tasks, but not for its teardowns; when a group waits, its first tasks do (Airflow: `TaskGroup.get_leaves`,
//! `get_roots`).

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use super::declared::{Input, Manifest};
use super::diagnostic::{Findings, Pos};
use super::ends::{Members, Role};
use super::read::{Declared, DeclaredGroup, Plan};
use super::section::short;
use super::suggest;
use crate::dag::TaskRole;
use crate::graph::find_cycles;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Task(usize),
    Group(usize),
}

/// All ids.
struct Names {
    index: HashMap<String, Target>,
    /// The id and the parent of each group.
    groups: Vec<(String, Option<usize>)>,
}

impl Names {
    fn of(plan: &Plan) -> Self {
        let tasks = plan.tasks.iter().enumerate();
        let groups = plan.groups.iter().enumerate();
        let index = groups
            .map(|(at, declared)| (declared.group.id.clone(), Target::Group(at)))
            .chain(tasks.map(|(at, declared)| (declared.task.id.to_string(), Target::Task(at))))
            .collect();
        let groups = plan.groups.iter();
        Self {
            index,
            groups: groups.map(|of| (of.group.id.clone(), of.group.parent)).collect(),
        }
    }

    /// What a name means within a group.
    fn resolve(&self, group: Option<usize>, name: &str) -> Option<Target> {
        let mut around = group;
        while let Some((id, parent)) = around.and_then(|at| self.groups.get(at)) {
            if let Some(found) = self.index.get(&format!("{id}.{name}")) {
                return Some(*found);
            }
            around = *parent;
        }
        self.index.get(name).copied()
    }

    fn is_inside(&self, inner: Option<usize>, outer: usize) -> bool {
        std::iter::successors(inner, |at| self.groups.get(*at)?.1).any(|at| at == outer)
    }

    fn depth(&self, group: usize) -> usize {
        std::iter::successors(Some(group), |at| self.groups.get(*at)?.1).count()
    }
}

/// The edges as far as they are known.
struct Edges {
    upstream: Vec<BTreeSet<usize>>,
    /// The group of each task.
    groups: Vec<Option<usize>>,
    roles: Vec<Role>,
}

impl Edges {
    fn inside(&self, names: &Names, group: usize) -> Vec<usize> {
        let inside = |at: &usize| names.is_inside(self.groups.get(*at).copied().flatten(), group);
        (0..self.groups.len()).filter(inside).collect()
    }

    /// The tasks of a group that wait for no other of it.
    fn roots(&self, names: &Names, group: usize) -> Vec<usize> {
        let inside = self.inside(names, group);
        let members: BTreeSet<usize> = inside.iter().copied().collect();
        let is_root = |at: &usize| {
            self.upstream
                .get(*at)
                .is_none_or(|upstream| upstream.is_disjoint(&members))
        };
        inside.into_iter().filter(is_root).collect()
    }

    /// The tasks of a group that an arrow from it comes from.
    fn leaves(&self, names: &Names, group: usize) -> Vec<usize> {
        let members = Members {
            inside: &self.inside(names, group),
            upstream: &self.upstream,
            roles: &self.roles,
        };
        members.last()
    }

    fn first(&self, names: &Names, target: Target) -> Vec<usize> {
        match target {
            Target::Task(at) => vec![at],
            Target::Group(at) => self.roots(names, at),
        }
    }

    fn last(&self, names: &Names, target: Target) -> Vec<usize> {
        match target {
            Target::Task(at) => vec![at],
            Target::Group(at) => self.leaves(names, at),
        }
    }
}

/// Somebody waits for something.
struct Wait {
    who: Target,
    what: Target,
}

/// Resolves all names of tasks and groups in what is declared.
pub(super) fn connect(plan: &mut Plan, manifest: &Manifest, findings: &mut Findings) {
    let names = Names::of(plan);
    let mut waits: Vec<Wait> = Vec::new();
    for (at, declared) in plan.tasks.iter().enumerate() {
        let who = Target::Task(at);
        for named in upstream_names(declared) {
            let place = || named.place(manifest);
            match names.resolve(declared.task.group, named.name) {
                Some(Target::Group(_)) if named.template() => {
                    findings
                        .error(
                            "manifest_unknown_task",
                            place(),
                            format!("`{}` is a group; a template names a task", short(named.name)),
                        )
                        .hint(format!("write `xcom[\"{}.<task>\"]`", short(named.name)));
                }
                None => unknown(named.name, place(), named.template(), &names, findings),
                Some(what) if what == who || names.holds(what, declared.task.group) => {
                    findings.error(
                        "manifest_self_edge",
                        place(),
                        format!("task `{}` cannot wait for itself", declared.task.id),
                    );
                }
                Some(what) => waits.push(Wait { who, what }),
            }
        }
    }
    for (at, declared) in plan.groups.iter().enumerate() {
        let who = Target::Group(at);
        for named in group_names(declared) {
            let place = || named.place(manifest);
            match names.resolve(declared.group.parent, named.name) {
                Some(Target::Group(_)) if named.template() => {
                    let message = format!("`{}` is a group; a template names a task", short(named.name));
                    findings.error("manifest_unknown_task", place(), message);
                }
                None => unknown(named.name, place(), named.template(), &names, findings),
                Some(what) if what == who || names.holds(what, Some(at)) || names.lies_in(what, at, plan) => {
                    let message = format!("group `{}` cannot wait for itself", declared.group.id);
                    findings.error("manifest_self_edge", place(), message);
                }
                Some(what) => waits.push(Wait { who, what }),
            }
        }
    }
    let edges = edges(plan, &names, waits);
    resolve_sources(plan, &names);
    resolve_loops(plan, &names, manifest, findings);
    let mut downstream: Vec<Vec<usize>> = vec![Vec::new(); plan.tasks.len()];
    for (at, (declared, upstream)) in plan.tasks.iter_mut().zip(&edges.upstream).enumerate() {
        declared.task.upstream = upstream.iter().copied().collect();
        for from in upstream {
            downstream[*from].push(at);
        }
    }
    cycles(&plan.tasks, &downstream, manifest, findings);
    branches(plan, &downstream, &names, &edges, findings);
}

/// Which tasks wait for which. What the first and last tasks of a group are depends on the edges inside it: deeper ones first.
fn edges(plan: &Plan, names: &Names, mut waits: Vec<Wait>) -> Edges {
    let mut edges = Edges {
        upstream: vec![BTreeSet::new(); plan.tasks.len()],
        groups: plan.tasks.iter().map(|declared| declared.task.group).collect(),
        roles: plan.tasks.iter().map(|declared| role(&declared.task.role)).collect(),
    };
    let depth = |wait: &Wait| {
        let of = |target: Target| match target {
            Target::Task(_) => usize::MAX,
            Target::Group(at) => names.depth(at),
        };
        of(wait.who).min(of(wait.what))
    };
    waits.sort_by_key(|wait| Reverse(depth(wait)));
    for wait in waits {
        let from = edges.last(names, wait.what);
        for to in edges.first(names, wait.who) {
            if let Some(upstream) = edges.upstream.get_mut(to) {
                upstream.extend(from.iter().copied().filter(|from| *from != to));
            }
        }
    }
    edges
}

fn role(role: &TaskRole) -> Role {
    match role {
        TaskRole::Work => Role::Work,
        TaskRole::Setup => Role::Setup,
        TaskRole::Teardown { .. } => Role::Teardown,
    }
}

impl Names {
    /// Whether a target is a group around the group.
    fn holds(&self, target: Target, group: Option<usize>) -> bool {
        matches!(target, Target::Group(outer) if self.is_inside(group, outer))
    }

    /// Whether a target lies in a group.
    fn lies_in(&self, target: Target, group: usize, plan: &Plan) -> bool {
        let of = match target {
            Target::Task(at) => plan.tasks.get(at).and_then(|task| task.task.group),
            Target::Group(at) => Some(at),
        };
        self.is_inside(of, group)
    }
}

/// A name of an upstream task or group. Its place is worked out only where it is reported.
struct Named<'d> {
    name: &'d str,
    at: Naming<'d>,
}

enum Naming<'d> {
    After(Pos),
    Template {
        input: &'d Input,
        pointer: &'d str,
        offset: usize,
    },
}

impl Named<'_> {
    fn place(&self, manifest: &Manifest) -> Pos {
        match self.at {
            Naming::After(pos) => pos,
            Naming::Template { input, pointer, offset } => manifest.locate(input, pointer, offset),
        }
    }

    const fn template(&self) -> bool {
        matches!(self.at, Naming::Template { .. })
    }
}

fn in_template(input: &Input) -> impl Iterator<Item = Named<'_>> {
    let uses = input.template.iter().flat_map(|template| template.xcom_uses());
    uses.filter(|used| !used.xcom.previous).map(move |used| Named {
        name: &used.xcom.task,
        at: Naming::Template {
            input,
            pointer: &used.path,
            offset: used.offset,
        },
    })
}

fn upstream_names(declared: &Declared) -> Vec<Named<'_>> {
    let after = declared.after.iter().map(|name| Named {
        name: &name.value,
        at: Naming::After(name.pos),
    });
    let sources = declared.task.expand.iter().flat_map(|expand| &expand.sources);
    after
        .chain(declared.task.rendered().flat_map(in_template))
        .chain(sources.flat_map(|source| in_template(&source.input)))
        .collect()
}

fn group_names(declared: &DeclaredGroup) -> Vec<Named<'_>> {
    let after = declared.after.iter().map(|name| Named {
        name: &name.value,
        at: Naming::After(name.pos),
    });
    let sources = declared.group.expand.iter().flat_map(|expand| &expand.sources);
    after
        .chain(sources.flat_map(|source| in_template(&source.input)))
        .collect()
}

fn unknown(name: &str, pos: Pos, template: bool, names: &Names, findings: &mut Findings) {
    let mut known: Vec<&str> = names.index.keys().map(String::as_str).collect();
    known.sort_unstable();
    let hint = suggest::hint(name, known.iter().copied());
    let message = if template {
        format!("the template names task `{}`, which does not exist", short(name))
    } else {
        format!("task `{}` does not exist", short(name))
    };
    findings.error("manifest_unknown_task", pos, message).maybe_hint(hint);
}

/// The tasks behind what is mapped over.
fn resolve_sources(plan: &mut Plan, names: &Names) {
    let resolve = |group: Option<usize>, input: &Input| {
        let used = in_template(input).next()?.name.to_owned();
        match names.resolve(group, &used) {
            Some(Target::Task(at)) => Some(at),
            _ => None,
        }
    };
    for declared in &mut plan.tasks {
        let group = declared.task.group;
        for source in declared.task.expand.iter_mut().flat_map(|expand| &mut expand.sources) {
            source.task = resolve(group, &source.input);
        }
    }
    for declared in &mut plan.groups {
        let parent = declared.group.parent;
        for source in declared.group.expand.iter_mut().flat_map(|expand| &mut expand.sources) {
            source.task = resolve(parent, &source.input);
        }
    }
}

/// The tasks that decide about loops, and what `previous` names.
fn resolve_loops(plan: &mut Plan, names: &Names, manifest: &Manifest, findings: &mut Findings) {
    let repeated: Vec<(bool, bool)> = plan
        .groups
        .iter()
        .map(|declared| (declared.group.expand.is_some(), declared.group.repeat.is_some()))
        .collect();
    // The innermost repeated group around something.
    let repeat_around = |group: Option<usize>| {
        std::iter::successors(group, |at| names.groups.get(*at)?.1)
            .find(|at| repeated.get(*at).is_some_and(|(mapped, looped)| *mapped || *looped))
    };
    for at in 0..plan.groups.len() {
        let Some(repeat) = plan.groups.get(at).and_then(|declared| declared.group.repeat.clone()) else {
            continue;
        };
        let used: BTreeSet<&str> = in_template(&repeat.until).map(|named| named.name).collect();
        let mut used = used.into_iter();
        let found = match (used.next(), used.next()) {
            (Some(name), None) => match names.resolve(Some(at), name) {
                Some(Target::Task(task)) => Some(task),
                _ => None,
            },
            _ => None,
        };
        let decides = found.filter(|task| {
            plan.tasks.get(*task).is_some_and(|declared| {
                declared.task.expand.is_none()
                    && declared.task.human.is_none()
                    && !declared.task.latest_only
                    && declared.task.between.is_none()
                    && repeat_around(declared.task.group) == Some(at)
            })
        });
        if decides.is_none() && repeat.until.template.is_some() {
            findings
                .error(
                    "manifest_loop",
                    repeat.pos,
                    "`until` must be a template over what exactly one task of the loop returned, one that is not mapped",
                )
                .hint("write `until: \"{{ xcom.<task of the group>.done }}\"`");
        }
        if let Some(repeat) = plan
            .groups
            .get_mut(at)
            .and_then(|declared| declared.group.repeat.as_mut())
        {
            repeat.task = decides;
        }
    }
    for declared in &plan.tasks {
        let uses = declared.task.rendered().flat_map(|input| {
            let uses = input.template.iter().flat_map(|template| template.xcom_uses());
            uses.map(move |used| (input, used))
        });
        for (input, used) in uses.filter(|(_, used)| used.xcom.previous) {
            let place = || manifest.locate(input, &used.path, used.offset);
            let loops = std::iter::successors(declared.task.group, |at| names.groups.get(*at)?.1)
                .filter(|at| repeated.get(*at).is_some_and(|(_, looped)| *looped));
            match names.resolve(declared.task.group, &used.xcom.task) {
                Some(Target::Task(task)) => {
                    let of = plan.tasks.get(task).and_then(|declared| declared.task.group);
                    if !loops.clone().any(|at| names.is_inside(of, at)) {
                        let name = short(&used.xcom.task);
                        findings
                            .error(
                                "manifest_loop",
                                place(),
                                format!("`previous.{name}` means nothing: there is no loop around both tasks"),
                            )
                            .hint(format!(
                                "outside of a loop, name the last iteration by `xcom[\"{name}\"]`"
                            ));
                    }
                }
                _ => unknown(&used.xcom.task, place(), true, names, findings),
            }
        }
    }
}

fn cycles(tasks: &[Declared], downstream: &[Vec<usize>], manifest: &Manifest, findings: &mut Findings) {
    for cycle in find_cycles(downstream) {
        let Some((&first, &last)) = cycle.first().zip(cycle.last()) else {
            continue;
        };
        let mut path: Vec<&str> = cycle
            .iter()
            .filter_map(|at| tasks.get(*at))
            .map(|declared| declared.task.id.as_str())
            .collect();
        path.extend(path.first().copied());
        // The place of the edge that closes the cycle.
        let closing = tasks[last].task.id.as_str();
        let names = |name: &str| closing == name || closing.ends_with(&format!(".{name}"));
        let pos = upstream_names(&tasks[first])
            .iter()
            .find(|named| names(named.name))
            .map_or(tasks[first].task.pos, |named| named.place(manifest));
        let shown = if path.len() > 12 {
            format!(
                "{} → … → {} ({} tasks)",
                path[..6].join(" → "),
                path[path.len() - 3..].join(" → "),
                path.len() - 1
            )
        } else {
            path.join(" → ")
        };
        findings
            .error("manifest_cycle", pos, format!("the tasks wait for each other: {shown}"))
            .hint("remove one of these edges; edges come from `after` and from `xcom.<task>` in inputs");
    }
}

fn branches(plan: &mut Plan, downstream: &[Vec<usize>], names: &Names, edges: &Edges, findings: &mut Findings) {
    for (at, declared) in plan.tasks.iter_mut().enumerate() {
        let group = declared.task.group;
        let Some(branches) = &mut declared.task.branches else {
            continue;
        };
        for (label, listed) in std::mem::take(&mut declared.branches) {
            let mut chosen = Vec::new();
            for name in listed {
                let Some(target) = names.resolve(group, &name.value) else {
                    unknown(&name.value, name.pos, false, names, findings);
                    continue;
                };
                // A group is followed by its first tasks (Airflow: a branch may answer the id of a group).
                let first: Vec<usize> = edges.first(names, target);
                let direct: Vec<usize> = first.into_iter().filter(|to| downstream[at].contains(to)).collect();
                if direct.is_empty() {
                    let id = &declared.task.id;
                    findings
                        .error(
                            "manifest_branch",
                            name.pos,
                            format!("`{}` is not a direct downstream task of `{id}`", name.value),
                        )
                        .hint(format!("write `after: [{id}]` in task `{}`", name.value));
                }
                chosen.extend(direct);
            }
            chosen.sort_unstable();
            chosen.dedup();
            branches.labels.push((label, chosen));
        }
    }
}
