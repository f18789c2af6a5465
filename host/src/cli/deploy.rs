//! `airtight dags deploy` and `airtight dags check`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use model::manifest::{
    self, ComponentRef, Components, Diagnostic, Manifest, Pools, Pos, ResolvedComponent, Severity, Unresolved,
};
use ports::component::Descriptor;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::common::{Context, api, list};
use super::components;
use crate::client::{Client, error_answer};
use crate::failure::{Exit, Failure, OrFail, Result};
use crate::local::{Renamed, Workshop, beside, digest_of_file, in_file};
use crate::ui::output::Output;
use crate::ui::term::{self, Paint};
use crate::ui::{diagnostics, escape, format, progress};

/// Arguments of `dags deploy`.
#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    /// The manifest
    file: PathBuf,
    /// Fail where the DAG exists already
    #[arg(long)]
    new: bool,
}

/// Arguments of `dags check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The manifest
    file: PathBuf,
    /// Ask no server: components that only a server knows are not checked
    #[arg(long)]
    offline: bool,
}

/// How long a deploy waits for components that the server compiles.
const COMPILE_PATIENCE: Duration = Duration::from_secs(600);

/// A manifest and where it came from.
pub(super) struct Source {
    pub(super) shown: String,
    pub(super) text: String,
    pub(super) manifest: Manifest,
}

impl Source {
    pub(super) fn read(file: &Path) -> Result<Self> {
        let shown = file.display().to_string();
        let text = std::fs::read_to_string(file).or_fail(Exit::Invalid, || format!("cannot read `{shown}`"))?;
        Ok(Self::of(shown, text))
    }

    pub(super) fn of(shown: String, text: String) -> Self {
        let manifest = manifest::read(&text);
        Self { shown, text, manifest }
    }

    /// Prints findings; on standard error, or as JSON where the output is for programs.
    fn print(&self, found: &[Diagnostic], output: Output) {
        if output != Output::Table {
            output.value(&json!({"file": self.shown, "diagnostics": found}));
        } else if !found.is_empty() {
            term::errln(diagnostics::render(&self.shown, &self.text, found, Paint::stderr()).trim_end());
        }
    }

    pub(super) fn refuse(&self, found: &[Diagnostic], output: Output) -> Failure {
        self.print(found, output);
        Failure::said(Exit::Invalid)
    }
}

pub(super) async fn deploy(context: &Context, args: DeployArgs) -> Result<()> {
    let source = Source::read(&args.file)?;
    let output = context.output();
    if source.manifest.has_errors() {
        return Err(source.refuse(&source.manifest.diagnostics(), output));
    }
    let client = context.client()?;
    let renamed = push_files(client, &args.file, &source, output).await?;
    let sent = source.manifest.with_components(|reference| {
        renamed
            .iter()
            .find(|renamed| renamed.from == *reference)
            .map(|renamed| renamed.to.clone())
    });
    let method = if args.new { Method::POST } else { Method::PUT };
    let answer = send(client, method, &source, &sent, &renamed, output).await?;
    let found = read_diagnostics(&answer);
    let found: Vec<_> = found
        .into_iter()
        .map(|found| in_file(found, &source.text, &sent, &renamed))
        .collect();
    if output != Output::Table {
        output.value(&answer);
        return Ok(());
    }
    source.print(&found, output);
    let text = |key: &str| escape::line(answer.get(key).and_then(Value::as_str).unwrap_or_default()).into_owned();
    let flag = |key: &str| answer.get(key).and_then(Value::as_bool).unwrap_or(false);
    let what = match (flag("new_dag"), flag("new_version")) {
        (true, _) => "deployed",
        (false, true) => "deployed a new version of",
        (false, false) => "nothing has changed in",
    };
    let version = answer.get("version_number").and_then(Value::as_u64).unwrap_or_default();
    term::errln(&format!(
        "{what} {} (version {version}, {})",
        Paint::stderr().bold(&text("dag_id")),
        format::digest(&text("digest"))
    ));
    Ok(())
}

