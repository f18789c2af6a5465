//! The input of a try: its templates are rendered here, just before the guest is instantiated, with the XComs that they
//! name, and the result is checked against the task's input schema.

use std::collections::HashMap;
use std::sync::Arc;

use model::json;
use model::template::{InputTemplate, TemplateContext, XcomInput, XcomRef};
use model::{BlobRef, TaskId};
use ports::executor::TryRequest;
use ports::payload::{Pulled, XcomBackend, XcomError};
use serde_json::Value;

use crate::cache::Entry;
use crate::outcome::Death;

/// Steps of the template engine for one string.
const TEMPLATE_FUEL: u64 = 200_000;
/// The largest rendered input, in bytes of JSON text.
const MAX_INPUT_BYTES: usize = 16 << 20;

/// What a guest is called with.
pub(super) struct Input {
    /// JSON text.
    pub(super) text: String,
    /// The same, read.
    pub(super) value: Value,
    /// What it refers to, and what the XComs refer to that went into it.
    pub(super) blobs: Vec<BlobRef>,
}

/// Renders and checks.
pub(super) async fn prepare(request: &TryRequest, xcoms: &dyn XcomBackend, entry: &Entry) -> Result<Input, Death> {
    let input = render(request, xcoms).await?;
    let problems = entry.input.validate(&input.value);
    if !problems.is_empty() {
        return Err(Death::Input(format!(
            "the input does not match the schema of task `{}`: {}",
            request.task.work.operator_name(),
            problems.join("; ")
        )));
    }
    Ok(input)
}

/// Renders.
pub(super) async fn render(request: &TryRequest, xcoms: &dyn XcomBackend) -> Result<Input, Death> {
    let template = InputTemplate::parse(&request.task.input).map_err(|errors| {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Death::Input(format!("the input's templates are not valid: {}", texts.join("; ")))
    })?;
    let mut blobs = Vec::new();
    let mut values = HashMap::with_capacity(template.xcom_refs().len());
    for reference in template.xcom_refs() {
        if let Some(value) = pull(request, xcoms, reference, &mut blobs).await? {
            values.insert(reference.clone(), value);
        }
    }
    let run = &request.run;
    let context = TemplateContext {
        dag_id: run.dag_id.as_str(),
        run_id: run.run_id.as_str(),
        task_id: request.task.task_id.as_str(),
        map_index: request.id.map_index().0,
        try_number: request.id.try_number.0,
        logical_date: run.logical_date,
        data_interval_start: run.data_interval_start,
        data_interval_end: run.data_interval_end,
        params: &run.params,
        conf: &run.conf,
        xcoms: &values,
    };
    let text = template
        .render(&context, TEMPLATE_FUEL, MAX_INPUT_BYTES)
        .map_err(|error| Death::Input(error.to_string()))?;
    let found = json::check(&text, u64::MAX)
        .map_err(|error| Death::Input(format!("the rendered input is refused: {error}")))?;
    blobs.extend(found);
    let value: Value =
        serde_json::from_str(&text).map_err(|error| Death::Input(format!("the rendered input is refused: {error}")))?;
    Ok(Input { text, value, blobs })
}

async fn pull(
    request: &TryRequest,
    xcoms: &dyn XcomBackend,
    reference: &XcomRef,
    blobs: &mut Vec<BlobRef>,
) -> Result<Option<XcomInput>, Death> {
    let task = TaskId::new(&reference.task).map_err(|error| Death::Input(error.to_string()))?;
    match xcoms.pull(request.id, &task, &reference.key, None).await {
        Ok(Pulled::Missing) => Ok(None),
        Ok(Pulled::One(value)) => {
            blobs.extend(value.blobs);
            Ok(Some(XcomInput::One(value.value)))
        }
        Ok(Pulled::Mapped(values)) => {
            let mut texts: Vec<Arc<str>> = Vec::with_capacity(values.len());
            for (_, value) in values {
                blobs.extend(value.blobs);
                texts.push(value.value);
            }
            Ok(Some(XcomInput::Mapped(texts)))
        }
        Err(error @ (XcomError::NotUpstream(_) | XcomError::Stale)) => Err(Death::Input(error.to_string())),
        Err(XcomError::Backend(source)) => Err(Death::Load(format!("cannot read the XComs of the input: {source}"))),
    }
}
