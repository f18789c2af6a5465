//! `airtight components …`

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use futures::TryStreamExt;
use reqwest::{Body, Method};
use serde_json::Value;
use tokio_util::io::ReaderStream;

use super::common::{Context, api, list};
use crate::client::Client;
use crate::failure::{Exit, Failure, OrFail, Result};
use crate::local::digest_of_file;
use crate::ui::output::{Column, Output, Show, plain_table};
use crate::ui::term::Paint;
use crate::ui::{escape, format, progress, term};

/// How often it is looked where a component stands in the queue.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Commands about components.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Upload a component, optionally under a tag
    Push(PushArgs),
    /// List the components of the server
    List {
        /// At most this many, newest first
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show the tasks, schemas, imports, size and digest of a component
    Inspect {
        /// `name@version` or `sha256:…`
        component: String,
    },
    /// Delete a tag (`name@version`), or a component with all its tags (`sha256:…`)
    Delete {
        /// `name@version` or `sha256:…`
        component: String,
    },
    /// Print the JSON Schema of what a component says of itself (`describe`); needs no server
    Schema,
}

/// Arguments of `components push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The `.wasm` file
    file: PathBuf,
    /// The tag to give it: `name@version`. Tags are immutable
    #[arg(conflicts_with_all = ["name", "version"])]
    tag: Option<String>,
    /// The name of the tag
    #[arg(long, requires = "version")]
    name: Option<String>,
    /// The version of the tag
    #[arg(long, requires = "name")]
    version: Option<String>,
    /// Do not wait until the server has compiled it
    #[arg(long)]
    no_wait: bool,
}

pub(super) async fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Push(args) => push(context, args).await,
        Command::Schema => {
            let schema: Value = serde_json::from_str(model::manifest::DESCRIBE_SCHEMA)
                .or_fail(Exit::Broken, || "the schema in this program is not JSON".to_owned())?;
            context.output().value(&schema);
            Ok(())
        }
        Command::List { limit } => {
            let client = context.client()?;
            let (items, _) = list(client, &api(&["components"]), "components", &[], limit).await?;
            context.output().list(&items, LIST);
            Ok(())
        }
        Command::Inspect { component } => {
            let client = context.client()?;
            let answer = client.get(&api(&["components", &component]), &[]).await?;
            inspect(context.output(), &answer);
            Ok(())
        }
        Command::Delete { component } => {
            context.client()?.delete(&api(&["components", &component])).await?;
            term::errln(&format!("deleted {}", escape::line(&component)));
            Ok(())
        }
    }
}

const LIST: &[Column] = &[
    ("tags", "/tags", Show::List),
    ("digest", "/digest", Show::Digest),
    ("size", "/size", Show::Bytes),
    ("state", "/state", Show::State),
    ("tasks", "/tasks", Show::List),
    ("uploaded", "/created_at", Show::Time),
];

async fn push(context: &Context, args: PushArgs) -> Result<()> {
    let client = context.client()?;
    let tag = match (args.tag, args.name, args.version) {
        (Some(tag), ..) => Some(tag),
        (None, Some(name), Some(version)) => Some(format!("{name}@{version}")),
        _ => None,
    };
    let mut component = upload(client, &args.file, tag.as_deref()).await?;
    if !args.no_wait {
        component = wait_ready(client, component).await?;
    }
    refuse_refused(&args.file.display().to_string(), &component)?;
    if context.output() == Output::Table {
        let name = tag.as_deref().unwrap_or("component");
        let state = component.get("state").and_then(Value::as_str).unwrap_or_default();
        term::errln(&format!(
            "{} is {}",
            escape::line(name),
            Paint::stderr().state(&escape::line(state))
        ));
        term::outln(component.get("digest").and_then(Value::as_str).unwrap_or_default());
    } else {
        context.output().value(&component);
    }
    Ok(())
}

/// Uploads a file, with a progress bar; answers the component as the server has it then.
pub(crate) async fn upload(client: &Client, path: &Path, tag: Option<&str>) -> Result<Value> {
    let shown = path.display();
    let size = tokio::fs::metadata(path)
        .await
        .or_fail(Exit::Invalid, || format!("cannot read `{shown}`"))?
        .len();
    // The server refuses these too; saying it here saves sending the file.
    check_start(path).await?;
    let digest = digest_of_file(path)
        .await
        .or_fail(Exit::Invalid, || format!("cannot read `{shown}`"))?;
    if tag.is_none()
        && let Some(known) = client.find(&api(&["components", &digest.to_string()]), &[]).await?
        && known.get("state").and_then(Value::as_str) != Some("refused")
    {
        return Ok(known);
    }
    let query: Vec<(&str, String)> = match tag.map(|tag| tag.split_once('@')) {
        None => Vec::new(),
        Some(Some((name, version))) => vec![("name", name.to_owned()), ("version", version.to_owned())],
        Some(None) => {
            let tag = tag.unwrap_or_default();
            return Err(Failure::new(Exit::Invalid, format!("`{tag}` is not a tag")).hint("write `name@version`"));
        }
    };
    let bar = progress::bytes(
        size,
        &path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default(),
    );
    let url = client.url(&api(&["components"]), &query);
    let response = client
        .stream(Method::POST, &url, |request| {
            let request = request.header("content-type", "application/wasm");
            // Opened for each attempt: a body that streams can be sent once only.
            let Ok(file) = std::fs::File::open(path) else {
                return request;
            };
            bar.reset();
            let counted = bar.clone();
            let chunks = ReaderStream::with_capacity(tokio::fs::File::from_std(file), 256 << 10)
                .inspect_ok(move |chunk| counted.inc(chunk.len() as u64));
            request.header("content-length", size).body(Body::wrap_stream(chunks))
        })
        .await;
    bar.finish_and_clear();
    let bytes = response?
        .bytes()
        .await
        .or_fail(Exit::Unreachable, || "the server's answer broke off".to_owned())?;
    serde_json::from_slice(&bytes).or_fail(Exit::Broken, || "the server's answer is not JSON".to_owned())
}

