//! What is said below a run beside its task instances: why it does not go on, and what its success hides.

use serde_json::Value;

use super::common::api;
use crate::client::Client;
use crate::failure::Result;
use crate::ui::escape;
use crate::ui::run_view::name_of;
use crate::ui::term::{self, Paint};

/// Of so many task instances it is asked why they wait.
const MOST: usize = 5;

/// Warns of failures that the success of a run hides. The run is one of the API, or of `dags test`.
pub(crate) fn hidden(run: &Value) {
    let text = |value: &Value, key: &str| -> String {
        let text = value.get(key).and_then(Value::as_str);
        text.map(|text| escape::line(text).into_owned()).unwrap_or_default()
    };
    for failure in run
        .get("hidden_failures")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        term::errln(&format!(
            "{} {} failed, and the run is a success: {}\n  → {}",
            Paint::stderr().yellow("!"),
            text(failure, "task_id"),
            text(failure, "reason"),
            text(failure, "advice"),
        ));
    }
}

/// Tells what a run waits for that has no slot, and what task instances of a running one wait for that could go on: slots of any kind,
/// and the run before.
pub(super) async fn waits(client: &Client, dag_id: &str, run_id: &str, run: &Value, instances: &[Value]) -> Result<()> {
    let asks = Asks { client, dag_id, run_id };
    match text(run, "state").as_deref() {
        Some("queued") => {
            let Some(first) = instances.first() else { return Ok(()) };
            for (name, reason) in asks.dependencies(first).await? {
                if matches!(name.as_str(), "Dagrun Running" | "Dag Not Paused") {
                    say("the run", &reason);
                }
            }
            Ok(())
        }
        Some("running") => asks.of_running(run, instances).await,
        _ => Ok(()),
    }
}

struct Asks<'a> {
    client: &'a Client,
    dag_id: &'a str,
    run_id: &'a str,
}

impl Asks<'_> {
    async fn of_running(&self, run: &Value, instances: &[Value]) -> Result<()> {
        let is_scheduled = |instance: &&Value| text(instance, "state").as_deref() == Some("scheduled");
        let may_look_back = |instance: &&Value| {
            let state = text(instance, "state");
            matches!(state.as_deref(), None | Some("up_for_retry" | "up_for_reschedule"))
        };
        let dated = run.get("logical_date").is_some_and(|date| !date.is_null());
        // Only DAGs whose tasks look back are asked about the past.
        let looking_back = if dated && instances.iter().any(|one| may_look_back(&one)) {
            self.looking_back().await?
        } else {
            Vec::new()
        };
        let looks_back = |instance: &&Value| {
            may_look_back(instance) && text(instance, "task_id").is_some_and(|id| looking_back.contains(&id))
        };
        let past = instances.iter().filter(looks_back);
        let of_kinds = [
            (past.take(MOST).collect::<Vec<_>>(), &["Previous Dagrun State"][..]),
            (
                instances.iter().filter(is_scheduled).take(MOST).collect(),
                &[
                    "Pool Slots Available",
                    "Task Instance Slots Available",
                    "Task Concurrency",
                    "Parallelism",
                    "Dag Not Paused",
                ][..],
            ),
            (
                if self.has_queued_children().await? {
                    let deferred = |instance: &&Value| text(instance, "state").as_deref() == Some("deferred");
                    instances.iter().filter(deferred).take(MOST).collect()
                } else {
                    Vec::new()
                },
                &["Triggered Dagrun"][..],
            ),
        ];
        for (waiting, names) in of_kinds {
            for instance in waiting {
                for (name, reason) in self.dependencies(instance).await? {
                    if names.contains(&name.as_str()) {
                        say(&name_of(instance), &reason);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a run that it triggered has not started.
    async fn has_queued_children(&self) -> Result<bool> {
        let path = api(&["dags", self.dag_id, "dagRuns", self.run_id, "children"]);
        let query = [("limit", "500".to_owned())];
        let answer = self.client.get(&path, &query).await?;
        let mut children = answer.get("dag_runs").and_then(Value::as_array).into_iter().flatten();
        Ok(children.any(|child| text(child, "state").as_deref() == Some("queued")))
    }

    /// The tasks of the DAG that look back at the run before.
    async fn looking_back(&self) -> Result<Vec<String>> {
        let tasks = self.client.get(&api(&["dags", self.dag_id, "tasks"]), &[]).await?;
        let tasks = tasks.get("tasks").and_then(Value::as_array).into_iter().flatten();
        Ok(tasks
            .filter(|task| task.get("depends_on_past").and_then(Value::as_bool) == Some(true))
            .filter_map(|task| text(task, "task_id"))
            .collect())
    }

    /// Why a task instance does not run yet: names and reasons.
    async fn dependencies(&self, instance: &Value) -> Result<Vec<(String, String)>> {
        let task_id = text(instance, "task_id").unwrap_or_default();
        let index = instance.get("map_index").and_then(Value::as_i64).unwrap_or(-1);
        let index = index.to_string();
        let mut path = api(&["dags", self.dag_id, "dagRuns", self.run_id, "taskInstances", &task_id]);
        if index != "-1" {
            path.push(&index);
        }
        path.push("dependencies");
        let answer = self.client.get(&path, &[]).await?;
        let dependencies = answer.get("dependencies").and_then(Value::as_array);
        let found = dependencies.into_iter().flatten();
        Ok(found
            .filter_map(|of| Some((text(of, "name")?, text(of, "reason")?)))
            .collect())
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn say(who: &str, reason: &str) {
    term::errln(&format!(
        "{} {} waits: {}",
        Paint::stderr().yellow("!"),
        escape::line(who),
        escape::line(reason)
    ));
}

/// Says that a DAG is paused because its runs fail.
pub(super) async fn paused(client: &Client, dag_id: &str) -> Result<()> {
    let dag = client.get(&api(&["dags", dag_id]), &[]).await?;
    if let Some(reason) = dag.get("paused_reason").and_then(Value::as_str) {
        let dag_id = escape::line(dag_id);
        term::errln(&format!(
            "{} {dag_id} is paused: {}; `airtight dags unpause {dag_id}` lets its runs start again",
            Paint::stderr().yellow("!"),
            escape::line(reason)
        ));
    }
    Ok(())
}
