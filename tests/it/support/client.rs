//! A client of the REST API that fails the test with what the server said.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// A status and a JSON body (null where the body is not JSON).
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!(self.status.is_success(), "answered {}: {}", self.status, self.text);
        self.body
    }

    /// The body of an answer with this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "answered: {}", self.text);
        self.body
    }
}

/// A logged-in client.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Client {
    pub(crate) async fn login(url: &str, username: &str, password: &str) -> Self {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(120))
            .build()
            .expect("a client");
        let login = json!({"username": username, "password": password});
        let answer = http
            .post(format!("{url}/auth/token"))
            .json(&login)
            .send()
            .await
            .expect("the server answers");
        assert_eq!(answer.status(), StatusCode::CREATED);
        let body: Value = answer.json().await.expect("a JSON body");
        let token = body["access_token"].as_str().expect("a token").to_owned();
        Self {
            http,
            url: url.to_owned(),
            token,
        }
    }

    /// A request to `/api/v2…`.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}/api/v2{path}", self.url))
            .bearer_auth(&self.token)
    }

    /// Sends a request.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        Ok(Answer {
            status,
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path))
            .await
            .expect("the server answers")
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body))
            .await
            .expect("the server answers")
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PATCH, path).json(body))
            .await
            .expect("the server answers")
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path))
            .await
            .expect("the server answers")
    }

    /// Uploads a component and waits until it is ready or refused.
    pub(crate) async fn upload(&self, tag: &str, wasm: Vec<u8>) -> Answer {
        let (name, version) = tag.split_once('@').expect("a tag is name@version");
        let path = format!("/components?name={name}&version={version}&wait=true");
        let request = self
            .request(Method::POST, &path)
            .header("content-type", "application/wasm")
            .body(wasm);
        self.send(request).await.expect("the server answers")
    }

    /// Uploads a component file that must be fine.
    pub(crate) async fn push(&self, tag: &str, path: impl AsRef<Path>) {
        let wasm = std::fs::read(path).expect("the component was built");
        let component = self.upload(tag, wasm).await.ok();
        assert_eq!(component["state"], "ready", "{component}");
    }

    /// Deploys a manifest.
    pub(crate) async fn deploy(&self, manifest: &str) -> Answer {
        let request = self
            .request(Method::PUT, "/dags")
            .header("content-type", "application/yaml");
        self.send(request.body(manifest.to_owned()))
            .await
            .expect("the server answers")
    }

    /// Triggers a run; answers its id.
    pub(crate) async fn trigger(&self, dag_id: &str, conf: Value) -> String {
        let body = json!({"logical_date": null, "conf": conf});
        let run = self.post(&format!("/dags/{dag_id}/dagRuns"), &body).await.ok();
        run["dag_run_id"].as_str().expect("a run id").to_owned()
    }

    /// Waits until the run has ended; answers its state.
    pub(crate) async fn wait(&self, dag_id: &str, run_id: &str) -> String {
        let path = format!("/dags/{dag_id}/dagRuns/{run_id}/wait?interval=1");
        let answer = self.get(&path).await;
        assert!(answer.status.is_success(), "{}", answer.text);
        let last = answer.text.lines().last().expect("a line");
        let last: Value = serde_json::from_str(last).expect("a JSON line");
        last["state"].as_str().expect("a state").to_owned()
    }

    /// Reads a path again with every change that the server tells of a DAG, until the answer is as it should be.
    pub(crate) async fn until(&self, dag_id: &str, path: &str, done: impl Fn(&Value) -> bool) -> Value {
        let events = self.request(Method::GET, &format!("/events?dag_id={dag_id}"));
        let events = events.send().await.expect("the server answers");
        assert!(events.status().is_success());
        let mut events = events.bytes_stream();
        loop {
            let answer = self.get(path).await.ok();
            if done(&answer) {
                return answer;
            }
            events.next().await.expect("the stream goes on").expect("an event");
        }
    }

    /// The proof of identity.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// The task instances of a run, by task id; of a task with many the last one.
    pub(crate) async fn task_instances(&self, dag_id: &str, run_id: &str) -> serde_json::Map<String, Value> {
        let mut all = serde_json::Map::new();
        let mut read = 0;
        loop {
            let path = format!("/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=100&offset={read}");
            let page = self.get(&path).await.ok();
            let items = page["task_instances"].as_array().expect("a list").clone();
            if items.is_empty() {
                return all;
            }
            read += items.len();
            for item in items {
                let task_id = item["task_id"].as_str().expect("a task id").to_owned();
                all.insert(task_id, item);
            }
        }
    }

    /// An XCom's value.
    pub(crate) async fn xcom(&self, dag_id: &str, run_id: &str, task_id: &str, key: &str) -> Value {
        let path = format!("/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}");
        self.get(&path).await.ok()["value"].clone()
    }

    /// The log of a try as plain text.
    pub(crate) async fn log(&self, dag_id: &str, run_id: &str, task_id: &str, try_number: u32) -> String {
        let path =
            format!("/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}?full_content=true");
        let request = self.request(Method::GET, &path).header("accept", "text/plain");
        let answer = self.send(request).await.expect("the server answers");
        assert!(answer.status.is_success(), "{}", answer.text);
        answer.text
    }
}
