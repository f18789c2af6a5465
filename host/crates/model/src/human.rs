//! Human steps: a task that asks a person and waits for the answer, without a slot and without an executor.
//!
//! Airflow: `HITLOperator` and its kinds. `ApprovalOperator` is a step with an [`Approval`], `HITLBranchOperator` one whose options are
//! the labels of a branch, `HITLEntryOperator` one that asks for parameters. The state meanwhile is `awaiting_input` (Airflow 3.3).

use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::cause::Cause;
use crate::dag::{Param, Task, TaskKind};
use crate::run::TryEnd;
use crate::schema::Validator;
use crate::state::text_enum;
use crate::time::Timestamp;

/// The options of an approval (Airflow: `ApprovalOperator.APPROVE`, `REJECT`).
pub const APPROVE: &str = "Approve";
/// See [`APPROVE`].
pub const REJECT: &str = "Reject";
/// The option of a step that names none (Airflow: `HITLEntryOperator.OK`).
pub const OK: &str = "OK";
/// The code of an approval that failed because it was rejected.
pub const REJECTED: &str = "rejected";

text_enum! {
    /// What happens when nobody has answered in time.
    OnTimeout {
        /// The default options are taken.
        Default = "default",
        /// The try fails.
        Fail = "fail",
        /// The task is skipped.
        Skip = "skip",
    }
}

/// What a person is asked. Subject and body are templates, and so the task's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HumanStep {
    /// What can be chosen; at least one.
    pub options: Vec<String>,
    /// What is proposed, and taken when time runs out.
    pub defaults: Option<Vec<String>>,
    /// Whether several options can be chosen.
    pub multiple: bool,
    /// Values to enter, by name.
    pub params: IndexMap<String, Param>,
    /// Who may answer; everybody, if empty.
    pub assigned_users: Vec<String>,
    /// How long it waits.
    pub timeout: Option<Duration>,
    /// What happens then.
    pub on_timeout: OnTimeout,
    /// Whether it is an approval.
    pub approval: Option<Approval>,
    /// Whether it is a branch, with the options as its labels.
    pub branches: bool,
}

/// An approval: what follows is skipped when it is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Fail instead.
    pub fail_on_reject: bool,
}

/// An answer that was found to fit the step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The options that were chosen.
    pub chosen_options: Vec<String>,
    /// The values that were entered, with defaults filled in: a JSON object.
    pub params_input: Value,
}

impl Answer {
    /// What the task publishes as its return value (Airflow: `HITLTriggerEventSuccessPayload`). Nobody answered where the defaults
    /// were taken.
    pub fn return_value(&self, at: Timestamp, user: Option<&str>) -> String {
        json!({
            "chosen_options": self.chosen_options,
            "params_input": self.params_input,
            "responded_at": at.to_string(),
            "responded_by_user": user.map(|user| json!({"id": user, "name": user})),
        })
        .to_string()
    }
}

