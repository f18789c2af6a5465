//! Finds the component's tasks, describes them and runs one of them.

use serde_json::{Value, json};

use crate::Failure;
use crate::answer::Answer;
use crate::schema::TaskInput;

/// One task, as `#[task]` registers it.
#[derive(Debug)]
pub struct TaskEntry {
    /// Its name.
    pub name: &'static str,
    /// Its doc comment.
    pub doc: &'static str,
    /// JSON Schema of its input.
    pub input: fn() -> Value,
    /// JSON Schema of its return value.
    pub output: fn() -> Value,
    /// Its labels, if it is a branch.
    pub labels: fn() -> Option<&'static [&'static str]>,
    /// Runs it on JSON text.
    pub run: fn(&str) -> Result<Answer, Failure>,
}

inventory::collect!(TaskEntry);

/// All tasks by name: the order in which they register themselves is the linker's.
fn tasks() -> Vec<&'static TaskEntry> {
    let mut tasks: Vec<&TaskEntry> = inventory::iter::<TaskEntry>.into_iter().collect();
    tasks.sort_by_key(|task| task.name);
    tasks
}

/// The document that the host reads when the component is uploaded.
pub(crate) fn describe() -> Value {
    let tasks = tasks();
    for (task, next) in tasks.iter().zip(tasks.iter().skip(1)) {
        // The upload is refused with this text.
        assert!(
            task.name != next.name,
            "two tasks of this component have the name `{}`",
            task.name
        );
    }
    let tasks: Vec<Value> = tasks
        .iter()
        .map(|task| {
            json!({
                "name": task.name,
                "doc": task.doc,
                "input": (task.input)(),
                "output": (task.output)(),
                "needs": [],
                "labels": (task.labels)(),
            })
        })
        .collect();
    json!({
        "format": 1,
        "sdk": concat!("airtight-sdk ", env!("CARGO_PKG_VERSION")),
        "tasks": tasks,
    })
}

/// Runs a task by name.
pub(crate) fn run(name: &str, input: &str) -> Result<Answer, Failure> {
    match inventory::iter::<TaskEntry>.into_iter().find(|task| task.name == name) {
        Some(task) => (task.run)(input),
        None => {
            let known: Vec<&str> = tasks().iter().map(|task| task.name).collect();
            Err(Failure::fatal(format!(
                "this component has no task `{name}`; it has: {}",
                known.join(", ")
            ))
            .code("unknown_task"))
        }
    }
}

/// The input as the task's type. It would not fit in the next try either, so the failure is fatal.
pub fn parse_input<T: TaskInput>(input: &str) -> Result<T, Failure> {
    let mut deserializer = serde_json::Deserializer::from_str(input);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." {
            "the input".to_owned()
        } else {
            format!("the input at `{path}`")
        };
        Failure::fatal(format!("{place} does not fit: {}", error.inner()))
            .code("input_invalid")
            .details(json!({ "path": path }))
    })
}
