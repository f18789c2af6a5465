//! What the arguments say about tasks of the DAG.

use std::str::FromStr;

use model::dag::TaskKind;
use model::manifest::Pools;
use model::simulate::{Assumptions, Choice, Fault, Injection, Scenario, Which};
use model::{Dag, MapIndex, TaskIndex};

use super::SimulateArgs;
use crate::failure::{Exit, Failure, Result};

impl SimulateArgs {
    pub(super) fn assumptions(&self, dag: &Dag, pools: Pools) -> Result<Assumptions> {
        let mut assumed = Assumptions {
            iterations: self.iterations,
            parallelism: self.parallelism,
            pools,
            ..Assumptions::default()
        };
        for argument in &self.task_time {
            let (task, text) = of_task(dag, argument)?;
            let time = humantime::parse_duration(text)
                .map_err(|error| invalid(&format!("`--task-time {argument}` is no duration")).because(&error))?;
            match task {
                Some(task) => {
                    assumed.task_times.insert(task, time);
                }
                None => assumed.task_time = time,
            }
        }
        for argument in &self.map_length {
            let (task, text) = of_task(dag, argument)?;
            let length: u32 = number(text, "--map-length", argument)?;
            match task {
                Some(task) => {
                    assumed.map_lengths.insert(task, length);
                }
                None => assumed.map_length = length,
            }
        }
        for argument in &self.pool {
            let (pool, slots) = argument
                .rsplit_once('=')
                .ok_or_else(|| invalid(&format!("`--pool {argument}` says no number of slots")))?;
            let slots = number(slots, "--pool", argument)?;
            assumed.pools.insert(pool.to_owned(), slots);
        }
        Ok(assumed)
    }

    /// The scenario that is asked for, if one is.
    pub(super) fn requested(&self, dag: &Dag) -> Result<Option<Scenario>> {
        if self.fail.is_empty() && self.choose.is_empty() {
            return Ok(None);
        }
        let mut scenario = Scenario::default();
        for argument in &self.fail {
            scenario.injections.push(injection(dag, argument)?);
        }
        for argument in &self.choose {
            let (task, label) = split(argument, "--choose")?;
            let index = find(dag, task)?;
            scenario.choices.insert(index, choice(dag, index, label)?);
        }
        Ok(Some(scenario))
    }
}

fn invalid(message: &str) -> Failure {
    Failure::new(Exit::Invalid, message)
}

fn number<T: FromStr>(text: &str, option: &str, argument: &str) -> Result<T>
where
    T::Err: std::error::Error,
{
    text.parse()
        .map_err(|error| invalid(&format!("`{option} {argument}` is no number")).because(&error))
}

fn split<'a>(argument: &'a str, option: &str) -> Result<(&'a str, &'a str)> {
    argument
        .split_once('=')
        .ok_or_else(|| invalid(&format!("`{option} {argument}` is not of the form `task=…`")))
}

fn find(dag: &Dag, task: &str) -> Result<TaskIndex> {
    dag.index_of(task).ok_or_else(|| {
        let known: Vec<&str> = dag.tasks.iter().take(20).map(|task| task.id.as_str()).collect();
        invalid(&format!("there is no task `{task}`")).hint(format!("the tasks are {}", known.join(", ")))
    })
}

/// A value for one task, or for all.
fn of_task<'a>(dag: &Dag, argument: &'a str) -> Result<(Option<TaskIndex>, &'a str)> {
    match argument.split_once('=') {
        Some((task, value)) => Ok((Some(find(dag, task)?), value)),
        None => Ok((None, argument)),
    }
}

fn injection(dag: &Dag, argument: &str) -> Result<Injection> {
    let (name, word) = split(argument, "--fail")?;
    let (name, which) = match name.strip_suffix(']').and_then(|name| name.rsplit_once('[')) {
        Some((name, "*")) => (name, Which::Every),
        Some((name, index)) => (name, Which::Index(MapIndex(number(index, "--fail", argument)?))),
        None => (name, Which::First),
    };
    let task = find(dag, name)?;
    let fault = Fault::from_word(word).ok_or_else(|| {
        let known: Vec<String> = Fault::SINGLE.iter().map(|fault| fault.word()).collect();
        invalid(&format!("`{word}` is no failure"))
            .hint(format!("write {}, or a number of failed tries", known.join(", ")))
    })?;
    if dag.task(task).is_some_and(|task| !fault.suits(task)) {
        return Err(invalid(&format!("`{name}` has nothing that could end it like that"))
            .hint("a question to a person, and a run that is triggered, are skipped only by `when` or `if_exists: skip`, and time out only where there is a `timeout`"));
    }
    Ok(Injection { task, which, fault })
}

fn choice(dag: &Dag, index: TaskIndex, label: &str) -> Result<Choice> {
    let Some(task) = dag.task(index) else {
        return Err(invalid("there is no such task"));
    };
    let known: Vec<&str> = match (task.work.human(), &task.kind) {
        (Some(step), _) => step.options.iter().map(String::as_str).collect(),
        (None, TaskKind::Branch { labels }) => labels.keys().map(String::as_str).collect(),
        (None, TaskKind::ShortCircuit { .. }) => vec!["false"],
        (None, TaskKind::Plain) => Vec::new(),
    };
    if known.is_empty() {
        return Err(invalid(&format!("`{}` does not choose anything", task.id)));
    }
    if !known.contains(&label) {
        return Err(invalid(&format!("`{}` cannot choose `{label}`", task.id))
            .hint(format!("it chooses one of {}", known.join(", "))));
    }
    Ok(match (task.work.human(), &task.kind) {
        (Some(_), _) => Choice::Option(label.to_owned()),
        (None, TaskKind::Branch { .. }) => Choice::Label(label.to_owned()),
        _ => Choice::Falsy,
    })
}
