//! `when`: whether a try begins at all. It is rendered as an input is, with the XComs that it names, before anything of the task is
//! loaded, and for each mapped task instance by itself.

use model::template::{InputTemplate, RenderError};
use ports::executor::TryOutcome;
use ports::log::LogLevel;
use serde_json::Value;

use super::attempt::{Attempt, Ended};
use super::input::{Failed, Gathered, gather};
use crate::outcome::Death;

/// What the longest result that is shown has, in bytes; a truth value has five.
const MAX_RESULT_BYTES: usize = 64 << 10;
/// How much of a template or of a result people get to see, in bytes.
const MAX_SHOWN_BYTES: usize = 200;

/// The end of a try that is skipped by its `when`; nothing where it begins.
pub(super) async fn skips(attempt: &Attempt) -> Result<Option<Ended>, Death> {
    let request = &attempt.request;
    let Some(when) = &request.task.when else {
        return Ok(None);
    };
    let template = InputTemplate::parse(&Value::String(when.clone())).map_err(|errors| {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Death::Input(format!("`when` is not a valid template: {}", texts.join("; ")))
    })?;
    // The values are held until it is decided.
    let Gathered { job, held, .. } = gather(attempt, template).await.map_err(of_when)?;
    let text = attempt
        .compute
        .run(&job, |job| job.text(MAX_RESULT_BYTES), RenderError::exhausted)
        .await
        .map_err(|error| of_when(Failed::Render(error).death(&attempt.account)))?;
    match text.as_str() {
        "true" => return Ok(None),
        "false" => {}
        other => {
            return Err(Death::Input(format!(
                "`when` must render to true or false, and it rendered to {}; compare the value, as in `{{{{ x > 0 }}}}` or `{{{{ x == \"yes\" }}}}`",
                shown(other)
            )));
        }
    }
    if let Some(name) = job.named(attempt).await {
        let _ = attempt.name.set(name);
    }
    drop(held);
    let reason = format!("`when` is false: {}", shown(when));
    attempt.log.system(LogLevel::Info, &format!("skipped: {reason}"));
    Ok(Some(Ended {
        outcome: TryOutcome::Skip { reason },
        xcoms: Vec::new(),
        measured: Vec::new(),
    }))
}

/// Says what an input that cannot be had was for.
fn of_when(death: Death) -> Death {
    match death {
        Death::Input(message) => Death::Input(format!("`when`: {message}")),
        other => other,
    }
}

fn shown(text: &str) -> String {
    let start = text
        .get(..text.floor_char_boundary(MAX_SHOWN_BYTES))
        .unwrap_or_default();
    if start.len() < text.len() {
        format!("{start}…")
    } else {
        start.to_owned()
    }
}
