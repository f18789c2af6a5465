//! A small client of the REST API.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use ureq::http::Response;
use ureq::{Agent, Body, RequestBuilder};

/// The most that an answer may hold, in bytes.
const MAX_ANSWER_BYTES: u64 = 256 << 20;

/// A logged-in client.
pub(crate) struct Client {
    http: Agent,
    url: String,
    token: String,
}

/// Connections to a server; an answer with an error status is an answer.
pub(crate) fn agent() -> Agent {
    Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(600)))
        .http_status_as_error(false)
        .build()
        .into()
}

impl Client {
    /// Logs in by `POST /auth/token`.
    pub(crate) fn login(url: &str, username: &str, password: &str) -> Result<Self> {
        let http = agent();
        let answer = http
            .post(format!("{url}/auth/token"))
            .send_json(json!({"username": username, "password": password}))
            .context("cannot log in")?;
        let token = body(answer, "log in")?["access_token"]
            .as_str()
            .context("the login answered no token")?
            .to_owned();
        Ok(Self {
            http,
            url: url.to_owned(),
            token,
        })
    }

    fn with_token<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        request.header("authorization", format!("Bearer {}", self.token))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v2{path}", self.url)
    }

    /// The answer to a `GET`, whatever its status.
    fn answer(&self, path: &str) -> Result<Response<Body>> {
        let request = self.with_token(self.http.get(self.url(path)));
        request.call().with_context(|| format!("cannot get {path}"))
    }

    /// `GET`.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        body(self.answer(path)?, path)
    }

    /// `POST` of a JSON body.
    pub(crate) fn post(&self, path: &str, json: &Value) -> Result<Value> {
        let request = self.with_token(self.http.post(self.url(path)));
        let answer = request.send_json(json);
        body(answer.with_context(|| format!("cannot post to {path}"))?, path)
    }

    /// Changes something.
    pub(crate) fn patch(&self, path: &str, json: &Value) -> Result<Value> {
        let request = self.with_token(self.http.patch(self.url(path)));
        let answer = request.send_json(json);
        body(answer.with_context(|| format!("cannot patch {path}"))?, path)
    }

    /// Uploads a component under a tag and waits until it can be used.
    pub(crate) fn push_component(&self, tag: &str, wasm: &Path) -> Result<Value> {
        let (name, version) = tag.split_once('@').context("a tag is name@version")?;
        let path = format!("/components?name={name}&version={version}&wait=true");
        let file = std::fs::File::open(wasm).with_context(|| format!("cannot open {}", wasm.display()))?;
        let request = self
            .with_token(self.http.post(self.url(&path)))
            .header("content-type", "application/wasm");
        let answer = request.send(file).with_context(|| format!("cannot upload {tag}"))?;
        let component = body(answer, &path)?;
        if component["state"] != "ready" {
            bail!("component {tag} is `{}`: {}", component["state"], component["refusal"]);
        }
        Ok(component)
    }

    /// Deploys a manifest; a DAG that exists gets a new version.
    pub(crate) fn deploy(&self, manifest: &str) -> Result<Value> {
        let request = self
            .with_token(self.http.put(self.url("/dags")))
            .header("content-type", "application/yaml");
        body(request.send(manifest).context("cannot deploy")?, "/dags")
    }

    /// Triggers a run; answers it.
    pub(crate) fn trigger(&self, dag_id: &str, conf: &Value) -> Result<Value> {
        self.post(
            &format!("/dags/{dag_id}/dagRuns"),
            &json!({"logical_date": null, "conf": conf}),
        )
    }

    /// Waits until a run has ended; answers its state.
    pub(crate) fn wait(&self, dag_id: &str, run_id: &str) -> Result<String> {
        let path = format!("/dags/{dag_id}/dagRuns/{run_id}/wait?interval=1");
        let answer = self.answer(&path)?;
        if !answer.status().is_success() {
            body(answer, &path)?;
            bail!("{path} answered nothing");
        }
        let mut state = String::new();
        for line in BufReader::new(answer.into_body().into_reader()).lines() {
            let line = line.context("the connection broke while waiting for the run")?;
            if let Ok(value) = serde_json::from_str::<Value>(&line) {
                state = value["state"].as_str().unwrap_or_default().to_owned();
            }
        }
        Ok(state)
    }

    /// The server-sent events of a run, one call an event, until the callback answers false or the stream ends.
    pub(crate) fn events(&self, path: &str, mut each: impl FnMut(&Value) -> bool) -> Result<()> {
        let answer = self.answer(path)?;
        if !answer.status().is_success() {
            body(answer, path)?;
            return Ok(());
        }
        for line in BufReader::new(answer.into_body().into_reader()).lines() {
            let line = line.context("the event stream broke")?;
            if let Some(data) = line.strip_prefix("data:")
                && let Ok(event) = serde_json::from_str(data.trim())
                && !each(&event)
            {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The JSON of an answer, or an error that shows what the server said.
fn body(mut answer: Response<Body>, what: &str) -> Result<Value> {
    let status = answer.status();
    let text = answer
        .body_mut()
        .with_config()
        .limit(MAX_ANSWER_BYTES)
        .read_to_string()
        .with_context(|| format!("the answer to {what} broke off"))?;
    if !status.is_success() {
        bail!("{what} answered {status}: {text}");
    }
    serde_json::from_str(&text).with_context(|| format!("the answer to {what} is not JSON: {text}"))
}
