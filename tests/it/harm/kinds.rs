//! The kinds of harm: tries, requests and uploads that take more than their share.

use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::component::Wat;
use crate::support::Client;

/// The server that harm is done to.
pub(crate) struct Target<'a> {
    pub(crate) client: &'a Client,
    pub(crate) url: &'a str,
    pub(crate) port: u16,
    /// The number of the doer.
    pub(crate) doer: usize,
}

/// One kind of harm.
pub(crate) enum Kind {
    /// A task of the component `harm` with this input, and how its run may end.
    Task(&'static str, &'static str, &'static [&'static str]),
    /// A template as the input of an innocent task.
    Template(&'static str, &'static str),
    /// A manifest to be checked.
    Check(&'static str, fn() -> String),
    /// A manifest to be deployed and run.
    Run(&'static str, fn() -> String, fn() -> Value),
    /// A component to be uploaded.
    Upload(&'static str, fn() -> Vec<u8>),
    /// Wrong passwords.
    Logins,
    /// Connections that say nothing, or nothing whole.
    Sockets,
    /// A run that is cancelled at once.
    Cancelled,
}

const FAILS: &[&str] = &["failed"];
const ANY: &[&str] = &["success", "failed"];

pub(crate) const ALL: &[Kind] = &[
    Kind::Task("spin", "{}", FAILS),
    Kind::Task("memory", "{}", FAILS),
    Kind::Task("empty_records", "{times: 1000000}", ANY),
    Kind::Task("large_fields", "{times: 2000}", ANY),
    Kind::Task("line_ends", "{times: 2000}", ANY),
    Kind::Task("readers", "{times: 5000}", ANY),
    Kind::Task("writers", "{times: 5000}", ANY),
    Kind::Task("xcoms", "{times: 100}", ANY),
    Kind::Task("checkpoints", "{times: 50}", ANY),
    Kind::Task("reports", "{times: 20000}", ANY),
    Kind::Task("large_answer", "{}", FAILS),
    Kind::Task("panics", "{}", FAILS),
    // Sums of strings, of which none alone is too long.
    Kind::Template(
        "sum_of_strings",
        "{{ range(1000)|map('string')|map('replace','','zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz')|map('replace','z','zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz')|list|length }}",
    ),
    // Few instructions that are long each.
    Kind::Template(
        "long_loop",
        "{% for i in range(20000) %}{{ ('x'|replace('x','y'*3000)|replace('y','z'*5000))|length }}{% endfor %}",
    ),
    Kind::Check("recursive_schema", recursive_schema),
    Kind::Check("patterns", patterns),
    Kind::Check("many_edges", many_edges),
    Kind::Run("many_instances", many_instances, numbers),
    Kind::Upload("tables", tables),
    Kind::Upload("memories", memories),
    Kind::Logins,
    Kind::Sockets,
    Kind::Cancelled,
];

impl Kind {
    /// The DAG that the kind wants deployed.
    pub(crate) fn manifest(&self) -> Option<String> {
        let limits = "limits: {memory: 64MiB, timeout: 5s, cpu_time: 2s}";
        match self {
            Self::Task(task, input, _) => Some(format!(
                "dag: harm_{task}\nmax_active_runs: 1000\ntasks:\n  t: {{component: harm@1, task: {task}, input: {input}, {limits}}}\n"
            )),
            Self::Template(name, template) => Some(format!(
                "dag: harm_{name}\nmax_active_runs: 1000\ntasks:\n  t: {{component: harm@1, task: text, input: {{text: {}}}, {limits}}}\n",
                json!(template)
            )),
            Self::Run(_, manifest, _) => Some(manifest()),
            _ => None,
        }
    }

    pub(crate) async fn act(&self, target: &Target<'_>, random: &mut StdRng) {
        let client = target.client;
        match self {
            Self::Task(task, _, ends) => run(client, &format!("harm_{task}"), json!({}), ends).await,
            Self::Template(name, _) => run(client, &format!("harm_{name}"), json!({}), FAILS).await,
            Self::Run(name, _, conf) => run(client, &format!("harm_{name}"), conf(), ANY).await,
            Self::Check(name, manifest) => {
                let request = client
                    .request(reqwest::Method::POST, "/dags/check")
                    .header("content-type", "application/yaml");
                let answer = client.send(request.body(manifest())).await.expect("the server answers");
                assert!(
                    !answer.status.is_server_error(),
                    "{name}: {} {}",
                    answer.status,
                    answer.text
                );
            }
            Self::Upload(name, wasm) => {
                // New content each time: a custom section of eight bytes.
                let mut wasm = wasm();
                wasm.extend_from_slice(&[0, 10, 1, b'x']);
                wasm.extend_from_slice(&random.random::<u64>().to_le_bytes());
                let version: u32 = random.random();
                let answer = client.upload(&format!("{name}-{}@{version}", target.doer), wasm).await;
                assert!(
                    !answer.status.is_server_error(),
                    "{name}: {} {}",
                    answer.status,
                    answer.text
                );
            }
            Self::Logins => logins(target).await,
            Self::Sockets => sockets(target, random).await,
            Self::Cancelled => cancelled(client).await,
        }
    }
}

async fn run(client: &Client, dag_id: &str, conf: Value, ends: &[&str]) {
    let body = json!({"logical_date": null, "conf": conf});
    let answer = client.post(&format!("/dags/{dag_id}/dagRuns"), &body).await;
    if answer.status.is_client_error() {
        // What is refused at once does no harm.
        return;
    }
    let run = answer.ok();
    let run_id = run["dag_run_id"].as_str().expect("a run id");
    let state = client.wait(dag_id, run_id).await;
    assert!(ends.contains(&state.as_str()), "{dag_id} ended as {state}");
}

async fn logins(target: &Target<'_>) {
    let http = reqwest::Client::new();
    for number in 0..40 {
        let body = json!({"username": "admin", "password": format!("guess {number}")});
        let answer = http.post(format!("{}/auth/token", target.url)).json(&body).send().await;
        let status = answer.expect("the server answers").status();
        assert!(status.is_client_error(), "{status}");
    }
}

async fn sockets(target: &Target<'_>, random: &mut StdRng) {
    let mut open = Vec::new();
    for _ in 0..300 {
        // The server may refuse or close them: that is its right.
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", target.port)).await else {
            continue;
        };
        if random.random() {
            let _ = stream.write_all(b"GET /api/v2/version HT").await;
        }
        open.push(stream);
    }
    // All of them are open, and others are answered.
    for _ in 0..20 {
        target.client.get("/version").await.ok();
    }
    drop(open);
}

async fn cancelled(client: &Client) {
    let run_id = client.trigger("harm_spin", json!({})).await;
    let path = format!("/dags/harm_spin/dagRuns/{run_id}");
    client.patch(&path, &json!({"state": "failed"})).await.ok();
    assert_eq!(client.wait("harm_spin", &run_id).await, "failed");
}

/// A schema that describes itself twice, with a default that is nested deep.
fn recursive_schema() -> String {
    let branch = r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/n"}},"required":["a"]}"##;
    let depth = 20;
    let default = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    format!(
        "dag: bad\nparams:\n  p: {{\"$defs\":{{\"n\":{{\"anyOf\":[{branch},{branch}]}}}},\"$ref\":\"#/$defs/n\",\"default\":{default}}}\n\
         tasks:\n  t: {{component: workload@1, task: spin, input: {{ms: 0, value: 1}}}}\n"
    )
}

/// Patterns whose automata are large.
fn patterns() -> String {
    use std::fmt::Write as _;
    let mut text = "dag: bad\nparams:\n".to_owned();
    for number in 0..200 {
        let _ = writeln!(
            text,
            "  p{number}: {{type: string, pattern: '\\p{{L}}{{20}}{number}', default: a}}"
        );
    }
    text + "tasks:\n  t: {component: workload@1, task: spin, input: {ms: 0, value: 1}}\n"
}

/// Two groups of many tasks, one after the other.
fn many_edges() -> String {
    use std::fmt::Write as _;
    let mut text = "dag: bad\ntasks:\n".to_owned();
    for (group, after) in [("a", ""), ("b", "    after: [a]\n")] {
        let _ = write!(text, "  {group}:\n{after}    tasks:\n");
        for number in 0..600 {
            let _ = writeln!(text, "      t{number}: {{component: workload@1, task: skip}}");
        }
    }
    text
}

/// A thousand elements, and a thousand in each.
fn many_instances() -> String {
    "dag: harm_many_instances\nparams: {n: {type: array}}\ntasks:\n  g:\n    expand: {a: \"{{ params.n }}\"}\n    tasks:\n      \
     t: {component: workload@1, task: spin, input: {ms: 0}, expand: {value: \"{{ params.n }}\"}, map_limit: 100000}\n"
        .to_owned()
}

fn numbers() -> Value {
    json!({"n": (0..1000).collect::<Vec<i32>>()})
}

/// A component with more tables than most engines have left.
fn tables() -> Vec<u8> {
    let plain = Wat::default();
    let module = format!("{} {}", plain.module, "(table 1 funcref) ".repeat(64));
    Wat { module, ..plain }.wasm()
}

/// A component with several memories.
fn memories() -> Vec<u8> {
    let plain = Wat::default();
    let module = format!("{} {}", plain.module, "(memory 1) ".repeat(15));
    Wat { module, ..plain }.wasm()
}