/// Uploads the files that the manifest names and the server lacks, and waits until they are compiled.
async fn push_files(client: &Client, file: &Path, source: &Source, output: Output) -> Result<Vec<Renamed>> {
    let mut renamed = Vec::new();
    let mut pushed = Vec::new();
    let mut found = Vec::new();
    for named in source.manifest.components() {
        let ComponentRef::Path(path) = &named.value else {
            continue;
        };
        let local = beside(file, path);
        let digest = match digest_of_file(&local).await {
            Ok(digest) => digest,
            Err(error) => {
                found.push(bad_component(
                    "component_unusable",
                    named.pos,
                    format!("cannot read component `{path}`: {error}"),
                ));
                continue;
            }
        };
        let component = components::upload(client, &local, None).await?;
        pushed.push((path.clone(), named.pos, component));
        renamed.push(Renamed::path(path, digest));
    }
    for (path, pos, component) in pushed {
        let component = components::wait_ready(client, component).await?;
        if let Err(refused) = components::refuse_refused(&format!("component `{path}`"), &component) {
            found.push(bad_component("component_refused", pos, refused.to_string()));
        } else if output == Output::Table {
            term::errln(&Paint::stderr().dim(&format!("{path} is {}", components::short(&component))));
        }
    }
    if found.is_empty() {
        Ok(renamed)
    } else {
        Err(source.refuse(&found, output))
    }
}

fn bad_component(code: &str, pos: Pos, message: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: code.to_owned(),
        message,
        line: pos.line,
        column: pos.column,
        hint: Some(match code {
            "component_refused" => "mend the component and build it anew".to_owned(),
            _ => "a path is looked for beside the manifest; is the component built?".to_owned(),
        }),
    }
}

/// Sends the manifest; waits while the server compiles components that it names by tags.
async fn send(
    client: &Client,
    method: Method,
    source: &Source,
    sent: &str,
    renamed: &[Renamed],
    output: Output,
) -> Result<Value> {
    let url = client.url(&api(&["dags"]), &[]);
    let begin = std::time::Instant::now();
    let mut spinner = None;
    loop {
        let body = sent.to_owned();
        let response = client
            .send(method.clone(), &url, |request| {
                request
                    .header(CONTENT_TYPE, "application/yaml")
                    .body(body.clone())
                    .timeout(Duration::from_secs(120))
            })
            .await?;
        let status = response.status();
        let bytes = response
            .bytes()
            .await
            .or_fail(Exit::Unreachable, || "the server's answer broke off".to_owned())?;
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(answer);
        }
        let code = answer.get("code").and_then(Value::as_str);
        if status == StatusCode::CONFLICT && code == Some("component_compiling") && begin.elapsed() < COMPILE_PATIENCE {
            spinner.get_or_insert_with(|| progress::spinner("the server compiles components"));
            tokio::time::sleep(Duration::from_millis(250)).await;
            continue;
        }
        let found = read_diagnostics(&answer);
        if found.is_empty() {
            return Err(error_answer(status, &url, &answer));
        }
        drop(spinner);
        let found: Vec<_> = found
            .into_iter()
            .map(|found| in_file(found, &source.text, sent, renamed))
            .collect();
        return Err(source.refuse(&found, output));
    }
}

fn read_diagnostics(answer: &Value) -> Vec<Diagnostic> {
    let found = answer.get("diagnostics").cloned().unwrap_or_default();
    serde_json::from_value(found).unwrap_or_default()
}

pub(super) async fn check(context: &Context, args: CheckArgs) -> Result<()> {
    let source = Source::read(&args.file)?;
    let output = context.output();
    let client = if args.offline { None } else { Some(context.client()?) };
    let mut lookup = Lookup::new(&args.file, client);
    let components = lookup.components(&source.manifest).await?;
    let checked = match lookup.pools().await? {
        Some(pools) => manifest::compile_on(&source.manifest, &components, &pools),
        None => manifest::compile(&source.manifest, &components),
    };
    let (found, dag) = match checked {
        Ok(checked) => (checked.diagnostics, Some(checked.dag)),
        Err(found) => (lookup.soften(found), None),
    };
    if found.iter().any(|found| found.severity == Severity::Error) {
        return Err(source.refuse(&found, output));
    }
    source.print(&found, output);
    if output == Output::Table {
        let id = source.manifest.dag_id().map(ToString::to_string).unwrap_or_default();
        let what = match dag {
            Some(dag) => format!("{} tasks, no errors", dag.tasks.len()),
            None => "no errors, but not all components were checked".to_owned(),
        };
        let paint = Paint::stderr();
        term::errln(&format!("{} {}: {what}", paint.green("✓"), escape::line(&id)));
    }
    Ok(())
}

/// Looks components up: files here, the others on the server, if there is one.
pub(super) struct Lookup<'a> {
    file: &'a Path,
    client: Option<&'a Client>,
    workshop: Option<Workshop>,
    /// What could not be looked up, and why.
    unchecked: HashMap<String, String>,
}

impl<'a> Lookup<'a> {
    /// Paths are beside `file`.
    pub(super) fn new(file: &'a Path, client: Option<&'a Client>) -> Self {
        Self {
            file,
            client,
            workshop: None,
            unchecked: HashMap::new(),
        }
    }

