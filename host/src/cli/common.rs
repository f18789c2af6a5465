//! What the commands share: the connection, reading values from arguments, paging.

use std::cell::OnceCell;
use std::path::PathBuf;

use model::json::{GivenError, read_given};
use model::manifest::{Manifest, Undeclared};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::Global;
use crate::client::{Client, Query, Target, resolve_data_dir};
use crate::failure::{Exit, Failure, OrFail, Result};
use crate::ui::escape;
use crate::ui::output::Output;
use crate::ui::run_view::name_of;
use crate::ui::term::{self, Paint};

/// The options of this call and what was opened for it.
pub(crate) struct Context {
    global: Global,
    client: OnceCell<Client>,
}

/// The root of the API.
pub(crate) const API: [&str; 2] = ["api", "v2"];

impl Context {
    /// Nothing is opened yet.
    pub(crate) fn new(global: Global) -> Self {
        Self {
            global,
            client: OnceCell::new(),
        }
    }

    /// How to print.
    pub(crate) fn output(&self) -> Output {
        self.global.output
    }

    /// The data directory of this machine's server.
    pub(crate) fn data_dir(&self) -> PathBuf {
        resolve_data_dir(self.global.data_dir.as_deref())
    }

    /// The server to talk to.
    pub(crate) fn target(&self) -> Result<Target> {
        Target::resolve(
            self.global.server.as_deref(),
            self.global.token.as_deref(),
            &self.data_dir(),
        )
    }

    /// The connection.
    pub(crate) fn client(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = Client::new(self.target()?)?;
        Ok(self.client.get_or_init(|| client))
    }
}

/// A path below `/api/v2`.
pub(crate) fn api<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    API.iter().chain(rest).copied().collect()
}

/// Reads a list page by page, at most `limit` items of it. Answers the items and how many there are in all.
pub(crate) async fn list(
    client: &Client,
    path: &[&str],
    key: &str,
    query: Query<'_>,
    limit: usize,
) -> Result<(Vec<Value>, u64)> {
    const PAGE: usize = 100;
    let mut items = Vec::new();
    loop {
        let mut page = query.to_vec();
        page.push(("limit", PAGE.min(limit - items.len()).to_string()));
        page.push(("offset", items.len().to_string()));
        let mut answer = client.get(path, &page).await?;
        let total = answer.get("total_entries").and_then(Value::as_u64).unwrap_or(0);
        let Some(Value::Array(found)) = answer.get_mut(key).map(Value::take) else {
            return Err(Failure::new(
                Exit::Broken,
                format!("the server's answer holds no `{key}`"),
            ));
        };
        let last = found.is_empty();
        items.extend(found);
        if last || items.len() >= limit || items.len() as u64 >= total {
            return Ok((items, total));
        }
    }
}

/// Takes apart how a task instance is called: a task id, and of one of several its map index, as in `clean[3]`. No task id has brackets.
pub(crate) fn split_name(name: &str) -> (&str, Option<u32>) {
    name.strip_suffix(']')
        .and_then(|rest| rest.rsplit_once('['))
        .and_then(|(task_id, index)| Some((task_id, Some(index.parse().ok()?))))
        .unwrap_or((name, None))
}

/// The map index of a task instance, and its task: `--map-index` goes before the name's.
pub(crate) fn instance(name: &str, map_index: Option<u32>) -> (String, Option<u32>) {
    let (task_id, named) = split_name(name);
    (task_id.to_owned(), map_index.or(named))
}

/// Says of a refusal that the task has several instances, if it has and none was named.
pub(crate) async fn or_say_mapped<T>(
    client: &Client,
    instances: &[&str],
    map_index: Option<u32>,
    answer: Result<T>,
) -> Result<T> {
    let refused = match answer {
        Err(refused) if map_index.is_none() && refused.exit() == Exit::Refused => refused,
        answer => return answer,
    };
    let [before @ .., task_id] = instances else {
        return Err(refused);
    };
    let query = [("task_id", (*task_id).to_owned())];
    let Ok((found, _)) = list(client, before, "task_instances", &query, 1).await else {
        return Err(refused);
    };
    Err(match found.first().map(name_of).filter(|name| name.ends_with(']')) {
        Some(name) => refused.hint(format!("the task has several instances; name one, such as `{name}`")),
        None => refused,
    })
}

/// A JSON value given as text or as `@file` (`@-` is standard input).
pub(crate) fn json_argument(what: &str, text: &str) -> Result<Value> {
    let (origin, text) = match text.strip_prefix('@') {
        Some("-") => {
            let text = std::io::read_to_string(std::io::stdin())
                .or_fail(Exit::Invalid, || format!("cannot read {what} from standard input"))?;
            ("standard input".to_owned(), text)
        }
        Some(path) => {
            let text = std::fs::read_to_string(path).or_fail(Exit::Invalid, || format!("cannot read `{path}`"))?;
            (format!("`{path}`"), text)
        }
        None => (what.to_owned(), text.to_owned()),
    };
    read_given(&text)
        .or_fail(Exit::Invalid, || format!("{origin} is not valid JSON"))
        .map_err(|failure| failure.hint(format!("{what} takes JSON text, or @FILE to read it from a file")))
}

