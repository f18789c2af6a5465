//! Runs tasks by name on JSON, as on a server: what goes in and comes out is checked against the schemas that the components declare, and
//! a try that fails on purpose is followed by another, which has its checkpoint.

use std::collections::BTreeMap;

use airtight_sdk::serde_json::{Value, json};
use airtight_sdk::testing::{Ran, TestHost, describe, run};

/// Tasks that no failures are simulated for.
const SPARED: &[&str] = &["load_context", "save_context", "qa_score", "report"];

/// Runs tasks as the host does.
pub(crate) struct Workflow {
    schemas: BTreeMap<String, (jsonschema::Validator, jsonschema::Validator)>,
    failures: Value,
    /// How many tries failed on purpose.
    pub(crate) failed: usize,
}

impl Workflow {
    pub(crate) fn new(failure_rate: f64) -> Self {
        let description = describe();
        let validator = |schema: &Value| jsonschema::validator_for(schema).expect("a task's schema is one");
        let schemas = description["tasks"].as_array().expect("a list of tasks").iter();
        Self {
            schemas: schemas
                .map(|task| {
                    let name = task["name"].as_str().expect("a task has a name").to_owned();
                    let output = task.get("output").unwrap_or(&Value::Bool(true));
                    (name, (validator(&task["input"]), validator(output)))
                })
                .collect(),
            failures: json!({"simulate_failures": failure_rate > 0.0, "failure_rate": failure_rate, "seed": 3}),
            failed: 0,
        }
    }

    /// Runs a task until it succeeds. `map_index` sets the instances of a mapped task apart.
    pub(crate) fn run(&mut self, task: &str, map_index: u32, mut input: Value) -> Value {
        let (takes, answers) = self.schemas.get(task).expect("the task exists");
        if let Some(input) = input.as_object_mut().filter(|_| !SPARED.contains(&task)) {
            input.insert("failures".to_owned(), self.failures.clone());
        }
        if let Some(error) = takes.iter_errors(&input).next() {
            panic!("{task} does not take its input: {error} at {}", error.instance_path());
        }
        let mut checkpoint = None;
        for try_number in 1..=50 {
            let mut host = TestHost::new()
                .task_id(task)
                .map_index(map_index)
                .try_number(try_number, 50);
            if let Some(saved) = checkpoint {
                host = host.checkpoint(saved);
            }
            let host = host.install();
            match run(task, &input) {
                Ok(Ran::Done(output)) => {
                    if let Some(error) = answers.iter_errors(&output).next() {
                        panic!(
                            "{task} does not answer what it declares: {error} at {}",
                            error.instance_path()
                        );
                    }
                    return output;
                }
                Ok(other) => panic!("{task} answered {other:?}"),
                Err(failure) => assert_eq!(failure.get_code(), Some("simulated_failure"), "{task}: {failure}"),
            }
            self.failed += 1;
            checkpoint = host.checkpoint();
        }
        panic!("{task} failed in every try");
    }

    /// The DAG `calibration`.
    pub(crate) fn calibrate(&mut self) -> Value {
        self.calibrate_with(&json!({}))
    }

    /// The same with other arguments for its task `calibrate`.
    pub(crate) fn calibrate_with(&mut self, arguments: &Value) -> Value {
        let context = self.run("load_context", 0, json!({}));
        let loaded = self.run("load_cube", 0, json!({}));
        let channels_and_psf = json!({"channels": loaded["channels"], "psf": loaded["psf"]});
        let inspection = self.run("inspect", 0, channels_and_psf.clone());
        let mut input = channels_and_psf;
        input["inspection"] = inspection;
        input["context"] = context;
        for (name, value) in arguments.as_object().into_iter().flatten() {
            input[name] = value.clone();
        }
        self.run("calibrate", 0, input)
    }

    /// The DAG `imaging_solver`.
    pub(crate) fn solve(
        &mut self,
        channels: &Value,
        psf: &Value,
        context: &Value,
        settings: &Value,
        stage: &str,
    ) -> Value {
        let channels = channels.as_array().expect("a list of channels");
        let images: Vec<Value> = (0..)
            .zip(channels)
            .map(|(map_index, channel)| self.solve_channel(map_index, channel, psf, settings))
            .collect();
        self.run(
            "assemble",
            0,
            json!({"images": images, "psf": psf, "context": context, "stage": stage}),
        )
    }

    /// One item of its mapped group: the loop until the channel is finished, and what comes after it.
    pub(crate) fn solve_channel(&mut self, map_index: u32, channel: &Value, psf: &Value, settings: &Value) -> Value {
        let mut state = Value::Null;
        for _ in 0..50 {
            let input = json!({"channel": channel, "psf": psf, "previous": state, "settings": settings});
            state = self.run("clean_step", map_index, input);
            if state["finished"] == true {
                break;
            }
        }
        self.run(
            "restore",
            map_index,
            json!({"channel": channel, "psf": psf, "state": state}),
        )
    }

    pub(crate) fn find(&mut self, assembled: &Value, stage: &str) -> Value {
        self.run(
            "find_sources",
            0,
            json!({
                "cube": assembled["cube"],
                "planes": assembled["planes"],
                "beam": assembled["beam"],
                "context": assembled["context"],
                "stage": stage,
            }),
        )
    }
}
