//! Mappings and loops, compiled: positions instead of names, and what each task has to measure for them.

use std::collections::HashMap;

use indexmap::IndexSet;

use super::declared::{ExpandDecl, Manifest, TaskDecl};
use super::diagnostic::{Diagnostic, Severity};
use super::repeat::path_of;
use crate::dag::{Expansion, Group, GroupIndex, Loop, MapSource, MapValues, Measure, Measured, Repeat};
use crate::id::TaskIndex;
use crate::template::{RETURN_VALUE, Segment, Source};

/// What the tasks have to measure, and the parameters that are mapped over.
pub(super) struct Measures {
    pub(super) by_task: Vec<Vec<Measure>>,
    params: IndexSet<Vec<Segment>>,
    /// Where a measure of a task stands.
    known: HashMap<Wanted, usize>,
}

/// A measure of a task: what is measured, of which key, at which path. Lengths are one, whatever their limits.
type Wanted = (usize, Option<Measured>, String, Vec<Segment>);

/// The most things that are measured of one task: each is looked for in all that the task publishes.
pub(super) const MAX_MEASURES: usize = 100;

impl Measures {
    pub(super) fn of(manifest: &Manifest) -> Self {
        Self {
            by_task: vec![Vec::new(); manifest.tasks.len()],
            params: IndexSet::new(),
            known: HashMap::new(),
        }
    }

    /// A task of which too much is measured.
    pub(super) fn too_many(&self) -> Option<usize> {
        self.by_task.iter().position(|measures| measures.len() > MAX_MEASURES)
    }

    fn measure(&mut self, task: usize, wanted: Measure) -> u32 {
        let Some(measures) = self.by_task.get_mut(task) else {
            return 0;
        };
        let what = match &wanted.what {
            Measured::Length { .. } => None,
            what => Some(what.clone()),
        };
        let entry = (task, what, wanted.key.clone(), wanted.path.clone());
        let at = *self.known.entry(entry).or_insert(measures.len());
        match measures.get_mut(at) {
            // Who maps over it says how long it may be: the strictest counts.
            Some(known) => {
                if let (Measured::Length { limit }, Measured::Length { limit: other }) = (&mut known.what, &wanted.what)
                {
                    *limit = (*limit).min(*other);
                }
            }
            None => measures.push(wanted),
        }
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// A mapping; `group` is the group that the mapped task or group lies in.
    pub(super) fn expansion(&mut self, manifest: &Manifest, expand: &ExpandDecl, group: Option<usize>) -> Expansion {
        let sources = expand.sources.iter().map(|source| {
            let values = match (path_of(&source.input), source.task) {
                (Some(Source::Xcom { xcom, path }), Some(task)) => {
                    let what = if is_many(manifest, task, group) {
                        Measured::Present
                    } else {
                        Measured::Length { limit: expand.limit }
                    };
                    let measured = Measure {
                        key: xcom.key.clone(),
                        path: if what == Measured::Present {
                            Vec::new()
                        } else {
                            path.to_vec()
                        },
                        what,
                    };
                    MapValues::Xcom {
                        task: task_index(task),
                        key: xcom.key.clone(),
                        path: path.to_vec(),
                        measure: self.measure(task, measured),
                    }
                }
                (Some(Source::Param { name, path }), _) => {
                    let mut whole = vec![Segment::Key(name.to_owned())];
                    whole.extend_from_slice(path);
                    let (at, _) = self.params.insert_full(whole.clone());
                    MapValues::Param {
                        path: whole,
                        measure: u32::try_from(at).unwrap_or(u32::MAX),
                    }
                }
                _ => MapValues::Literal {
                    value: source.input.value.clone(),
                },
            };
            MapSource {
                name: source.name.clone(),
                values,
            }
        });
        Expansion {
            how: expand.how,
            sources: sources.collect(),
            limit: expand.limit,
        }
    }
}

/// The groups, and what is measured for them.
pub(super) fn groups(manifest: &Manifest, measures: &mut Measures) -> Vec<Group> {
    let compile = |group: &super::declared::GroupDecl| {
        let mapped = group
            .expand
            .as_ref()
            .map(|expand| Repeat::Mapped(measures.expansion(manifest, expand, group.parent)));
        let repeat = mapped.or_else(|| {
            let repeat = group.repeat.as_ref()?;
            let until = repeat.task?;
            let measured = Measure {
                key: RETURN_VALUE.to_owned(),
                path: Vec::new(),
                what: Measured::Truth {
                    expression: repeat.until.value.as_str().unwrap_or_default().to_owned(),
                },
            };
            Some(Repeat::Loop(Loop {
                max: repeat.max,
                until: task_index(until),
                measure: measures.measure(until, measured),
            }))
        });
        Group {
            id: group.id.clone(),
            parent: group.parent.map(group_index),
            tooltip: group.tooltip.clone(),
            repeat,
        }
    };
    manifest.groups.iter().map(compile).collect()
}

/// Whether a task has many instances as seen from a group: it is mapped, or lies in a mapped group that is not around both.
pub(super) fn is_many(manifest: &Manifest, task: usize, from: Option<usize>) -> bool {
    let Some(task) = manifest.tasks.get(task) else {
        return false;
    };
    let around = std::iter::successors(task.group, |at| manifest.groups.get(*at)?.parent);
    let not_shared = around.filter(|at| !manifest.is_inside(from, *at));
    task.expand.is_some()
        || not_shared
            .filter_map(|at| manifest.groups.get(at))
            .any(|group| group.expand.is_some())
}

/// Too much is measured of a task.
pub(super) fn too_many_measures(task: &TaskDecl) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: "manifest_too_large".to_owned(),
        line: task.pos.line,
        column: task.pos.column,
        message: format!(
            "more than {MAX_MEASURES} different parts of what task `{}` publishes are mapped over, or decide about a loop",
            task.id
        ),
        hint: Some("map a group over one list, or let several tasks publish the parts".to_owned()),
    }
}

/// The map index of a task has no room for all that could be.
pub(super) fn too_deep(task: &TaskDecl) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: "manifest_expand".to_owned(),
        line: task.pos.line,
        column: task.pos.column,
        message: format!(
            "task `{}` could have more than {} instances: the limits of what is repeated around it are multiplied",
            task.id,
            i32::MAX
        ),
        hint: Some("set a smaller `map_limit`, or a smaller `max` of a loop".to_owned()),
    }
}

pub(super) fn group_index(at: usize) -> GroupIndex {
    GroupIndex(u32::try_from(at).unwrap_or(u32::MAX))
}

fn task_index(at: usize) -> TaskIndex {
    TaskIndex(u32::try_from(at).unwrap_or(u32::MAX))
}
