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
    // For each edge the place that makes it, for the report of a cycle.
    let mut places: HashMap<(usize, usize), Pos> = HashMap::new();
    for (at, declared) in tasks.iter_mut().enumerate() {
        let named = upstream_names(declared, manifest);
        let mut upstream = Vec::new();
        for (name, pos, how) in named {
            match index.get(&name) {
                None => unknown(&name, pos, how, &index, findings),
                Some(&from) if from == at => {
                    findings.error(
                        "manifest_self_edge",
                        pos,
                        format!("task `{}` cannot wait for itself", declared.task.id),
                    );
                }
                Some(&from) => {
                    places.entry((from, at)).or_insert(pos);
                    upstream.push(from);
                }
            }
        }
        upstream.sort_unstable();
        upstream.dedup();
        for &from in &upstream {
            downstream[from].push(at);
        }
        declared.task.upstream = upstream;
    }
    cycles(tasks, &downstream, &places, findings);
    branches(tasks, &downstream, &index, findings);
}

/// The upstream tasks that a task names, with the place and the way of the naming.
fn upstream_names(declared: &Declared, manifest: &Manifest) -> Vec<(String, Pos, &'static str)> {
    let input = &declared.task.input;
    let after = declared
        .after
        .iter()
        .map(|name| (name.value.clone(), name.pos, "after"));
    let templates = input
        .template
        .iter()
        .flat_map(|template| template.xcom_uses())
        .map(|used| {
            let pos = manifest.locate(input, &used.path, used.offset);
            (used.xcom.task.clone(), pos, "template")
        });
    after.chain(templates).collect()
}

fn unknown(name: &str, pos: Pos, how: &str, index: &HashMap<String, usize>, findings: &mut Findings) {
    let mut known: Vec<&str> = index.keys().map(String::as_str).collect();
    known.sort_unstable();
    let hint = suggest::hint(name, known.iter().copied());
    let message = match how {
        "template" => format!("the template names task `{}`, which does not exist", short(name)),
        _ => format!("task `{}` does not exist", short(name)),
    };
    findings.error("manifest_unknown_task", pos, message).maybe_hint(hint);
}

fn cycles(
    tasks: &[Declared],
    downstream: &[Vec<usize>],
    places: &HashMap<(usize, usize), Pos>,
    findings: &mut Findings,
) {
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
        let pos = places.get(&(last, first)).copied().unwrap_or(tasks[first].task.pos);
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
                    None => unknown(&name.value, name.pos, "branches", index, findings),
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
