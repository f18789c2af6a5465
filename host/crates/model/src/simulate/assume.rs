//! What a simulation assumes about tasks that it does not run.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::TaskIndex;

/// What is assumed of tasks, where nothing is injected.
#[derive(Clone, Debug, PartialEq)]
pub struct Assumptions {
    /// How long a try takes.
    pub task_time: Duration,
    /// How long a try of certain tasks takes.
    pub task_times: BTreeMap<TaskIndex, Duration>,
    /// In random scenarios a try takes longer or shorter by up to this part of its time, from 0 to 1.
    pub spread: f64,
    /// How long a list is that others are mapped over, and a parameter.
    pub map_length: u32,
    /// The lengths of the lists of certain tasks.
    pub map_lengths: BTreeMap<TaskIndex, u32>,
    /// In which iteration the condition of a loop holds.
    pub iterations: u32,
    /// How often a sensor answers "not yet" before it succeeds.
    pub pokes: u32,
    /// How long a person takes to answer.
    pub answer_time: Duration,
    /// How many task instances run at a time.
    pub parallelism: u32,
    /// The slots of pools; one that is not here is without bound.
    pub pools: BTreeMap<String, i64>,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self {
            task_time: Duration::from_secs(1),
            task_times: BTreeMap::new(),
            spread: 0.5,
            map_length: 3,
            map_lengths: BTreeMap::new(),
            iterations: 2,
            pokes: 2,
            answer_time: Duration::from_secs(60),
            parallelism: 32,
            pools: BTreeMap::new(),
        }
    }
}

impl Assumptions {
    /// How long a try of a task takes.
    pub(super) fn time_of(&self, task: TaskIndex) -> Duration {
        self.task_times.get(&task).copied().unwrap_or(self.task_time)
    }

    /// How long the list of a task is.
    pub(super) fn length_of(&self, task: TaskIndex) -> u32 {
        self.map_lengths.get(&task).copied().unwrap_or(self.map_length)
    }
}
