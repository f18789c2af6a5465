//! What a local run came to: tables, XComs, the logs of what failed; or all of it as JSON.

use model::callback::CallbackState;
use model::json::read_given;
use model::{MapIndex, TaskId, TaskInstanceState};
use ports::callback::CallbackRow;
use ports::log::{LogKey, LogLine, LogReader};
use ports::query::TiRow;
use serde_json::{Value, json};

use super::session::Finished;
use crate::cli::{CALLBACKS, run_remarks, with_callback_columns};
use crate::ui::output::{Column, Output, Show, table};
use crate::ui::run_view::{TaskLine, log_line, with_names};
use crate::ui::term::{self, Paint};
use crate::ui::{escape, format, mapped};

/// Log lines of a failed task that are shown; the last ones.
const LOG_TAIL: usize = 50;

/// Logs of failed task instances that are shown.
const MAX_LOGS: usize = 20;
/// XComs of the instances of one mapped task that are shown.
const MAX_XCOMS: usize = 10;

/// `task`, or `task[3]` where it is mapped.
pub(crate) fn name(task_id: &TaskId, map_index: MapIndex) -> String {
    instance_name(task_id.as_str(), map_index)
}

/// The same of a name.
pub(crate) fn instance_name(task: &str, map_index: MapIndex) -> String {
    if map_index == MapIndex::UNMAPPED {
        task.to_owned()
    } else {
        format!("{task}[{}]", map_index.0)
    }
}

/// A task instance as a line of the live view.
pub(crate) fn line(ti: &TiRow) -> TaskLine {
    TaskLine {
        name: name(&ti.task_id, ti.key.map_index),
        of_many: (ti.key.map_index.0 >= 0).then(|| ti.task_id.to_string()),
        state: if ti.state == TaskInstanceState::NoStatus {
            String::new()
        } else {
            ti.state.to_string()
        },
        try_number: ti.try_number.0,
        duration: ti.start_date.zip(ti.end_date).map(|(start, end)| end.since(start)),
        cause: ti.cause.map(|cause| cause.to_string()).unwrap_or_default(),
        note: ti.message.clone().unwrap_or_default(),
    }
}

/// The whole result as JSON.
pub(crate) fn value(finished: &Finished) -> Value {
    let task_instances: Vec<_> = finished
        .task_instances
        .iter()
        .map(|ti| {
            json!({
                "task_id": ti.task_id,
                "map_index": ti.key.map_index,
                "rendered_map_index": ti.rendered_map_index,
                "state": (ti.state != TaskInstanceState::NoStatus).then_some(ti.state),
                "try_number": ti.try_number,
                "start_date": ti.start_date,
                "end_date": ti.end_date,
                "duration": ti.start_date.zip(ti.end_date).map(|(start, end)| end.since(start).as_secs_f64()),
                "cause": ti.cause,
                "message": ti.message,
                "code": ti.code,
                "details": ti.details.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok()),
                "peak_memory_bytes": ti.usage.map(|usage| usage.peak_memory_bytes),
                "cpu_seconds": ti.usage.map(|usage| usage.cpu.as_secs_f64()),
            })
        })
        .collect();
    let xcoms: Vec<_> = finished
        .xcoms
        .iter()
        .map(|(task_id, map_index, key, xcom)| {
            let value: Value = serde_json::from_str(&xcom.value).unwrap_or(Value::Null);
            json!({"task_id": task_id, "map_index": map_index, "key": key, "value": value})
        })
        .collect();
    json!({
        "dag_id": finished.run.dag_id,
        "dag_run_id": finished.run.run_id,
        "state": finished.run.state,
        "start_date": finished.run.start_date,
        "end_date": finished.run.end_date,
        "hidden_failures": finished.run.hidden_failures,
        "task_instances": task_instances,
        "xcoms": xcoms,
        "callbacks": finished.callbacks.iter().map(callback).collect::<Vec<_>>(),
    })
}

fn callback(callback: &CallbackRow) -> Value {
    json!({
        "callback_id": callback.id,
        "task_id": callback.task_id,
        "map_index": callback.map_index,
        "try_number": callback.try_number.map(|number| number.0),
        "event": callback.event,
        "kind": callback.kind,
        "name": callback.name,
        "level": callback.level,
        "state": callback.state,
        "attempt": callback.attempt,
        "cause": callback.cause,
        "code": callback.code,
        "message": callback.message,
        "text": callback.text,
    })
}