impl HumanStep {
    /// Airflow's class for what the step is.
    pub const fn class(&self) -> &'static str {
        if self.branches {
            "HITLBranchOperator"
        } else if self.approval.is_some() {
            "ApprovalOperator"
        } else {
            "HITLOperator"
        }
    }

    /// The answer, or everything that is wrong with it.
    ///
    /// Airflow: `HITLOperator.validate_chosen_options`, `validate_params_input`. There it is checked after it was taken, and the task
    /// fails; here it is refused, and the task waits on.
    pub fn check(&self, chosen: &[String], entered: &Map<String, Value>) -> Result<Answer, Vec<String>> {
        let mut problems = Vec::new();
        if chosen.is_empty() {
            problems.push("no option is chosen".to_owned());
        }
        if chosen.len() > 1 && !self.multiple {
            problems.push("only one option can be chosen".to_owned());
        }
        for (at, option) in chosen.iter().enumerate() {
            let shown: String = option.chars().take(64).collect();
            if !self.options.contains(option) {
                problems.push(format!(
                    "`{shown}` is not one of the options: {}",
                    self.options.join(", ")
                ));
            } else if chosen.iter().take(at).any(|earlier| earlier == option) {
                problems.push(format!("`{shown}` is chosen twice"));
            }
        }
        for name in entered.keys().filter(|name| !self.params.contains_key(*name)) {
            let shown: String = name.chars().take(64).collect();
            problems.push(format!("there is no parameter `{shown}`"));
        }
        let mut values = Map::new();
        for (name, param) in &self.params {
            let Some(value) = entered.get(name).or(param.default.as_ref()) else {
                problems.push(format!("parameter `{name}` is required"));
                continue;
            };
            match Validator::compile(&param.schema) {
                Ok(validator) => problems.extend(
                    validator
                        .validate(value)
                        .into_iter()
                        .map(|problem| format!("parameter `{name}` is not valid: {problem}")),
                ),
                Err(error) => problems.push(format!("parameter `{name}` cannot be checked: {error}")),
            }
            values.insert(name.clone(), value.clone());
        }
        if problems.is_empty() {
            Ok(Answer {
                chosen_options: chosen.to_vec(),
                params_input: Value::Object(values),
            })
        } else {
            Err(problems)
        }
    }

    /// What is taken when time runs out, if the step has defaults.
    pub fn default_answer(&self) -> Option<Answer> {
        let values = self
            .params
            .iter()
            .map(|(name, param)| (name.clone(), param.default.clone().unwrap_or(Value::Null)));
        Some(Answer {
            chosen_options: self.defaults.clone()?,
            params_input: Value::Object(values.collect()),
        })
    }

    /// How an answer ends the try.
    pub fn end(&self, task: &Task, chosen: &[String]) -> TryEnd {
        if let TaskKind::Branch { labels } = &task.kind {
            let tasks = chosen.iter().filter_map(|option| labels.get(option)).flatten();
            return TryEnd::Branch(tasks.copied().collect());
        }
        let Some(approval) = self.approval else {
            return TryEnd::Done;
        };
        if chosen.iter().any(|option| option == APPROVE) {
            TryEnd::Done
        } else if approval.fail_on_reject {
            TryEnd::Failed {
                cause: Cause::Failed,
                fatal: false,
                code: Some(REJECTED.into()),
            }
        } else {
            TryEnd::DoneFalsy
        }
    }

    /// The JSON Schema of what the task publishes.
    pub fn output_schema(&self) -> Value {
        // The schema of a parameter refers to its own root, so it cannot stand inside of this one: only the names are told.
        let names: Map<String, Value> = self.params.keys().map(|name| (name.clone(), json!({}))).collect();
        let user = json!({
            "type": "object",
            "properties": {"id": {"type": "string"}, "name": {"type": "string"}},
            "required": ["id", "name"],
        });
        json!({
            "type": "object",
            "properties": {
                "chosen_options": {"type": "array", "items": {"enum": self.options}},
                "params_input": {"type": "object", "properties": names, "additionalProperties": false},
                "responded_at": {"type": "string"},
                "responded_by_user": {"anyOf": [user, {"type": "null"}]},
            },
            "required": ["chosen_options", "params_input", "responded_at", "responded_by_user"],
            "additionalProperties": false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step() -> HumanStep {
        HumanStep {
            options: ["a", "b"].map(str::to_owned).to_vec(),
            defaults: None,
            multiple: false,
            params: [
                ("amount", json!({"type": "integer", "minimum": 1}), None),
                ("note", json!({"type": "string"}), Some(json!("none"))),
            ]
            .into_iter()
            .map(|(name, schema, default)| (name.to_owned(), Param { schema, default }))
            .collect(),
            assigned_users: Vec::new(),
            timeout: None,
            on_timeout: OnTimeout::Fail,
            approval: None,
            branches: false,
        }
    }

    fn check(step: &HumanStep, chosen: &[&str], entered: Value) -> Result<Answer, Vec<String>> {
        let chosen: Vec<String> = chosen.iter().map(|option| (*option).to_owned()).collect();
        step.check(&chosen, entered.as_object().unwrap())
    }

    #[test]
    fn an_answer_fits_the_options_and_the_schemas_of_the_parameters() {
        let answer = check(&step(), &["b"], json!({"amount": 3})).unwrap();
        assert_eq!(answer.params_input, json!({"amount": 3, "note": "none"}));
        assert_eq!(
            serde_json::from_str::<Value>(&answer.return_value(Timestamp(0), Some("ann"))).unwrap(),
            json!({
                "chosen_options": ["b"],
                "params_input": {"amount": 3, "note": "none"},
                "responded_at": "1970-01-01T00:00:00.000000Z",
                "responded_by_user": {"id": "ann", "name": "ann"},
            })
        );
        let schema = Validator::compile(&step().output_schema()).unwrap();
        let published = serde_json::from_str(&answer.return_value(Timestamp(0), None)).unwrap();
        assert_eq!(schema.validate(&published), Vec::<String>::new());
    }

    #[test]
    fn everything_that_is_wrong_with_an_answer_is_told() {
        let problems = check(&step(), &["a", "c"], json!({"amount": 0, "more": 1})).unwrap_err();
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(check(&step(), &[], json!({"amount": 1})).is_err());
        assert!(check(&step(), &["a"], json!({})).is_err());
        let several = HumanStep {
            multiple: true,
            ..step()
        };
        assert!(check(&several, &["a", "b"], json!({"amount": 1})).is_ok());
        assert!(check(&several, &["a", "a"], json!({"amount": 1})).is_err());
    }
}
