//! Requests and answers.

use std::time::Duration;

use model::Clock as _;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::credentials::{Proof, Saved, Target, is_loopback};
use crate::clock::SystemClock;
use crate::failure::{Exit, Failure, OrFail, Result};

/// Query parameters.
pub(crate) type Query<'a> = &'a [(&'a str, String)];

/// How long an answer may take that is not a stream.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Talks to one server.
pub(crate) struct Client {
    http: reqwest::Client,
    target: Target,
    session: Mutex<Session>,
}

#[derive(Default)]
struct Session {
    token: Option<String>,
    /// How many proofs were used up.
    used: usize,
}

impl Client {
    /// Nothing is sent yet.
    pub(crate) fn new(target: Target) -> Result<Self> {
        if target.server.scheme() == "https" {
            return Err(Failure::new(Exit::Invalid, "this build speaks plain HTTP only")
                .hint("reach the server over http through a tunnel, such as `ssh -L 8080:127.0.0.1:8080 HOST`"));
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .user_agent(concat!("airtight/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&target.server) {
            builder = builder.no_proxy();
        }
        let http = builder
            .build()
            .or_fail(Exit::Broken, || "cannot set up the HTTP client".to_owned())?;
        Ok(Self {
            http,
            target,
            session: Mutex::default(),
        })
    }

    /// The server's address.
    pub(crate) fn server(&self) -> &Url {
        &self.target.server
    }

    /// The URL of path segments below the server's address; each is percent-encoded.
    pub(crate) fn url(&self, path: &[&str], query: Query<'_>) -> Url {
        let mut url = self.target.server.clone();
        url.path_segments_mut()
            .expect("an http URL has a path")
            .pop_if_empty()
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut()
                .extend_pairs(query.iter().map(|(key, value)| (*key, value.as_str())));
        }
        url
    }

    /// `GET` of JSON.
    pub(crate) async fn get(&self, path: &[&str], query: Query<'_>) -> Result<Value> {
        let url = self.url(path, query);
        self.json(Method::GET, &url, |request| request).await
    }

    /// `GET` of JSON, as the text that the server wrote.
    pub(crate) async fn get_text(&self, path: &[&str], query: Query<'_>) -> Result<String> {
        let url = self.url(path, query);
        let response = self
            .send(Method::GET, &url, |request| request.timeout(ANSWER_TIMEOUT))
            .await?;
        let response = accept(response).await?;
        response
            .text()
            .await
            .or_fail(Exit::Unreachable, || format!("the answer of {url} broke off"))
    }

    /// `GET` of JSON that the server may take its time for.
    pub(crate) async fn get_waiting(&self, path: &[&str], query: Query<'_>) -> Result<Value> {
        let response = self
            .stream(Method::GET, &self.url(path, query), |request| request)
            .await?;
        read_json(response).await
    }

    /// `GET` of JSON; none where the server answers 404.
    pub(crate) async fn find(&self, path: &[&str], query: Query<'_>) -> Result<Option<Value>> {
        let url = self.url(path, query);
        let response = self
            .send(Method::GET, &url, |request| request.timeout(ANSWER_TIMEOUT))
            .await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        read_json(accept(response).await?).await.map(Some)
    }

    /// A request with a JSON body.
    pub(crate) async fn send_json(
        &self,
        method: Method,
        path: &[&str],
        query: Query<'_>,
        body: &Value,
    ) -> Result<Value> {
        let url = self.url(path, query);
        self.json(method, &url, |request| request.json(body)).await
    }

    /// `DELETE`.
    pub(crate) async fn delete(&self, path: &[&str]) -> Result<()> {
        let url = self.url(path, &[]);
        let response = self
            .send(Method::DELETE, &url, |request| request.timeout(ANSWER_TIMEOUT))
            .await?;
        accept(response).await.map(drop)
    }

    /// A request whose answer may take any time and any length. Error answers are read and returned as failures.
    pub(crate) async fn stream(
        &self,
        method: Method,
        url: &Url,
        build: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        accept(self.send(method, url, build).await?).await
    }

    async fn json(&self, method: Method, url: &Url, build: impl Fn(RequestBuilder) -> RequestBuilder) -> Result<Value> {
        let response = self
            .send(method, url, |request| build(request).timeout(ANSWER_TIMEOUT))
            .await?;
        read_json(accept(response).await?).await
    }

    /// Sends with a token; where the server refuses the token, tries the next way to prove who we are. `build` may be called
    /// several times.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &Url,
        build: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        loop {
            let token = self.token().await?;
            let mut request = self.http.request(method.clone(), url.clone());
            if let Some(token) = &token {
                request = request.bearer_auth(token);
            }
            let response = build(request).send().await.map_err(|error| self.unreachable(&error))?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            let mut session = self.session.lock().await;
            if session.token == token {
                session.token = None;
            }
            if session.token.is_none() && session.used >= self.target.proofs.len() {
                return Err(self.unauthorized(token.is_some()));
            }
        }
    }

    /// The current token, after logging in where it takes that.
    pub(crate) async fn token(&self) -> Result<Option<String>> {
        let mut session = self.session.lock().await;
        while session.token.is_none() {
            let Some(proof) = self.target.proofs.get(session.used) else {
                break;
            };
            session.used += 1;
            match proof {
                Proof::Token(token) => session.token = Some(token.clone()),
                Proof::Key(key) => session.token = api::local_token(key, SystemClock.now()).ok(),
                Proof::Password { username, password } => {
                    session.token = self.login(username, password).await?;
                }
            }
        }
        Ok(session.token.clone())
    }

    /// Exchanges a password for a token; none where it is wrong.
    pub(crate) async fn login(&self, username: &str, password: &str) -> Result<Option<String>> {
        let url = self.url(&["auth", "token"], &[]);
        let mut request = self.http.post(url);
        // Whoever has logged in before is not kept waiting for the wrong passwords of others.
        if let Some(token) = Saved::load().ok().as_ref().and_then(|saved| saved.token(self.server())) {
            request = request.bearer_auth(token);
        }
        let response = request
            .timeout(ANSWER_TIMEOUT)
            .json(&json!({"username": username, "password": password}))
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Ok(None);
        }
        let answer = read_json(accept(response).await?).await?;
        match answer.get("access_token").and_then(Value::as_str) {
            Some(token) => Ok(Some(token.to_owned())),
            None => Err(Failure::new(
                Exit::Broken,
                "the server's answer to the login holds no token",
            )),
        }
    }

    fn unauthorized(&self, had_token: bool) -> Failure {
        let server = &self.target.server;
        let message = if had_token {
            format!("{server} does not accept the login")
        } else {
            format!("{server} asks for a login")
        };
        Failure::new(Exit::Unauthorized, message).hint(
            "run `airtight login`, or pass --token, or --data-dir with the data directory of a server on this machine",
        )
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let server = &self.target.server;
        let failure = Failure::new(Exit::Unreachable, format!("cannot reach the server at {server}")).because(error);
        if error.is_connect() {
            failure.hint("start one with `airtight standalone`, or name another with --server or AIRTIGHT_SERVER")
        } else {
            failure
        }
    }
}

async fn read_json(response: Response) -> Result<Value> {
    let url = response.url().clone();
    let bytes = response
        .bytes()
        .await
        .or_fail(Exit::Unreachable, || format!("the answer of {url} broke off"))?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes)
        .or_fail(Exit::Broken, || format!("the answer of {url} is not JSON"))
        .map_err(|failure| failure.hint("is this the address of an Airtight server?"))
}

