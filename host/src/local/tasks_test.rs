//! `airtight tasks test`: one task of one component. Its log goes to standard error, its return value to standard output.

use std::path::PathBuf;
use std::sync::Arc;

use blobs::FileBlobStore;
use clap::Args;
use indexmap::IndexMap;
use model::dag::{DEFAULT_POOL, DagParts, Queueing, RetryPolicy, Task, TaskKind, TaskRole};
use model::template::RETURN_VALUE;
use model::{Dag, DagId, Digest, Limits, TaskId, TaskInstanceState, Timestamp, TriggerRule, Work};
use ports::component::Descriptor;
use ports::deploy::CheckedManifest;
use ports::executor::TryId;
use ports::log::{LogLine, LogSink};
use serde_json::{Value, json};

use super::report;
use super::session::{RunRequest, Session};
use super::workshop::Workshop;
use crate::cli::json_argument;
use crate::failure::{Exit, Failure, OrFail, Result};
use crate::ui::escape;
use crate::ui::output::Output;
use crate::ui::run_view::log_line;
use crate::ui::term::{self, Paint};

/// Arguments of `tasks test`.
#[derive(Debug, Args)]
pub(crate) struct TaskTestArgs {
    /// The `.wasm` file
    file: PathBuf,
    /// The task [default: the only one of the component]
    task: Option<String>,
    /// Its input: JSON, or @FILE
    #[arg(long, short, default_value = "{}")]
    input: String,
    /// The logical date that the task sees, RFC 3339
    #[arg(long, value_name = "TIME")]
    logical_date: Option<Timestamp>,
}

/// Runs the task; a try that fails is a failure.
pub(crate) async fn tasks_test(output: Output, args: TaskTestArgs) -> Result<()> {
    let input = json_argument("--input", &args.input)?;
    let workshop = Workshop::open()?;
    let (digest, described) = workshop.describe(&args.file).await?;
    let shown = args.file.display();
    let inspected = described.map_err(|refusal| {
        Failure::new(
            Exit::Invalid,
            format!("`{shown}` cannot be used: {} [{}]", refusal.message, refusal.code),
        )
    })?;
    let entry = choose(&inspected.descriptor, args.task.as_deref(), &shown.to_string())?;
    let temporary = tempfile::tempdir().or_fail(Exit::Broken, || "cannot create a temporary directory".to_owned())?;
    let blobs = FileBlobStore::open(temporary.path())
        .or_fail(Exit::Broken, || "cannot open the temporary directory".to_owned())?;
    let session = Session::start(&workshop, blobs, Arc::new(Console)).await?;
    let request = RunRequest {
        checked: one_task(&entry, digest, &input)?,
        others: Vec::new(),
        conf: json!({}),
        logical_date: args.logical_date,
    };
    let ended = tokio::select! {
        ended = session.run(request, None) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Interrupted, "stopped before the task had ended")),
    };
    session.stop().await;
    let finished = ended?;
    let value = report::value(&finished);
    if output != Output::Table {
        output.value(&value);
    } else {
        for (_, _, key, xcom) in &finished.xcoms {
            // As it was published: numbers keep all their digits.
            if key == RETURN_VALUE {
                output.json_text(&xcom.value);
            } else {
                term::errln(&format!("xcom {} = {}", escape::line(key), escape::line(&xcom.value)));
            }
        }
    }
    let Some(ti) = finished.task_instances.first() else {
        return Err(Failure::new(Exit::Broken, "the run has no task instance"));
    };
    let line = report::line(ti);
    term::errln(&line.render(0, Paint::stderr()));
    match ti.state {
        TaskInstanceState::Success | TaskInstanceState::Skipped => Ok(()),
        _ => Err(Failure::said(Exit::Failed)),
    }
}

fn choose(descriptor: &Descriptor, wanted: Option<&str>, file: &str) -> Result<String> {
    let names: Vec<_> = descriptor.tasks.iter().map(|task| task.name.as_str()).collect();
    let all = || format!("it has {}", names.join(", "));
    match (wanted, names.as_slice()) {
        (Some(wanted), names) if names.contains(&wanted) => Ok(wanted.to_owned()),
        (Some(wanted), _) => Err(Failure::new(Exit::Invalid, format!("`{file}` has no task `{wanted}`")).hint(all())),
        (None, [only]) => Ok((*only).to_owned()),
        (None, []) => Err(Failure::new(Exit::Invalid, format!("`{file}` has no tasks"))),
        (None, _) => Err(Failure::new(Exit::Invalid, format!("`{file}` has several tasks; name one")).hint(all())),
    }
}

/// A DAG of one task.
fn one_task(entry: &str, digest: Digest, input: &Value) -> Result<CheckedManifest> {
    let id = |text: &str| TaskId::new(text).or_else(|_| TaskId::new("task"));
    let task = Task {
        id: id(entry).or_fail(Exit::Invalid, || format!("`{entry}` cannot be the id of a task"))?,
        work: Work::of_component(digest.to_string(), digest, entry),
        doc_md: None,
        input: literal(input),
        trigger_rule: TriggerRule::AllSuccess,
        upstream: Vec::new(),
        downstream: Vec::new(),
        group: None,
        expand: None,
        map_index_template: None,
        when: None,
        measures: Vec::new(),
        kind: TaskKind::Plain,
        role: TaskRole::Work,
        past: model::past::Past::Ignored,
        retry: RetryPolicy::default(),
        sensor: None,
        limits: Limits::default(),
        rerun_on_loss: false,
        max_infra_retries: 0,
        pool: DEFAULT_POOL.to_owned(),
        pool_slots: 1,
        priority_weight: 1,
        queueing: Queueing::default(),
        callbacks: Vec::new(),
    };
    let dag = Dag::from(DagParts {
        id: DagId::new("tasks_test").or_fail(Exit::Broken, || "cannot name the DAG".to_owned())?,
        description: None,
        doc_md: None,
        owner: "local".to_owned(),
        tags: Vec::new(),
        params: IndexMap::new(),
        strict_params: false,
        max_active_runs: 1,
        max_active_tasks: 1,
        dagrun_timeout: None,
        callbacks: Vec::new(),
        max_consecutive_failed_dag_runs: 0,
        groups: Vec::new(),
        tasks: vec![task],
    });
    Ok(CheckedManifest {
        digest,
        source: "".into(),
        dag: Arc::new(dag),
        paused: Some(false),
        diagnostics: Vec::new(),
    })
}

/// The input as it is: text that looks like a template is written as a template that yields it.
fn literal(value: &Value) -> Value {
    match value {
        Value::String(text) if ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark)) => {
            Value::String(format!("{{{{ {} }}}}", Value::String(text.clone())))
        }
        Value::Array(items) => items.iter().map(literal).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| (key.clone(), literal(value)))
            .collect(),
        other => other.clone(),
    }
}

/// Shows log lines as they come.
struct Console;

impl LogSink for Console {
    fn open(&self, _: TryId) {}

    fn append(&self, _: TryId, lines: Vec<LogLine>) {
        let paint = Paint::stderr();
        for line in lines {
            term::errln(&log_line(&json!(line), paint));
        }
    }

    fn close(&self, _: TryId) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_never_taken_for_a_template() {
        let input = json!({"a": "plain", "b": ["{{ params.x }}", 1], "c": {"d": "{% raw %}"}});
        assert_eq!(
            literal(&input),
            json!({"a": "plain", "b": ["{{ \"{{ params.x }}\" }}", 1], "c": {"d": "{{ \"{% raw %}\" }}"}})
        );
    }
}
