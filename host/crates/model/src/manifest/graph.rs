//! Edges: from `after` and from the tasks that templates name. Unknown names, self edges, cycles and branches that lead
//! nowhere are reported here; nothing of this needs to know the components.

use std::collections::HashMap;

use super::declared::Manifest;
use super::diagnostic::{Findings, Pos};
use super::read::{Declared, by_id};
use super::section::short;
use super::suggest;
use crate::graph::find_cycles;

/// Resolves all names of tasks in the declared tasks.
pub(super) fn connect(tasks: &mut [Declared], manifest: &Manifest, findings: &mut Findings) {
    let index = by_id(tasks);
    let mut downstream: Vec<Vec<usize>> = vec![Vec::new(); tasks.len()];
    for (at, declared) in tasks.iter_mut().enumerate() {
        let mut upstream = Vec::new();
        for named in upstream_names(declared) {
            match index.get(named.name) {
                None => unknown(
                    named.name,
                    named.place(declared, manifest),
                    named.template(),
                    &index,
                    findings,
                ),
                Some(&from) if from == at => {
                    findings.error(
                        "manifest_self_edge",
                        named.place(declared, manifest),
                        format!("task `{}` cannot wait for itself", declared.task.id),
                    );
                }
                Some(&from) => upstream.push(from),
            }
        }
        upstream.sort_unstable();
        upstream.dedup();
        for &from in &upstream {
            downstream[from].push(at);
        }
        declared.task.upstream = upstream;
    }
    cycles(tasks, &downstream, manifest, findings);
    branches(tasks, &downstream, &index, findings);
}

/// A name of an upstream task. Its place is worked out only where it is reported.
struct Named<'d> {
    name: &'d str,
    at: Naming<'d>,
}

enum Naming<'d> {
    After(Pos),
    Template { pointer: &'d str, offset: usize },
}

impl Named<'_> {
    fn place(&self, declared: &Declared, manifest: &Manifest) -> Pos {
        match self.at {
            Naming::After(pos) => pos,
            Naming::Template { pointer, offset } => manifest.locate(&declared.task.input, pointer, offset),
        }
    }

    const fn template(&self) -> bool {
        matches!(self.at, Naming::Template { .. })
    }
}

fn upstream_names(declared: &Declared) -> Vec<Named<'_>> {
    let after = declared.after.iter().map(|name| Named {
        name: &name.value,
        at: Naming::After(name.pos),
    });
    let template = declared.task.input.template.iter();
    let templates = template.flat_map(|template| template.xcom_uses()).map(|used| Named {
        name: &used.xcom.task,
        at: Naming::Template {
            pointer: &used.path,
            offset: used.offset,
        },
    });
    after.chain(templates).collect()
}

fn unknown(name: &str, pos: Pos, template: bool, index: &HashMap<String, usize>, findings: &mut Findings) {
    let mut known: Vec<&str> = index.keys().map(String::as_str).collect();
    known.sort_unstable();
    let hint = suggest::hint(name, known.iter().copied());
    let message = if template {
        format!("the template names task `{}`, which does not exist", short(name))
    } else {
        format!("task `{}` does not exist", short(name))
    };
    findings.error("manifest_unknown_task", pos, message).maybe_hint(hint);
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
        let pos = upstream_names(&tasks[first])
            .iter()
            .find(|named| named.name == closing)
            .map_or(tasks[first].task.pos, |named| named.place(&tasks[first], manifest));
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

fn branches(
    tasks: &mut [Declared],
    downstream: &[Vec<usize>],
    index: &HashMap<String, usize>,
    findings: &mut Findings,
) {
    for (at, declared) in tasks.iter_mut().enumerate() {
        let Some(branches) = &mut declared.task.branches else {
            continue;
        };
        for (label, names) in std::mem::take(&mut declared.branches) {
            let mut chosen = Vec::new();
            for name in names {
                match index.get(&name.value) {
                    None => unknown(&name.value, name.pos, false, index, findings),
                    Some(to) if downstream[at].contains(to) => chosen.push(*to),
                    Some(_) => {
                        let id = &declared.task.id;
                        findings
                            .error(
                                "manifest_branch",
                                name.pos,
                                format!("`{}` is not a direct downstream task of `{id}`", name.value),
                            )
                            .hint(format!("write `after: [{id}]` in task `{}`", name.value));
                    }
                }
            }
            chosen.sort_unstable();
            chosen.dedup();
            branches.labels.push((label, chosen));
        }
    }
}