    pub(super) async fn components(&mut self, manifest: &Manifest) -> Result<Components> {
        let mut components = Components::new();
        for named in manifest.components() {
            let resolved = match &named.value {
                ComponentRef::Path(path) => {
                    if self.workshop.is_none() {
                        self.workshop = Some(Workshop::open()?);
                    }
                    match &self.workshop {
                        Some(workshop) => workshop.resolve_file(&beside(self.file, path)).await,
                        None => continue,
                    }
                }
                reference => self.on_server(reference).await?,
            };
            components.insert(named.value, resolved);
        }
        Ok(components)
    }

    /// The pools of the server, if there is one that answers.
    pub(super) async fn pools(&mut self) -> Result<Option<Pools>> {
        let Some(client) = self.client else {
            return Ok(None);
        };
        match list(client, &api(&["pools"]), "pools", &[], usize::MAX).await {
            Ok((pools, _)) => Ok(Some(
                pools
                    .iter()
                    .filter_map(|pool| {
                        let name = pool.get("name").and_then(Value::as_str)?;
                        Some((name.to_owned(), pool.get("slots").and_then(Value::as_i64)?))
                    })
                    .collect(),
            )),
            Err(failure) if matches!(failure.exit(), Exit::Unreachable | Exit::Unauthorized) => {
                self.client = None;
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    async fn on_server(
        &mut self,
        reference: &ComponentRef,
    ) -> Result<std::result::Result<ResolvedComponent, Unresolved>> {
        let text = match reference.digest() {
            Some(digest) => digest.to_string(),
            None => reference.to_string(),
        };
        let why = match self.client {
            None => "no server was asked".to_owned(),
            Some(client) => match client.find(&api(&["components", &text]), &[]).await {
                Ok(found) => return found_component(client, found).await,
                Err(failure) if matches!(failure.exit(), Exit::Unreachable | Exit::Unauthorized) => failure.to_string(),
                Err(failure) => return Err(failure),
            },
        };
        // Asked once: a server that does not answer will not answer for the next one either.
        self.client = None;
        self.unchecked.insert(reference.to_string(), why.clone());
        Ok(Err(Unresolved::Unusable(why)))
    }

    /// What could not be looked up is no error of the manifest.
    fn soften(&self, found: Vec<Diagnostic>) -> Vec<Diagnostic> {
        let unchecked = |diagnostic: &Diagnostic| {
            let named = |reference: &String| diagnostic.message.contains(&format!("`{reference}`"));
            diagnostic.code == "component_unusable" && self.unchecked.keys().any(named)
        };
        found
            .into_iter()
            .map(|diagnostic| {
                if unchecked(&diagnostic) {
                    Diagnostic {
                        severity: Severity::Note,
                        code: "component_not_checked".to_owned(),
                        message: diagnostic.message.replace("cannot be used", "was not checked"),
                        hint: Some("with a server, what it takes and answers is checked, too".to_owned()),
                        ..diagnostic
                    }
                } else {
                    diagnostic
                }
            })
            .collect()
    }
}

/// A component of the server, as the check needs it.
async fn found_component(
    client: &Client,
    found: Option<Value>,
) -> Result<std::result::Result<ResolvedComponent, Unresolved>> {
    let Some(component) = found else {
        let known = client
            .get(&api(&["components"]), &[("limit", "100".to_owned())])
            .await?;
        let tags = known.get("components").and_then(Value::as_array).into_iter().flatten();
        let tags = tags.filter_map(|component| component.get("tags")?.as_array()).flatten();
        return Ok(Err(Unresolved::NotFound {
            known: tags.filter_map(Value::as_str).map(str::to_owned).collect(),
        }));
    };
    let component = components::wait_ready(client, component).await?;
    let text = |pointer: &str| component.pointer(pointer).and_then(Value::as_str);
    if text("/state") == Some("refused") {
        return Ok(Err(Unresolved::Refused(
            text("/refusal/message").unwrap_or("no reason is known").to_owned(),
        )));
    }
    let broken = || "the server's answer about a component is not understood".to_owned();
    let descriptor = component.get("descriptor").cloned().unwrap_or_default();
    let descriptor: Descriptor = serde_json::from_value(descriptor).or_fail(Exit::Broken, broken)?;
    let digest = text("/digest")
        .unwrap_or_default()
        .parse()
        .or_fail(Exit::Broken, broken)?;
    Ok(Ok(ResolvedComponent {
        digest,
        descriptor: Arc::new(descriptor),
    }))
}
