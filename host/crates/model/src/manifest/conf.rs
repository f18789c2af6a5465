//! What a caller passes and nobody reads: likely a misspelt parameter.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::declared::{Input, Manifest};
use crate::params;

/// A member of `conf` that is no parameter and that no template reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undeclared {
    /// Its name.
    pub name: String,
    /// The parameter that is likely meant.
    pub close: Option<String>,
}

impl Manifest {
    /// The members of `conf` that are none of the parameters and that nothing of the DAG reads. Where a template uses `conf` as a
    /// whole, any may be meant.
    pub fn undeclared(&self, conf: &Map<String, Value>) -> Vec<Undeclared> {
        let Some(read) = self.read_of_conf() else {
            return Vec::new();
        };
        params::undeclared(&self.params, conf)
            .filter(|(name, _)| !read.contains(name))
            .map(|(name, close)| Undeclared {
                name,
                close: close.map(str::to_owned),
            })
            .collect()
    }

    /// The members of `conf` that templates name; nothing where it is used otherwise.
    fn read_of_conf(&self) -> Option<HashSet<String>> {
        let mut read = HashSet::new();
        let of_tasks = self.tasks.iter().flat_map(|task| {
            let sources = task.expand.iter().flat_map(|expand| &expand.sources);
            std::iter::once(&task.input).chain(sources.map(|source| &source.input))
        });
        let of_groups = self.groups.iter().flat_map(|group| {
            let sources = group.expand.iter().flat_map(|expand| &expand.sources);
            sources.map(|source| &source.input)
        });
        let of_callbacks = self.callbacks().map(|callback| &callback.task.input);
        for input in of_tasks.chain(of_groups).chain(of_callbacks) {
            uses(input, &mut read)?;
        }
        for name in self.tasks.iter().filter_map(|task| task.map_index_template.as_deref()) {
            names(name, &mut read)?;
        }
        Some(read)
    }
}

fn uses(input: &Input, read: &mut HashSet<String>) -> Option<()> {
    fn walk(value: &Value, read: &mut HashSet<String>) -> Option<()> {
        match value {
            Value::String(text) => names(text, read),
            Value::Array(items) => items.iter().try_for_each(|item| walk(item, read)),
            Value::Object(members) => members.values().try_for_each(|item| walk(item, read)),
            _ => Some(()),
        }
    }
    walk(&input.value, read)
}

/// Adds the names in `conf.name` and `conf["name"]`; nothing where `conf` stands otherwise.
fn names(text: &str, read: &mut HashSet<String>) -> Option<()> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = text;
    while let Some(at) = rest.find("conf") {
        let (before, from) = rest.split_at(at);
        let after = from.get(4..).unwrap_or_default();
        rest = after;
        if before.ends_with(is_word) || before.ends_with('.') || after.starts_with(is_word) {
            continue;
        }
        let name = if let Some(name) = after.strip_prefix('.') {
            name.split(|c: char| !is_word(c)).next().unwrap_or_default()
        } else {
            let quoted = after.strip_prefix("[\"").and_then(|name| name.split_once("\"]"));
            quoted
                .or_else(|| after.strip_prefix("['").and_then(|name| name.split_once("']")))?
                .0
        };
        read.insert(name.to_owned());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn undeclared(input: &str, conf: &Value) -> Vec<(String, Option<String>)> {
        let source = format!("dag: d\nparams: {{threshold: 0.5}}\ntasks: {{a: {{component: c@1, input: {input}}}}}\n");
        let found = super::super::parse(&source)
            .unwrap()
            .undeclared(conf.as_object().unwrap());
        found.into_iter().map(|found| (found.name, found.close)).collect()
    }

    #[test]
    fn what_nobody_reads_is_told_by_name() {
        let conf = json!({"thresold": 1, "used": 2, "other": 3});
        let misspelt = ("thresold".to_owned(), Some("threshold".to_owned()));
        let other = ("other".to_owned(), None);
        assert_eq!(
            undeclared("{x: '{{ conf.used }}'}", &conf),
            [misspelt.clone(), other.clone()]
        );
        assert_eq!(
            undeclared("['{{ conf[\"used\"] ~ conf.other }}']", &conf),
            [misspelt.clone()]
        );
        assert_eq!(
            undeclared("{x: 'a config of {{ conf.used }}'}", &conf),
            [misspelt, other]
        );
        for whole in [
            "'{{ conf }}'",
            "'{{ conf[params.threshold] }}'",
            "'{{ conf | length }}'",
        ] {
            assert_eq!(undeclared(&format!("{{x: {whole}}}"), &conf), [], "{whole}");
        }
        assert_eq!(undeclared("{}", &json!({"threshold": 1})), []);
    }
}
