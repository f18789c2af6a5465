//! What a dispatch has to know of what is repeated: the elements that it is mapped over, its iteration, and which instances of
//! other tasks it sees.

use std::collections::HashMap;

use model::dag::{Expansion, MapValues, ROOT};
use model::run::RunState;
use model::template::split;
use model::{Dag, MapIndex, TaskIndex};
use ports::executor::{Element, ElementAt, Position};
use serde_json::Value;

use crate::live::Sight;

/// For each task of a version: the upstream tasks of which it does not see every instance, and the tasks of the loops around it.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    of: HashMap<TaskIndex, Related>,
}

#[derive(Debug, Default)]
struct Related {
    /// Upstream tasks that are repeated around both, or by a loop.
    limited: Vec<TaskIndex>,
    /// Tasks of the loops around it.
    looping: Vec<TaskIndex>,
    is_repeated: bool,
}

impl Repeats {
    pub(crate) fn of(dag: &Dag) -> Self {
        let scopes = dag.scopes();
        let is_mapped = dag.tasks.iter().any(|task| task.expand.is_some());
        if scopes.is_flat() && !is_mapped {
            return Self::default();
        }
        let tasks = (0..dag.tasks.len())
            .filter_map(|at| u32::try_from(at).ok())
            .map(TaskIndex);
        let repeated: Vec<TaskIndex> = tasks.clone().filter(|task| scopes.of_task(*task).0 != ROOT).collect();
        let of = tasks
            .map(|task| {
                let here = scopes.of_task(task).0;
                let upstream = dag.ancestors(&[task]);
                let limited = repeated.iter().copied().filter(|other| {
                    let there = scopes.of_task(*other).0;
                    let common = scopes.common(here, there);
                    let is_loop = |step: &u32| scopes.get(*step).is_some_and(|def| def.is_loop);
                    upstream.contains(other) && (common != ROOT || scopes.path(common, there).iter().any(is_loop))
                });
                let around = scopes.path(ROOT, here);
                let looping = repeated.iter().copied().filter(|other| {
                    let common = scopes.path(ROOT, scopes.common(here, scopes.of_task(*other).0));
                    common
                        .iter()
                        .any(|step| scopes.get(*step).is_some_and(|def| def.is_loop))
                });
                let related = Related {
                    limited: limited.collect(),
                    looping: looping.collect(),
                    is_repeated: !around.is_empty() || dag.task(task).is_some_and(|task| task.expand.is_some()),
                };
                (task, related)
            })
            .collect();
        Self { of }
    }

    /// Which instances of repeated tasks a task instance sees.
    pub(crate) fn sight(&self, state: &RunState, task: TaskIndex, map_index: MapIndex) -> Sight {
        let Some(related) = self.of.get(&task) else {
            return Sight::default();
        };
        let limited = related.limited.iter();
        let looping = related.looping.iter();
        Sight {
            now: limited.map(|of| (*of, state.visible(task, map_index, *of))).collect(),
            before: looping.map(|of| (*of, state.previous(task, map_index, *of))).collect(),
        }
    }

    /// Where a task instance stands. `known` keeps what several dispatches of a tick ask for.
    pub(crate) fn position<'s>(
        &self,
        state: &'s RunState,
        (task, map_index): (TaskIndex, MapIndex),
        params: &Value,
        known: &mut model::run::Known<'s>,
    ) -> Option<Box<Position>> {
        if !self.of.get(&task)?.is_repeated {
            return None;
        }
        let dag = state.dag();
        let expanded = dag.task(task)?;
        let own = expanded.expand.as_ref();
        // A step that is built in has keys of its own, which no element is: it sees elements as `item` alone.
        let is_component = expanded.work.component().is_some();
        let mut elements = Vec::new();
        for mapped in state.elements(task, map_index, known) {
            let is_own = own.is_some_and(|own| std::ptr::eq(own, mapped.expansion));
            let into_input = is_component && is_own;
            elements.extend(of_mapping(dag, mapped.expansion, into_input, &mapped.elements, params));
        }
        Some(Box::new(Position {
            elements,
            iteration: state.iteration(task, map_index),
        }))
    }
}

fn of_mapping(
    dag: &Dag,
    expansion: &Expansion,
    into_input: bool,
    at: &[model::run::ElementOf],
    params: &Value,
) -> Vec<Element> {
    let sources = expansion.sources.iter().zip(at);
    sources
        .map(|(source, of)| {
            let index = of.index as usize;
            let of_value = |value: Option<&Value>| ElementAt::Value {
                value: value
                    .and_then(|value| split(&value.to_string(), &[]).ok())
                    .and_then(|elements| elements.into_iter().nth(index))
                    .unwrap_or_else(|| "null".to_owned()),
            };
            let id = |task: TaskIndex| dag.task(task).map(|task| task.id.clone());
            let element = match &source.values {
                MapValues::Literal { value } => of_value(Some(value)),
                MapValues::Param { path, .. } => of_value(model::template::follow_value(params, path)),
                MapValues::Xcom { task, key, path, .. } => match (id(*task), of.instance) {
                    (Some(task), Some(map_index)) => ElementAt::Whole {
                        task,
                        key: key.clone(),
                        path: path.clone(),
                        map_index,
                    },
                    (Some(task), None) => ElementAt::Within {
                        task,
                        key: key.clone(),
                        path: path.clone(),
                        index: of.index,
                    },
                    (None, _) => of_value(None),
                },
            };
            Element {
                name: source.name.clone(),
                into_input,
                at: element,
            }
        })
        .collect()
}