/// Prints the result, with the logs of what failed, or of all tasks.
pub(crate) async fn print(output: Output, finished: &Finished, logs: &dyn LogReader, all_logs: bool) {
    let value = value(finished);
    if output != Output::Table {
        output.value(&value);
        return;
    }
    let paint = Paint::stdout();
    let plain = |key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let rows = |key: &str| with_names(plain(key));
    let columns: &[Column] = &[
        ("task", "/task_id", Show::Text),
        ("state", "/state", Show::State),
        ("try", "/try_number", Show::Text),
        ("duration", "/duration", Show::Seconds),
        ("memory", "/peak_memory_bytes", Show::Bytes),
        ("cause", "/cause", Show::Text),
        ("message", "/message", Show::Line),
    ];
    term::outln(&table(&mapped::collapse(plain("task_instances")), columns, paint));
    if !finished.xcoms.is_empty() {
        let columns: &[Column] = &[
            ("task", "/name", Show::Text),
            ("xcom", "/key", Show::Text),
            ("value", "/shown", Show::Line),
        ];
        let mut shown = rows("xcoms");
        for (row, (.., xcom)) in shown.iter_mut().zip(&finished.xcoms) {
            // As it was published where a tree would not hold all its digits.
            let text = read_given(&xcom.value).map_or_else(|_| xcom.value.to_string(), |value| value.to_string());
            row["shown"] = text.into();
        }
        term::outln(&format!("\n{}", table(&xcoms_worth_showing(shown), columns, paint)));
    }
    if !finished.callbacks.is_empty() {
        let callbacks = value.get("callbacks").and_then(Value::as_array).cloned();
        let rows = with_callback_columns(callbacks.unwrap_or_default());
        let columns = CALLBACKS.get(1..).unwrap_or(CALLBACKS);
        term::outln(&format!("\n{}", table(&rows, columns, paint)));
    }
    let worth_it = |ti: &&TiRow| match ti.state {
        TaskInstanceState::Failed => true,
        // A task that never ran has no log.
        _ => all_logs && ti.start_date.is_some(),
    };
    let mut left = finished.task_instances.iter().filter(worth_it);
    for ti in left.by_ref().take(MAX_LOGS) {
        print_log(ti, logs, paint).await;
    }
    let left = left.count();
    if left > 0 {
        term::outln(&format!("\n{}", paint.dim(&format!("{left} more logs are not shown"))));
    }
    print_callback_logs(finished, logs, paint).await;
    let took = finished
        .run
        .start_date
        .zip(finished.run.end_date)
        .map(|(start, end)| end.since(start));
    let took = took
        .map(|took| format!(" after {}", format::duration(took)))
        .unwrap_or_default();
    let state = finished.run.state.to_string();
    term::outln(&format!(
        "\n{} {}{took}",
        escape::line(finished.run.dag_id.as_str()),
        paint.state(&state)
    ));
    run_remarks::hidden(&value);
}

/// The XComs, by the names of their task instances; the first ones of a task with many.
fn xcoms_worth_showing(xcoms: Vec<Value>) -> Vec<Value> {
    let mut shown = Vec::new();
    for of_task in xcoms.chunk_by(|left, right| left.get("task_id") == right.get("task_id")) {
        shown.extend(mapped::named(of_task.iter().take(MAX_XCOMS).cloned().collect()));
        if let Some(more) = of_task.len().checked_sub(MAX_XCOMS).filter(|more| *more > 0) {
            let task = of_task.first().and_then(|xcom| xcom.get("task_id")?.as_str());
            let name = format!("{}[…]", task.unwrap_or_default());
            shown.push(json!({"task_id": name, "key": format!("{more} more")}));
        }
    }
    shown
}

/// The logs of callbacks that failed.
async fn print_callback_logs(finished: &Finished, logs: &dyn LogReader, paint: Paint) {
    let failed = finished.callbacks.iter();
    let failed = failed.filter(|callback| callback.state == CallbackState::Failed);
    for callback in failed.take(MAX_LOGS) {
        let of = match &callback.task_id {
            Some(task_id) => format!(" of {}", name(task_id, callback.map_index)),
            None => String::new(),
        };
        let lines = tail(LogKey::of_callback(callback.run_uuid, callback.id), logs).await;
        let title = format!("log of callback {}{of}", callback.event);
        print_lines(&title, lines, paint);
    }
}

async fn print_log(ti: &TiRow, logs: &dyn LogReader, paint: Paint) {
    let key = LogKey {
        run_uuid: ti.run_uuid,
        task: ti.key.task,
        map_index: ti.key.map_index,
        try_number: ti.try_number,
        callback: None,
    };
    let title = format!(
        "log of {}, try {}",
        name(&ti.task_id, ti.key.map_index),
        ti.try_number.0
    );
    let lines = tail(key, logs).await;
    if !lines.is_empty() || ti.state == TaskInstanceState::Failed {
        print_lines(&title, lines, paint);
    }
    if let Some(details) = ti
        .details
        .as_deref()
        .and_then(|text| serde_json::from_str::<Value>(text).ok())
    {
        term::outln(&format!("  {}", paint.dim("details")));
        let text = serde_json::to_string_pretty(&details).unwrap_or_default();
        for line in escape::json(&text).lines() {
            term::outln(&format!("  {line}"));
        }
    }
}

async fn tail(key: LogKey, logs: &dyn LogReader) -> Vec<LogLine> {
    let mut lines = Vec::new();
    let mut from = 0;
    while let Ok(part) = logs.read(key, from, 1_000).await {
        let last = part.ended || part.lines.is_empty();
        from = part.next;
        lines.extend(part.lines);
        // Only the end is shown; a log may be long.
        let spare = lines.len().saturating_sub(LOG_TAIL);
        lines.drain(..spare);
        if last {
            break;
        }
    }
    lines
}

fn print_lines(title: &str, lines: Vec<LogLine>, paint: Paint) {
    term::outln(&format!("\n{}", paint.bold(title)));
    for line in lines {
        term::outln(&format!("  {}", log_line(&json!(line), paint)));
    }
}