async fn check_start(path: &Path) -> Result<()> {
    use tokio::io::AsyncReadExt as _;
    let mut start = [0; 8];
    let read = async { tokio::fs::File::open(path).await?.read_exact(&mut start).await };
    let shown = path.display();
    match read.await {
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            Err(Failure::new(Exit::Invalid, format!("cannot read `{shown}`")).because(&error))
        }
        Ok(_) if start == *b"\0asm\x01\0\0\0" => Err(Failure::new(
            Exit::Invalid,
            format!("`{shown}` is a core WebAssembly module, not a component"),
        )
        .hint("build it with `--target wasm32-wasip2`")),
        Err(_) => Err(Failure::new(Exit::Invalid, format!("`{shown}` is not WebAssembly"))),
        Ok(_) if !start.starts_with(b"\0asm") => {
            Err(Failure::new(Exit::Invalid, format!("`{shown}` is not WebAssembly")))
        }
        Ok(_) => Ok(()),
    }
}

/// Waits until the server has compiled a component.
pub(crate) async fn wait_ready(client: &Client, mut component: Value) -> Result<Value> {
    let text = |component: &Value, key: &str| component.get(key).and_then(Value::as_str).map(str::to_owned);
    let Some(digest) = text(&component, "digest") else {
        return Err(Failure::new(Exit::Broken, "the server's answer holds no digest"));
    };
    if text(&component, "state").as_deref() != Some("compiling") {
        return Ok(component);
    }
    let spinner = progress::spinner("the server compiles the component");
    let path = api(&["components", &digest]);
    while text(&component, "state").as_deref() == Some("compiling") {
        // The server answers when it is ready, or after a while.
        let wait = [("wait", "true".to_owned())];
        let ready = client.get_waiting(&path, &wait);
        tokio::pin!(ready);
        component = loop {
            let message = match queue_line(&component) {
                Some(place) if component.pointer("/queue_position") != Some(&Value::from(0)) => place,
                _ => "the server compiles the component".to_owned(),
            };
            spinner.set_message(message);
            tokio::select! {
                component = &mut ready => break component?,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Some(found) = client.find(&path, &[]).await? {
                component = found;
            }
        };
    }
    spinner.finish_and_clear();
    Ok(component)
}

/// A refused component is a failure that says why.
pub(crate) fn refuse_refused(what: &str, component: &Value) -> Result<()> {
    if component.get("state").and_then(Value::as_str) != Some("refused") {
        return Ok(());
    }
    let text = |pointer: &str| component.pointer(pointer).and_then(Value::as_str).unwrap_or("unknown");
    Err(Failure::new(
        Exit::Invalid,
        format!(
            "the server refused {what}: {} [{}]",
            text("/refusal/message"),
            text("/refusal/code")
        ),
    ))
}

fn inspect(output: Output, component: &Value) {
    if output != Output::Table {
        return output.value(component);
    }
    output.record(
        component,
        &[
            ("digest", "/digest", Show::Text),
            ("tags", "/tags", Show::List),
            ("state", "/state", Show::State),
            ("refused", "/refusal/message", Show::Text),
            ("size", "/size", Show::Bytes),
            ("uploaded", "/created_at", Show::Time),
            ("built with", "/descriptor/sdk", Show::Text),
            ("capabilities", "/capabilities", Show::List),
        ],
    );
    for (title, text) in [("queue", queue_line(component)), ("engine", engine_line(component))] {
        if let Some(text) = text {
            term::outln(&format!("{title}  {text}"));
        }
    }
    let tasks = component.pointer("/descriptor/tasks").and_then(Value::as_array);
    let paint = Paint::stdout();
    for task in tasks.into_iter().flatten() {
        let text = |key: &str| escape::block(task.get(key).and_then(Value::as_str).unwrap_or_default()).into_owned();
        term::outln(&format!("\ntask {}", paint.bold(&text("name"))));
        for line in text("doc").lines() {
            term::outln(&format!("  {line}"));
        }
        let labels = task.get("labels").and_then(Value::as_array);
        let rows = [
            ("input", task.get("input").map(schema_line)),
            ("output", task.get("output").map(schema_line)),
            (
                "labels",
                labels.map(|labels| labels.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")),
            ),
        ];
        let rows: Vec<_> = rows
            .into_iter()
            .filter_map(|(title, text)| Some(vec![format!("  {title}"), escape::line(&text?).into_owned()]))
            .collect();
        let table = plain_table(vec![String::new(), String::new()], rows);
        // The head of a table without titles is an empty line.
        term::outln(table.trim_start_matches('\n'));
    }
    let imports = component.get("imports").and_then(Value::as_array);
    term::outln(&format!("\n{}", paint.dim("imports")));
    for import in imports.into_iter().flatten().filter_map(Value::as_str) {
        term::outln(&format!("  {}", escape::line(import)));
    }
}

/// Where a component stands in the queue of the compiler.
fn queue_line(component: &Value) -> Option<String> {
    Some(match component.get("queue_position")?.as_u64()? {
        0 => "it is being compiled".to_owned(),
        1 => "it is the next to be compiled".to_owned(),
        place => format!("{} components are compiled before it", place - 1),
    })
}

/// What a running task of a component takes of the engine.
fn engine_line(component: &Value) -> Option<String> {
    let engine = component.get("engine").filter(|engine| engine.is_object())?;
    let number = |key: &str| engine.get(key).and_then(Value::as_u64).unwrap_or_default();
    let counted = |key: &str, one: &str, many: &str| match number(key) {
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    };
    Some(format!(
        "{}, {}, {}; {} at the start, {} of code",
        counted("core_instances", "core instance", "core instances"),
        counted("memories", "memory", "memories"),
        counted("tables", "table", "tables"),
        format::bytes(number("initial_bytes")),
        format::bytes(number("code_bytes")),
    ))
}

/// A schema in one line: `{rows: integer, source?: string}`.
fn schema_line(schema: &Value) -> String {
    fn describe(root: &Value, schema: &Value, depth: u32) -> String {
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            let pointed = target.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
            return match pointed {
                Some(pointed) if depth < 3 => describe(root, pointed, depth + 1),
                _ => target.rsplit('/').next().unwrap_or("any").to_owned(),
            };
        }
        if let Some(Value::Object(properties)) = schema.get("properties")
            && depth < 3
        {
            let required: Vec<_> = schema
                .get("required")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let members: Vec<_> = properties
                .iter()
                .map(|(name, property)| {
                    let mark = if required.contains(&name.as_str()) { "" } else { "?" };
                    format!("{name}{mark}: {}", describe(root, property, depth + 1))
                })
                .collect();
            return format!("{{{}}}", members.join(", "));
        }
        match (schema.get("type"), schema.get("items")) {
            (Some(Value::String(kind)), Some(items)) if kind == "array" => {
                format!("[{}]", describe(root, items, depth + 1))
            }
            (Some(Value::String(kind)), _) => kind.clone(),
            (Some(Value::Array(kinds)), _) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" | "),
            _ => "any".to_owned(),
        }
    }
    escape::shorten(&describe(schema, schema, 0), 200).into_owned()
}

