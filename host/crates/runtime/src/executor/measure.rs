//! What decisions need to know of what a try published: lengths of lists that others are mapped over, and whether a loop is over.
//! Measured here, where the values are.

use std::collections::HashMap;
use std::sync::Arc;

use model::dag::Measured;
use model::template::{InputTemplate, RenderError, Segment, XcomInput, XcomRef, mapped_length};
use ports::executor::{TryRequest, XcomPush};
use serde_json::Value;

use super::attempt::Attempt;
use super::input::{MAX_INPUT_BYTES, TEMPLATE_FUEL};
use crate::outcome::Death;

/// Measures all that the task's specification asks for. What others are mapped over must be a list or an object, and not too
/// long: the producer fails, not its consumers (Airflow: `UnmappableXComTypePushed`, `UnmappableXComLengthPushed`).
pub(super) async fn all(attempt: &Attempt, xcoms: &[XcomPush]) -> Result<Vec<u32>, Death> {
    let request = &attempt.request;
    let mut measured = Vec::with_capacity(request.task.measures.len());
    for measure in &request.task.measures {
        let push = xcoms.iter().find(|push| push.key == measure.key);
        measured.push(match &measure.what {
            Measured::Present => u32::from(push.is_some()),
            Measured::Length { limit } => length(push, measure, *limit)?,
            Measured::Truth { expression } => u32::from(truth(attempt, push, expression).await?),
        });
    }
    Ok(measured)
}

fn length(push: Option<&XcomPush>, measure: &model::dag::Measure, limit: u32) -> Result<u32, Death> {
    let key = place(&measure.key, &measure.path);
    let Some(push) = push else {
        return Err(Death::Unmappable(format!(
            "other tasks are mapped over the XCom `{key}` of this one, and it published none"
        )));
    };
    let length = mapped_length(&push.value, &measure.path).map_err(|error| {
        Death::Unmappable(format!(
            "other tasks are mapped over the XCom `{key}` of this one: {error}"
        ))
    })?;
    match u32::try_from(length) {
        Ok(length) if length <= limit => Ok(length),
        _ => Err(Death::Unmappable(format!(
            "other tasks are mapped over the XCom `{key}` of this one, and it has {length} elements; at most {limit} are allowed \
             (raise `map_limit` where the mapping is declared)"
        ))),
    }
}

/// What is measured, as a template would name it: `return_value.channels`.
fn place(key: &str, path: &[Segment]) -> String {
    path.iter().fold(key.to_owned(), |place, segment| match segment {
        Segment::Key(name) => format!("{place}.{name}"),
        Segment::Index(index) => format!("{place}[{index}]"),
    })
}

/// Whether an expression over what the task itself returned counts as true.
async fn truth(attempt: &Attempt, push: Option<&XcomPush>, expression: &str) -> Result<bool, Death> {
    let refused = |why: String| Death::Contract(format!("cannot tell whether the loop is over: {why}"));
    let template = InputTemplate::parse(&Value::String(expression.to_owned()))
        .map_err(|errors| refused(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
    let mut xcoms: HashMap<XcomRef, XcomInput> = HashMap::new();
    if let Some(push) = push {
        for reference in template.xcom_refs() {
            xcoms.insert(reference.clone(), XcomInput::One(push.value.clone()));
        }
    }
    let job = Arc::new((Arc::clone(&attempt.request), template, xcoms));
    let render = |(request, template, xcoms): &(Arc<TryRequest>, InputTemplate, HashMap<XcomRef, XcomInput>)| {
        let context = super::input::context(request, &[], xcoms);
        template.render(&context, TEMPLATE_FUEL, MAX_INPUT_BYTES)
    };
    let text = attempt
        .compute
        .run(&job, render, RenderError::exhausted)
        .await
        .map_err(|error| refused(error.to_string()))?;
    Ok(!model::json::is_falsy(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_named_with_its_path() {
        let path = [Segment::Key("jobs".to_owned()), Segment::Index(2)];
        assert_eq!(place("return_value", &path), "return_value.jobs[2]");
        assert_eq!(place("rows", &[]), "rows");
    }
}