/// Passes success on; turns an error answer into a failure.
async fn accept(response: Response) -> Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let url = response.url().clone();
    let body = response.bytes().await.unwrap_or_default();
    let answer: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Err(error_answer(status, &url, &answer))
}

/// The server's error as a failure: its message, its code, what to do.
pub(crate) fn error_answer(status: StatusCode, url: &Url, answer: &Value) -> Failure {
    let detail = answer.get("detail").unwrap_or(answer);
    let text = |key: &str| detail.get(key).or_else(|| answer.get(key)).and_then(Value::as_str);
    let message = match detail {
        Value::String(message) => message.clone(),
        Value::Array(problems) => problems.iter().map(problem).collect::<Vec<_>>().join("; "),
        _ => text("message")
            .or_else(|| text("reason"))
            .map_or_else(|| format!("the server answered {status} to {url}"), str::to_owned),
    };
    let exit = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Unauthorized,
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => Exit::Invalid,
        status if status.is_server_error() => Exit::Broken,
        _ => Exit::Refused,
    };
    let code = text("code").map(|code| format!(" [{code}]")).unwrap_or_default();
    let failure = Failure::new(exit, format!("{message}{code}"));
    match text("hint") {
        Some(hint) => failure.hint(hint),
        None if text("code") == Some("no_scheduler") => {
            failure.hint("start it with `airtight standalone`, or try again when it is back")
        }
        None if status == StatusCode::SERVICE_UNAVAILABLE => failure.hint("nothing was changed; try again soon"),
        None => failure,
    }
}

/// One problem of a validation error (`{"loc": ["body", "conf"], "msg": "…"}`).
fn problem(problem: &Value) -> String {
    let message = problem.get("msg").and_then(Value::as_str);
    let place: Vec<_> = problem
        .get("loc")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
        .collect();
    match message {
        Some(message) if place.is_empty() => message.to_owned(),
        Some(message) => format!("{}: {message}", place.join(".")),
        None => problem.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(server: &str) -> Client {
        Client::new(Target {
            server: server.parse().unwrap(),
            proofs: Vec::new(),
        })
        .unwrap()
    }

    #[test]
    fn ids_are_encoded_in_urls() {
        let client = client("http://h:1/base/");
        let url = client.url(
            &[
                "api",
                "v2",
                "dags",
                "d",
                "dagRuns",
                "manual__2026-01-31T04:00:00+00:00 /?#",
            ],
            &[],
        );
        assert_eq!(
            url.as_str(),
            "http://h:1/base/api/v2/dags/d/dagRuns/manual__2026-01-31T04:00:00+00:00%20%2F%3F%23"
        );
        let url = client.url(&["x"], &[("a", "1&b=2+3".to_owned())]);
        assert_eq!(url.query(), Some("a=1%26b%3D2%2B3"));
    }

    #[test]
    fn error_answers_become_messages() {
        let url: Url = "http://h/x".parse().unwrap();
        for (status, answer, exit, message) in [
            (
                404,
                json!({"detail": "DAG `x` does not exist", "code": "dag_not_found"}),
                Exit::Refused,
                "DAG `x` does not exist [dag_not_found]",
            ),
            (
                409,
                json!({"detail": {"reason": "Unique constraint", "code": "run_exists"}}),
                Exit::Refused,
                "Unique constraint [run_exists]",
            ),
            (
                422,
                json!({"detail": [{"loc": ["body", "conf"], "msg": "not an object"}]}),
                Exit::Invalid,
                "body.conf: not an object",
            ),
            (
                500,
                Value::Null,
                Exit::Broken,
                "the server answered 500 Internal Server Error to http://h/x",
            ),
        ] {
            let failure = error_answer(StatusCode::from_u16(status).unwrap(), &url, &answer);
            assert_eq!((failure.exit(), failure.to_string().as_str()), (exit, message));
        }
    }
}