/// `--conf` and `--param` together: an object; a parameter's value is JSON where it reads as JSON, else text.
pub(crate) fn conf_argument(conf: Option<&str>, params: &[String]) -> Result<Value> {
    let mut object = match conf.map(|conf| json_argument("--conf", conf)).transpose()? {
        None => Map::new(),
        Some(Value::Object(object)) => object,
        Some(_) => return Err(Failure::new(Exit::Invalid, "--conf is not a JSON object")),
    };
    for param in params {
        let (key, value) = param.split_once('=').ok_or_else(|| {
            Failure::new(Exit::Invalid, format!("`--param {param}` has no value")).hint("write `--param name=value`")
        })?;
        let value = value_argument(value)
            .map_err(|error| Failure::new(Exit::Invalid, format!("`{param}` cannot be taken")).because(&error))?;
        object.insert(key.to_owned(), value);
    }
    Ok(Value::Object(object))
}

/// Warns of what is passed to a run and nobody reads.
pub(crate) fn warn_of_undeclared(manifest: &Manifest, conf: &Value) {
    let Some(members) = conf.as_object() else { return };
    let mark = Paint::stderr().yellow("warning");
    for Undeclared { name, close } in manifest.undeclared(members) {
        let name = escape::line(&name);
        let hint = match close {
            Some(close) => format!("did you mean `{}`?", escape::line(&close)),
            None => "nothing of the DAG reads it".to_owned(),
        };
        term::errln(&format!("{mark}: `{name}` is not a parameter of the DAG: {hint}"));
    }
}

/// JSON where the text reads as JSON, else the text. What is JSON and would not be kept as it was written is refused.
pub(crate) fn value_argument(text: &str) -> Result<Value, GivenError> {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => read_given(text),
        Err(_) => Ok(Value::String(text.to_owned())),
    }
}

/// Asks before something is destroyed.
pub(crate) fn confirm(yes: bool, question: &str) -> Result<()> {
    use std::io::{IsTerminal as _, Write as _};
    let stdin = std::io::stdin();
    if yes {
        return Ok(());
    }
    if !stdin.is_terminal() {
        return Err(Failure::new(Exit::Invalid, "there is no terminal to ask on").hint("use --yes"));
    }
    write!(std::io::stderr(), "{question} [y/N] ").ok();
    let mut answer = String::new();
    stdin.read_line(&mut answer).ok();
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::new(Exit::Interrupted, "nothing was changed"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_instance_is_named_as_it_is_shown() {
        assert_eq!(split_name("solve.step[30]"), ("solve.step", Some(30)));
        for whole in ["step", "step[", "step[]", "step[x]", "step[-1]", "step[1]x"] {
            assert_eq!(split_name(whole), (whole, None));
        }
        assert_eq!(instance("step[3]", Some(4)), ("step".to_owned(), Some(4)));
    }

    #[test]
    fn params_are_json_or_text() {
        let params = ["n=3", "s=abc", "o={\"a\":[1]}", "q=\"3\"", "e=", "u=a=b"].map(str::to_owned);
        assert_eq!(
            conf_argument(Some("{\"n\": 1, \"k\": null}"), &params).unwrap(),
            json!({"n": 3, "k": null, "s": "abc", "o": {"a": [1]}, "q": "3", "e": "", "u": "a=b"})
        );
        assert!(conf_argument(Some("[1]"), &[]).is_err());
        assert!(conf_argument(Some("{"), &[]).is_err());
        assert!(conf_argument(None, &["n".to_owned()]).is_err());
    }
    #[test]
    fn what_would_be_changed_silently_is_refused() {
        let big = "123456789012345678901234567890";
        let refused = |conf: Option<&str>, params: &[String]| conf_argument(conf, params).unwrap_err().in_words();
        let words = refused(Some(&format!("{{\"a\": [{big}]}}")), &[]);
        assert!(words.contains(big) && words.ends_with("at `a[0]`"), "{words}");
        assert!(refused(Some("{\"a\": 1, \"a\": 2}"), &[]).contains("key `a` is there twice"));
        let words = refused(None, &[format!("a={big}")]);
        assert!(words.contains("a=1234") && words.contains("64 bits"), "{words}");
        assert!(refused(None, &["a={\"b\":1,\"b\":2}".to_owned()]).contains("twice"));
        let float = conf_argument(None, &["a=1e30".to_owned()]).unwrap();
        assert!(float["a"].is_f64(), "{float}");
    }
}
