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

/// Tells which task instances of a running run wait for the run before it, and for what. Only DAGs whose tasks look back are asked.
pub(super) async fn past(client: &Client, dag_id: &str, run_id: &str, run: &Value, instances: &[Value]) -> Result<()> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let waits = |instance: &&Value| {
        let state = text(instance, "state");
        matches!(state.as_deref(), None | Some("up_for_retry" | "up_for_reschedule"))
    };
    let dated = run.get("logical_date").is_some_and(|date| !date.is_null());
    if text(run, "state").as_deref() != Some("running") || !dated || !instances.iter().any(|one| waits(&one)) {
        return Ok(());
    }
    let tasks = client.get(&api(&["dags", dag_id, "tasks"]), &[]).await?;
    let looking_back: Vec<String> = tasks
        .get("tasks")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|task| task.get("depends_on_past").and_then(Value::as_bool) == Some(true))
        .filter_map(|task| text(task, "task_id"))
        .collect();
    let looks_back = |instance: &&Value| text(instance, "task_id").is_some_and(|id| looking_back.contains(&id));
    for instance in instances.iter().filter(waits).filter(looks_back).take(MOST) {
        let task_id = text(instance, "task_id").unwrap_or_default();
        let index = instance
            .get("map_index")
            .and_then(Value::as_i64)
            .unwrap_or(-1)
            .to_string();
        let mut path = api(&["dags", dag_id, "dagRuns", run_id, "taskInstances", &task_id]);
        if index != "-1" {
            path.push(&index);
        }
        path.push("dependencies");
        let answer = client.get(&path, &[]).await?;
        let dependencies = answer.get("dependencies").and_then(Value::as_array);
        let of_past = |of: &&Value| text(of, "name").as_deref() == Some("Previous Dagrun State");
        for reason in dependencies
            .into_iter()
            .flatten()
            .filter(of_past)
            .filter_map(|of| text(of, "reason"))
        {
            term::errln(&format!(
                "{} {} waits: {}",
                Paint::stderr().yellow("!"),
                escape::line(&name_of(instance)),
                escape::line(&reason)
            ));
        }
    }
    Ok(())
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
