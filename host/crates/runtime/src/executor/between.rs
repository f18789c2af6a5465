//! Steps between DAGs: all that there is to do here is to render what they are given.

use model::json::read_given;
use model::{DagId, RunId, Timestamp};
use ports::between::{RunSelector, TriggerDagRequest};
use ports::executor::TryOutcome;
use serde_json::{Map, Value};

use super::attempt::{Attempt, Ended};
use super::input;
use crate::outcome::Death;

/// The largest `conf` of a run, in bytes of JSON text: what a request to trigger one may have.
const MAX_CONF_BYTES: usize = 1 << 20;

/// A run of another DAG is asked for.
pub(super) async fn trigger_dag(attempt: &Attempt) -> Result<Ended, Death> {
    let (text, mut input) = rendered(attempt).await?;
    // What follows holds the input as a tree, which what the tasks published need not fit in.
    read_given(&text).map_err(|error| Death::Input(format!("what is rendered cannot be passed on: {error}")))?;
    let conf = match input.remove("conf") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(conf @ Value::Object(_)) => conf,
        Some(other) => {
            return Err(Death::Input(format!(
                "the rendered `conf` must be an object, not {}",
                kind(&other)
            )));
        }
    };
    let bytes = conf.to_string().len();
    if bytes > MAX_CONF_BYTES {
        return Err(Death::Input(format!(
            "the rendered `conf` has {bytes} bytes; the limit is {MAX_CONF_BYTES}: pass blobs instead of what is in them"
        )));
    }
    let request = TriggerDagRequest {
        dag: target(attempt, &input)?,
        conf,
        run_id: run_id(&input)?,
        logical_date: logical_date(&input)?,
    };
    Ok(ended(TryOutcome::TriggerDag(Box::new(request))))
}

/// The DAG that a template chose; none where it is fixed.
fn target(attempt: &Attempt, input: &Map<String, Value>) -> Result<Option<DagId>, Death> {
    let Some(step) = attempt.request.task.work.trigger_dag() else {
        return Ok(None);
    };
    if step.dag.is_some() {
        return Ok(None);
    }
    let named = text(input, "dag")?;
    match step.target(named) {
        Some(dag) => Ok(Some(dag.clone())),
        None => {
            let allowed: Vec<&str> = step.allowed.iter().map(DagId::as_str).collect();
            let shown: String = named.unwrap_or("null").chars().take(64).collect();
            Err(Death::Input(format!(
                "the rendered `dag` is `{shown}`, which is not one of `allowed`: {}",
                allowed.join(", ")
            )))
        }
    }
}

/// A run of another DAG is waited for.
pub(super) async fn wait_for_dag(attempt: &Attempt) -> Result<Ended, Death> {
    let (_, input) = rendered(attempt).await?;
    let selector = match (run_id(&input)?, logical_date(&input)?) {
        (Some(run_id), _) => RunSelector::RunId(run_id),
        (None, Some(date)) => RunSelector::LogicalDate(date),
        (None, None) => {
            return Err(Death::Input(
                "there is no logical date to wait for; write `run_id`, or trigger the run with a logical date"
                    .to_owned(),
            ));
        }
    };
    Ok(ended(TryOutcome::WaitForDag(selector)))
}

/// The rendered input, as text and as a tree.
async fn rendered(attempt: &Attempt) -> Result<(String, Map<String, Value>), Death> {
    let input = input::render(attempt).await?;
    if let Some(name) = &input.name {
        let _ = attempt.name.set(name.clone());
    }
    let members = match input.value {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    Ok((input.text, members))
}

fn run_id(input: &Map<String, Value>) -> Result<Option<RunId>, Death> {
    text(input, "run_id")?
        .map(|text| {
            RunId::new(text).map_err(|error| Death::Input(format!("the rendered `run_id` is not valid: {error}")))
        })
        .transpose()
}

fn logical_date(input: &Map<String, Value>) -> Result<Option<Timestamp>, Death> {
    text(input, "logical_date")?
        .map(|text| {
            text.parse()
                .map_err(|error| Death::Input(format!("the rendered `logical_date` is not a time: {error}")))
        })
        .transpose()
}

fn text<'a>(input: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Death> {
    match input.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(Death::Input(format!(
            "the rendered `{name}` must be text, not {}",
            kind(other)
        ))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

const fn ended(outcome: TryOutcome) -> Ended {
    Ended {
        outcome,
        xcoms: Vec::new(),
        measured: Vec::new(),
    }
}