/// The size and the digest of a component, for messages.
pub(crate) fn short(component: &Value) -> String {
    let digest = component.get("digest").and_then(Value::as_str).unwrap_or_default();
    let size = component.get("size").and_then(Value::as_u64).unwrap_or_default();
    format!("{} ({})", format::digest(digest), format::bytes(size))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn says_what_the_engine_gives_and_where_it_stands() {
        let engine =
            json!({"core_instances": 7, "memories": 1, "tables": 3, "initial_bytes": 1 << 20, "code_bytes": 0});
        let said = engine_line(&json!({ "engine": engine })).unwrap();
        assert!(said.starts_with("7 core instances, 1 memory, 3 tables; "), "{said}");
        assert_eq!(engine_line(&json!({"engine": null})), None);
        let place = |position: Value| queue_line(&json!({ "queue_position": position }));
        assert_eq!(place(json!(0)).unwrap(), "it is being compiled");
        assert_eq!(place(json!(3)).unwrap(), "2 components are compiled before it");
        assert_eq!(place(Value::Null), None);
    }

    #[test]
    fn schemas_fit_a_line() {
        let schema = json!({
            "type": "object",
            "properties": {
                "rows": {"type": "integer"},
                "source": {"type": ["string", "null"]},
                "names": {"type": "array", "items": {"$ref": "#/$defs/Name"}},
                "any": true,
            },
            "required": ["rows"],
            "$defs": {"Name": {"type": "string"}},
        });
        assert_eq!(
            schema_line(&schema),
            "{rows: integer, source?: string | null, names?: [string], any?: any}"
        );
        assert_eq!(schema_line(&json!(true)), "any");
    }
}
