//! The parameters of a run: what the caller passes over the DAG's defaults, validated (Airflow: `ParamsDict`).

use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::dag::{Dag, MapValues, Param, length};
use crate::manifest::suggest;
use crate::schema::Validator;
use crate::template::{follow_value, show_path};

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
    if dag.strict_params {
        problems.extend(undeclared(&dag.params, conf).map(|(name, close)| {
            let hint = close
                .map(|close| format!("; did you mean `{close}`?"))
                .unwrap_or_default();
            format!("parameter `{name}` is not declared{hint}")
        }));
    }
    let params = Value::Object(params);
    if problems.is_empty() {
        check_lengths(dag, &params, &mut problems);
    }
    if problems.is_empty() { Ok(params) } else { Err(problems) }
}

/// The most members of `conf` that are told to be none of the parameters.
const MAX_UNDECLARED: usize = 20;

/// The first members of `conf` that are none of these parameters, and the parameter that is likely meant.
pub(crate) fn undeclared<'a>(
    params: &'a IndexMap<String, Param>,
    conf: &'a Map<String, Value>,
) -> impl Iterator<Item = (String, Option<&'a str>)> + 'a {
    let mut comparable = suggest::MAX_COMPARED;
    let names = conf.keys().filter(|name| !params.contains_key(*name));
    names.take(MAX_UNDECLARED).map(move |name| {
        // One that is passed already is not meant.
        let left = params.keys().filter(|known| !conf.contains_key(*known));
        let close = suggest::closest_within(name, left.map(String::as_str), &mut comparable);
        let mut shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        if shown != *name {
            shown.push('…');
        }
        (shown, close)
    })
}

/// How long the parameters are that are mapped over, in the order of [`Dag::mapped_params`]; 0 for what is no list or object,
/// which [`resolve_params`] refuses.
pub fn param_lengths(dag: &Dag, params: &Value) -> Vec<u32> {
    dag.mapped_params()
        .into_iter()
        .map(|path| follow_value(params, path).and_then(length).unwrap_or(0))
        .collect()
}

/// What cannot be mapped over, or would be too many.
fn check_lengths(dag: &Dag, params: &Value, problems: &mut Vec<String>) {
    for expansion in dag.expansions() {
        for source in &expansion.sources {
            let MapValues::Param { path, .. } = &source.values else {
                continue;
            };
            let name = format!("params{}", show_path(path));
            match follow_value(params, path).and_then(length) {
                None => problems.push(format!(
                    "`{name}` must be a list or an object: a task is mapped over it"
                )),
                Some(length) if length > expansion.limit => problems.push(format!(
                    "`{name}` has {length} elements; at most {} may be mapped over",
                    expansion.limit
                )),
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::{Components, compile, parse};

    fn dag(params: &str) -> Dag {
        let source = format!(
            "dag: d\nparams: {params}\ntasks: {{a: {{component: \"sha256:{}\"}}}}\n",
            "0".repeat(64)
        );
        let manifest = parse(&source).unwrap();
        let descriptor = json!({"format": 1, "tasks": [{"name": "t", "input": true, "output": true}]});
        let components: Components = manifest
            .components()
            .into_iter()
            .map(|component| {
                let resolved = crate::manifest::ResolvedComponent {
                    digest: component.value.digest().unwrap(),
                    descriptor: serde_json::from_value(descriptor.clone()).unwrap(),
                };
                (component.value, Ok(resolved))
            })
            .collect();
        compile(&manifest, &components).unwrap().dag
    }

    #[test]
    fn conf_goes_over_the_defaults() {
        let dag = dag("{a: 1, b: {type: string, default: x}, c: null, d: {type: integer}}");
        let conf = json!({"b": "y", "d": 5, "more": true});
        assert_eq!(
            resolve_params(&dag, &conf),
            Ok(json!({"a": 1, "b": "y", "c": null, "d": 5}))
        );
        // Keys keep the order of the manifest.
        let text = resolve_params(&dag, &conf).unwrap().to_string();
        assert_eq!(text, r#"{"a":1,"b":"y","c":null,"d":5}"#);
    }

    #[test]
    fn a_strict_dag_takes_nothing_that_it_does_not_declare() {
        let conf = json!({"thresold": 0.5, "b": 1, "more": true});
        let open = dag("{threshold: 0.1, b: 2}");
        assert!(resolve_params(&open, &conf).is_ok());
        let named: Vec<(String, Option<&str>)> = undeclared(&open.params, conf.as_object().unwrap()).collect();
        assert_eq!(
            named,
            [("thresold".to_owned(), Some("threshold")), ("more".to_owned(), None)]
        );
        let strict = dag("{threshold: 0.1, b: 2}\nstrict_params: true");
        assert_eq!(
            resolve_params(&strict, &conf),
            Err(vec![
                "parameter `thresold` is not declared; did you mean `threshold`?".to_owned(),
                "parameter `more` is not declared".to_owned(),
            ])
        );
        assert!(resolve_params(&strict, &json!({"threshold": 1})).is_ok());
        // The flag is no part of a version that does not set it.
        assert!(!serde_json::to_string(&open).unwrap().contains("strict_params"));
        assert!(serde_json::to_string(&strict).unwrap().contains("strict_params"));
    }

    #[test]
    fn everything_that_is_wrong_is_told() {
        let dag = dag("{a: {type: integer}, b: {type: string, default: x}, c: {enum: [1, 2], default: 1}}");
        assert_eq!(
            resolve_params(&dag, &json!({"b": 1, "c": 3})),
            Err(vec![
                "parameter `a` is required".to_owned(),
                "parameter `b` is not valid: 1 is not of type \"string\"".to_owned(),
                "parameter `c` is not valid: 3 is not one of 1 or 2".to_owned(),
            ])
        );
        assert!(resolve_params(&dag, &Value::Null).is_err());
        assert_eq!(
            resolve_params(&dag, &json!([1])),
            Err(vec!["conf must be a JSON object".to_owned()])
        );
    }
}
