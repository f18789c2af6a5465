//! Test tasks with `cargo test` on your own machine, without a server and without WebAssembly.
//!
//! A task is a function: call it. What it asks of the host it asks of an in-memory host that belongs to the test's thread and starts
//! empty; a [`TestHost`] fills it and reads what the task left there.
//!
//! ```
//! use airtight_sdk::prelude::*;
//! use airtight_sdk::testing::TestHost;
//!
//! /// Counts up from what `load` published.
//! #[task]
//! fn next() -> Result<u64> {
//!     let last: u64 = xcom::pull("load", "last")?.unwrap_or_default();
//!     info!(last, "counting up");
//!     Ok(last + 1)
//! }
//!
//! let host = TestHost::new().task_id("next").upstream("load", "last", 41).install();
//! assert_eq!(next()?, 42);
//! assert_eq!(host.log()[0].fields["last"], 41);
//! # Ok::<(), Failure>(())
//! ```

use serde::Serialize;
use serde_json::{Map, Value};

use crate::host::{State, with};
use crate::log::Level;
use crate::{Failure, registry};

/// What the component's `describe` answers on a server.
pub fn describe() -> Value {
    registry::describe()
}

/// Runs a task by its name on a JSON input, through the same path as on a server.
pub fn run(task: &str, input: &Value) -> Result<Ran, Failure> {
    use crate::answer::Answer;
    Ok(match registry::run(task, &input.to_string())? {
        Answer::Done(json) => Ran::Done(serde_json::from_str(&json)?),
        Answer::Skip(reason) => Ran::Skip(reason),
        Answer::Branch(labels) => Ran::Branch(labels),
        Answer::Reschedule(millis) => Ran::Reschedule(std::time::Duration::from_millis(millis)),
    })
}

/// What [`run`] saw.
#[derive(Clone, Debug, PartialEq)]
pub enum Ran {
    /// The return value.
    Done(Value),
    /// The reason.
    Skip(String),
    /// The labels chosen.
    Branch(Vec<String>),
    /// When to poke again.
    Reschedule(std::time::Duration),
}

/// One record of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRecord {
    /// How much it matters.
    pub level: Level,
    /// The text.
    pub message: String,
    /// The fields.
    pub fields: Map<String, Value>,
}

/// Builds the in-memory host of a test.
#[derive(Clone, Debug, Default)]
#[must_use = "`install` makes it the current one"]
pub struct TestHost {
    state: State,
}

impl TestHost {
    /// An empty one: DAG `test_dag`, run `test_run`, task `test_task`, first try of one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The id of the DAG.
    pub fn dag_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.state.dag_id);
        self
    }

    /// The id of the dag run.
    pub fn run_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.state.run_id);
        self
    }

    /// The id of the task in the manifest.
    pub fn task_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.state.task_id);
        self
    }

    /// Makes the task instance a mapped one.
    pub fn map_index(mut self, index: u32) -> Self {
        self.state.map_index = Some(index);
        self
    }

    /// The number of this try, and how many there are.
    pub fn try_number(mut self, number: u32, max: u32) -> Self {
        self.state.try_number = number;
        self.state.max_tries = max;
        self
    }

    /// The logical date.
    pub fn logical_date(mut self, date: &str) -> Self {
        self.state.logical_date = Some(date.to_owned());
        self
    }

    /// The data interval.
    pub fn data_interval(mut self, start: &str, end: &str) -> Self {
        self.state.data_interval = Some((start.to_owned(), end.to_owned()));
        self
    }

    /// One parameter of the run.
    pub fn param(mut self, name: &str, value: impl Serialize) -> Self {
        self.state.params.insert(name.to_owned(), to_value(value));
        self
    }

    /// One member of the run's conf.
    pub fn conf(mut self, name: &str, value: impl Serialize) -> Self {
        self.state.conf.insert(name.to_owned(), to_value(value));
        self
    }

    /// What an upstream task published. Tasks that are named nowhere are not upstream.
    pub fn upstream(mut self, task: &str, key: &str, value: impl Serialize) -> Self {
        self.state
            .upstream
            .insert((task.to_owned(), key.to_owned(), None), to_value(value));
        self
    }

    /// What one instance of a mapped upstream task published.
    pub fn upstream_mapped(mut self, task: &str, key: &str, map_index: u32, value: impl Serialize) -> Self {
        self.state
            .upstream
            .insert((task.to_owned(), key.to_owned(), Some(map_index)), to_value(value));
        self
    }

    /// What an earlier try saved.
    pub fn checkpoint(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.state.checkpoint = Some(bytes.into());
        self
    }

    /// Makes it this thread's host until the guard is dropped. Blobs written before stay readable.
    pub fn install(mut self) -> Installed {
        let before = with(|state| {
            self.state.blobs.extend(state.blobs.clone());
            std::mem::replace(state, self.state)
        });
        Installed { before: Some(before) }
    }
}

fn to_value(value: impl Serialize) -> Value {
    serde_json::to_value(value).expect("a test's own value can be written as JSON")
}

/// The host that is installed; reads what the task left there.
#[derive(Debug)]
#[must_use = "dropping it brings the host from before back"]
pub struct Installed {
    before: Option<State>,
}

impl Installed {
    /// What the task pushed under a key.
    pub fn pushed(&self, key: &str) -> Option<Value> {
        with(|state| state.pushed.get(key).cloned())
    }

    /// What the task logged.
    pub fn log(&self) -> Vec<LogRecord> {
        with(|state| state.log.clone())
    }

    /// What the task reported: fractions and notes.
    pub fn progress(&self) -> Vec<(Option<f64>, String)> {
        with(|state| state.progress.clone())
    }

    /// The bytes the task saved.
    pub fn checkpoint(&self) -> Option<Vec<u8>> {
        with(|state| state.checkpoint.clone())
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            with(|state| {
                let blobs = std::mem::take(&mut state.blobs);
                *state = before;
                state.blobs.extend(blobs);
            });
        }
    }
}
