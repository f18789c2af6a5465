//! `load_context` and `save_context`: how the context gets from one stage's DAG to the next one's.

use airtight_sdk::prelude::*;
use radio_domain::Context;

/// Raised when what is in the file changes its meaning.
const FORMAT: u32 = 1;

/// The file.
#[data]
struct Saved {
    format: u32,
    /// The DAG and the run that saved it.
    saved_by: String,
    context: Context,
}

#[data]
struct Save {
    context: Context,
}

#[data]
struct SavedContext {
    /// The context as JSON, to be handed to the next stage's DAG.
    context: Blob,
    /// The stages scored so far.
    stages: Vec<String>,
}

/// Saves the context as a blob.
#[task]
fn save_context(input: Save) -> Result<SavedContext> {
    let stages = input.context.qa.iter().map(|entry| entry.stage.clone()).collect();
    let saved = Saved {
        format: FORMAT,
        saved_by: format!("{}/{}", context::dag_id(), context::run_id()),
        context: input.context,
    };
    Ok(SavedContext {
        context: Blob::from_json(&saved)?,
        stages,
    })
}

#[data]
#[derive(Default)]
#[serde(default)]
struct Load {
    /// What `save_context` saved; none for the first stage.
    context: Option<Blob>,
}

/// Loads the context that an earlier stage saved. Without one it begins an empty context.
#[task]
fn load_context(input: Load) -> Result<Context> {
    let Some(blob) = input.context else {
        info!("no stage ran before");
        return Ok(Context::default());
    };
    let unreadable = |error| Failure::fatal(format!("cannot read the context: {error}")).code("not_a_context");
    let text = blob.text()?;
    let saved: Saved = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    if saved.format != FORMAT {
        return Err(unreadable(format!("its format is {}, not {FORMAT}", saved.format)));
    }
    info!(
        saved_by = saved.saved_by,
        stages = saved.context.qa.len(),
        "loaded the context"
    );
    Ok(saved.context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded() {
        let mut context = load_context(Load::default()).unwrap();
        context.score("calibration", 0.5, vec!["too noisy".to_owned()]);
        let saved = save_context(Save {
            context: context.clone(),
        })
        .unwrap();
        assert_eq!(saved.stages, ["calibration"]);
        let loaded = load_context(Load {
            context: Some(saved.context),
        });
        assert_eq!(loaded.unwrap(), context);
    }

    #[test]
    fn another_format_is_refused() {
        for text in ["{}", r#"{"format": 2, "saved_by": "x", "context": {}}"#, "\u{7f}"] {
            let blob = Blob::from_bytes(text, None).unwrap();
            let failure = load_context(Load { context: Some(blob) }).unwrap_err();
            assert_eq!((failure.get_code(), failure.is_fatal()), (Some("not_a_context"), true));
        }
    }
}
