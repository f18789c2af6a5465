//! The input of a try, checked against the task's input schema.

use model::{BlobRef, json};
use ports::executor::TryRequest;
use ports::payload::XcomBackend;

use crate::cache::Entry;
use crate::outcome::Death;

/// What a guest is called with.
pub(super) struct Input {
    /// JSON text.
    pub(super) text: String,
    /// What it refers to.
    pub(super) blobs: Vec<BlobRef>,
}

/// Checks the input. Templates are refused until the model can render them.
pub(super) async fn prepare(request: &TryRequest, _xcoms: &dyn XcomBackend, entry: &Entry) -> Result<Input, Death> {
    let text = request.task.input.to_string();
    if text.contains("{{") || text.contains("{%") {
        return Err(Death::Input("templates are not supported yet".to_owned()));
    }
    let blobs = json::check(&text, u64::MAX).map_err(|error| Death::Input(error.to_string()))?;
    let problems = entry.input.validate(&request.task.input);
    if !problems.is_empty() {
        return Err(Death::Input(format!(
            "the input does not match the schema of task `{}`: {}",
            request.task.entry,
            problems.join("; ")
        )));
    }
    Ok(Input { text, blobs })
}
