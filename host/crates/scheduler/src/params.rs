//! The parameters of a run: defaults, replaced by the members of `conf` that name a parameter.

use model::Dag;
use serde_json::{Map, Value};

/// The resolved parameters as a JSON object, or every problem.
pub(crate) fn resolve_params(dag: &Dag, conf: &Value) -> Result<Value, Vec<String>> {
    let empty = Map::new();
    let conf = match conf {
        Value::Object(conf) => conf,
        Value::Null => &empty,
        _ => return Err(vec!["`conf` must be a JSON object".to_owned()]),
    };
    let mut resolved = Map::new();
    let mut problems = Vec::new();
    for (name, param) in &dag.params {
        match conf.get(name).or(param.default.as_ref()) {
            Some(value) => {
                resolved.insert(name.clone(), value.clone());
            }
            None => problems.push(format!("parameter `{name}` is required")),
        }
    }
    if problems.is_empty() {
        Ok(Value::Object(resolved))
    } else {
        Err(problems)
    }
}
