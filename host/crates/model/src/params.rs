//! The parameters of a run: what the caller passes over the DAG's defaults, validated (Airflow: `ParamsDict`).

use serde_json::{Map, Value};

use crate::dag::Dag;
use crate::schema::Validator;

/// Merges `conf` over the defaults of the DAG's parameters and validates the result. Members of `conf` that are no parameters
/// stay in `conf` alone. Fails with everything that is wrong.
pub fn resolve_params(dag: &Dag, conf: &Value) -> Result<Value, Vec<String>> {
    let empty = Map::new();
    let conf = match conf {
        Value::Null => &empty,
        Value::Object(members) => members,
        _ => return Err(vec!["conf must be a JSON object".to_owned()]),
    };
    let mut problems = Vec::new();
    let mut params = Map::new();
    for (name, param) in &dag.params {
        let Some(value) = conf.get(name).or(param.default.as_ref()) else {
            problems.push(format!("parameter `{name}` is required"));
            continue;
        };
        if param.schema.as_object().is_none_or(|schema| !schema.is_empty()) {
            match Validator::compile(&param.schema) {
                Ok(validator) => {
                    problems.extend(
                        validator
                            .validate(value)
                            .into_iter()
                            .map(|finding| format!("parameter `{name}` is not valid: {finding}")),
                    );
                }
                Err(error) => problems.push(format!("parameter `{name}`: {error}")),
            }
        }
        params.insert(name.clone(), value.clone());
    }
    if problems.is_empty() {
        Ok(Value::Object(params))
    } else {
        Err(problems)
    }
}
