//! Every component as a component: what it imports and exports, what it says of itself, and that its tasks run. The host behind it
//! knows WASI and nothing of ours: what is needed beyond that is a trap.

use anyhow::{Context as _, Result};
use model::manifest::{DESCRIBE_SCHEMA, Descriptor};
use model::schema::Validator;
use wasmtime::component::Val;

use crate::component::{described, load, run};

fn done(json: &str) -> Val {
    Val::Result(Ok(Some(Box::new(Val::Variant(
        "done".to_owned(),
        Some(Box::new(Val::String(json.to_owned()))),
    )))))
}

#[test]
fn every_component_imports_what_it_may_and_describes_itself() -> Result<()> {
    let published = Validator::compile(&serde_json::from_str(DESCRIBE_SCHEMA)?)?;
    for (name, path) in test_artifacts::ALL {
        let component = load(path).with_context(|| (*name).to_owned())?;
        for (import, _) in component.component_type().imports(component.engine()) {
            assert!(
                import.starts_with("wasi:") || import.starts_with("airtight:task/"),
                "{name} imports {import}"
            );
        }
        let text = described(&component).with_context(|| (*name).to_owned())?;
        let problems = published.validate(&serde_json::from_str(&text)?);
        assert!(problems.is_empty(), "{name}: {problems:?}");
        let descriptor: Descriptor = serde_json::from_str(&text)?;
        assert_eq!(descriptor.format, 1, "{name}");
        assert!(
            descriptor.sdk.is_some_and(|sdk| sdk.starts_with("airtight-sdk ")),
            "{name}"
        );
        assert!(!descriptor.tasks.is_empty(), "{name}");
        for task in descriptor.tasks {
            assert!(!task.doc.is_empty(), "{name}: task `{}` has no description", task.name);
            assert!(task.input.is_object(), "{name}: {}", task.name);
            assert!(task.output.is_object(), "{name}: {}", task.name);
        }
    }
    Ok(())
}

#[test]
fn several_tasks_of_one_component_run_by_name() -> Result<()> {
    assert_eq!(run(test_artifacts::BENCH_TASKS, "noop", "{}")?, done("null"));
    assert_eq!(
        run(test_artifacts::BENCH_TASKS, "echo", r#"{"a":[1,2.5,"x"]}"#)?,
        done(r#"{"a":[1,2.5,"x"]}"#)
    );
    assert_eq!(
        run(test_artifacts::HELLO, "shout", r#"{"text":"quiet"}"#)?,
        done(r#""QUIET""#)
    );
    Ok(())
}

#[test]
fn an_input_that_does_not_fit_is_a_fatal_failure_with_its_path() -> Result<()> {
    let Val::Result(Err(Some(failure))) = run(test_artifacts::HELLO, "greet", r#"{"name":7}"#)? else {
        anyhow::bail!("it did not fail");
    };
    let Val::Record(fields) = *failure else {
        anyhow::bail!("a failure is a record")
    };
    let field = |name: &str| {
        fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.clone())
    };
    assert_eq!(
        field("message"),
        Some(Val::String(
            "the input at `name` does not fit: invalid type: integer `7`, expected a string at line 1 column 9"
                .to_owned()
        ))
    );
    assert_eq!(field("kind"), Some(Val::Enum("fatal".to_owned())));
    assert_eq!(
        field("code"),
        Some(Val::Option(Some(Box::new(Val::String("input_invalid".to_owned())))))
    );
    Ok(())
}

#[test]
fn an_unknown_task_is_a_fatal_failure_that_names_the_known_ones() -> Result<()> {
    let answer = format!("{:?}", run(test_artifacts::HELLO, "gret", "{}")?);
    assert!(
        answer.contains("this component has no task `gret`; it has: greet, shout"),
        "{answer}"
    );
    Ok(())
}

#[test]
fn small_components_stay_small() -> Result<()> {
    for path in [test_artifacts::HELLO, test_artifacts::BENCH_TASKS] {
        let size = std::fs::metadata(path)?.len();
        assert!(size < 300_000, "{path} has {size} bytes");
    }
    Ok(())
}
