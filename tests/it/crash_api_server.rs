//! `kill -9` of the scheduler, and of one of two servers for the API, at random points while several clients ask for runs and clear them: what
//! was answered is there once, what was not answered at most once, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::Rng as _;
use serde_json::{Value, json};

use crate::support::{Client, Database, Server, seeded, skip};

const SMALL: &str = r#"
dag: small
max_active_runs: 1000
max_active_tasks: 1000
defaults: {max_infra_retries: 100}
tasks:
  t: {component: workload@1, task: spin, input: {ms: 3, value: "{{ conf.value }}"}}
"#;

const ROUNDS: u32 = 10;
const CLIENTS: u32 = 4;

/// What one client, or all of them, got answers to.
#[derive(Default)]
struct Told {
    /// Runs that exist, by what was answered: with how many clears of their task that were answered, and how many were not.
    runs: BTreeMap<String, (u32, u32)>,
    /// Runs with an id of the client's own that may exist.
    maybe: BTreeSet<String>,
    /// How many runs may exist whose ids the client did not choose and does not know.
    unknown: usize,
    /// Requests that were refused because nobody could be asked.
    refused: usize,
}

/// Whether a request was done, may have been done, or was not.
enum Came {
    Done(Value),
    Maybe,
    Refused,
}

async fn came(client: &Client, request: reqwest::RequestBuilder) -> Came {
    let answer = match client.send(request).await {
        Ok(answer) => answer,
        // Its server is away, or was killed while it worked on this.
        Err(error) if error.is_connect() => return Came::Refused,
        Err(error) => {
            assert!(!error.is_timeout(), "a request is not answered: {error}");
            return Came::Maybe;
        }
    };
    if answer.status.is_success() {
        return Came::Done(answer.body);
    }
    match (answer.status.as_u16(), answer.body["code"].as_str()) {
        (504, Some("no_answer")) => Came::Maybe,
        (503, Some("no_scheduler" | "database_unavailable" | "stopping")) => Came::Refused,
        // Two clients may be given the same generated name in the same moment.
        (409, Some("run_exists")) => Came::Refused,
        _ => panic!("answered {}: {}", answer.status, answer.text),
    }
}

/// Waits until a run has ended; `false` where the server was killed meanwhile.
async fn ended(client: &Client, run_id: &str) -> bool {
    let request = client.request(reqwest::Method::GET, &format!("/dags/small/dagRuns/{run_id}/wait"));
    let request = request
        .header("accept", "application/json")
        .timeout(Duration::from_secs(60));
    match client.send(request).await {
        Ok(answer) => {
            assert!(answer.status.is_success(), "{}", answer.text);
            assert_eq!(answer.body["state"], "success", "{}", answer.text);
            true
        }
        Err(error) if error.is_timeout() => {
            let run = client.get(&format!("/dags/small/dagRuns/{run_id}")).await.text;
            let task = client
                .get(&format!("/dags/small/dagRuns/{run_id}/taskInstances/t"))
                .await
                .text;
            panic!("a run does not end: {run} {task}");
        }
        Err(_) => false,
    }
}

/// Triggers and clears until it is told to stop.
async fn work(client: Client, number: u32, stop: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    for turn in 0_u32.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let own = (turn % 2 == 0).then(|| format!("client_{number}_{turn}"));
        let body = json!({"dag_run_id": own, "logical_date": null, "conf": {"value": turn}});
        let request = client.request(reqwest::Method::POST, "/dags/small/dagRuns").json(&body);
        let run_id = match (came(&client, request).await, own) {
            (Came::Done(run), own) => {
                let run_id = run["dag_run_id"].as_str().expect("a run id").to_owned();
                assert!(own.is_none_or(|own| own == run_id));
                assert!(told.runs.insert(run_id.clone(), (0, 0)).is_none(), "{run_id} twice");
                run_id
            }
            (Came::Maybe, Some(own)) => {
                told.maybe.insert(own);
                continue;
            }
            (Came::Maybe, None) => {
                told.unknown += 1;
                continue;
            }
            (Came::Refused, _) => {
                told.refused += 1;
                // The only way to learn that somebody is there again is to ask.
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
        };
        if turn % 3 != 0 {
            continue;
        }
        if !ended(&client, &run_id).await {
            continue;
        }
        let body = json!({"dag_run_id": run_id, "task_ids": ["t"], "only_failed": false, "dry_run": false});
        let request = client.request(reqwest::Method::POST, "/dags/small/clearTaskInstances");
        let clears = told.runs.get_mut(&run_id).expect("it was put there");
        match came(&client, request.json(&body)).await {
            Came::Done(cleared) => {
                assert_eq!(cleared["total_entries"], 1, "{cleared}");
                clears.0 += 1;
            }
            Came::Maybe => clears.1 += 1,
            Came::Refused => told.refused += 1,
        }
    }
    told
}

/// The ids of all runs, each as often as it is listed.
async fn all_runs(client: &Client) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let path = format!("/dags/small/dagRuns?order_by=id&limit=100&offset={}", all.len());
        let page = client.get(&path).await.ok();
        let runs = page["dag_runs"].as_array().expect("a list");
        if runs.is_empty() {
            assert_eq!(page["total_entries"], all.len());
            return all;
        }
        all.extend(
            runs.iter()
                .map(|run| run["dag_run_id"].as_str().expect("a run id").to_owned()),
        );
    }
}

async fn what_was_answered_is_there_once(database: Database) {
    let mut random = seeded();
    let mut server = Server::start(&database).await;
    // Short enough that some requests are not answered while the scheduler is away.
    let options = ["--answer-patience", "250ms", "--scheduler-patience", "20s"];
    let (mut steady, mut killed) = (server.api_server(&options), server.api_server(&options));
    tokio::join!(steady.resume(), killed.resume());
    let clients = [steady.client().await, killed.client().await];
    let client = &clients[0];
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    client.deploy(SMALL).await.ok();

    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .zip(clients.iter().cycle())
        .map(|(number, client)| tokio::spawn(work(client.clone(), number, stop.clone())))
        .collect();
    for _ in 0..ROUNDS {
        // The random moment of the kill.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..500))).await;
        if random.random_bool(0.7) {
            server.kill();
        }
        if random.random_bool(0.5) {
            killed.kill();
        }
        // How long it stays away decides what is not answered in time.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
        server.resume_if_killed().await;
        killed.resume_if_killed().await;
    }
    stop.store(true, Ordering::Release);
    let mut told = Told::default();
    for client in clients {
        let mut one = client.await.expect("no panic");
        told.runs.append(&mut one.runs);
        told.maybe.append(&mut one.maybe);
        told.unknown += one.unknown;
        told.refused += one.refused;
    }

    // The inbox is read in its order: once this is answered, all that was stored before is begun.
    let mut patient = server.api_server(&[]);
    patient.resume().await;
    let body = json!({"dag_run_id": "last", "logical_date": null, "conf": {"value": 0}});
    let asked = patient.client().await.post("/dags/small/dagRuns", &body).await;
    asked.ok();
    told.runs.insert("last".to_owned(), (0, 0));
    // Stopping gracefully ends what was begun.
    assert!(server.stop().await, "{}", server.log());
    server.resume().await;
    let client = server.client().await;
    let all = all_runs(&client).await;
    let unique: BTreeSet<&String> = all.iter().collect();
    assert_eq!(unique.len(), all.len(), "a run is there twice");
    for run_id in told.runs.keys() {
        assert!(unique.contains(run_id), "{run_id} was answered and is not there");
    }
    let others: Vec<_> = all
        .iter()
        .filter(|run_id| !told.runs.contains_key(*run_id) && !told.maybe.contains(*run_id))
        .collect();
    assert!(others.iter().all(|run_id| run_id.starts_with("manual__")), "{others:?}");
    assert!(
        others.len() <= told.unknown,
        "{} runs that nobody was told of, {} requests without an answer",
        others.len(),
        told.unknown
    );
    for run_id in &all {
        assert_eq!(client.wait("small", run_id).await, "success", "{run_id}");
        let (cleared, maybe) = told.runs.get(run_id).copied().unwrap_or_default();
        let task = client.task_instances("small", run_id).await["t"].clone();
        let tries = task["try_number"].as_u64().expect("a number");
        let expected = u64::from(1 + cleared)..=u64::from(1 + cleared + maybe);
        assert!(
            expected.contains(&tries),
            "{run_id}: {tries} tries, expected {expected:?}"
        );
    }
    let asked = client
        .get("/eventLogs?dag_id=small&event=trigger_dag_run&limit=1")
        .await
        .ok();
    assert_eq!(asked["total_entries"], all.len(), "each was asked for once");
    assert!(told.runs.len() > 20, "only {} runs", told.runs.len());
    #[expect(clippy::print_stderr, reason = "how much the test has seen")]
    {
        eprintln!(
            "{} runs answered, {} of {} that were not exist, {} requests refused",
            told.runs.len(),
            all.len() - told.runs.len(),
            told.maybe.len() + told.unknown,
            told.refused
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_once_on_sqlite() {
    what_was_answered_is_there_once(Database::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_once_on_postgres() {
    match test_postgres::database().await {
        Some(database) => what_was_answered_is_there_once(Database::Postgres(Box::new(database))).await,
        None => skip(
            "what_was_answered_is_there_once_on_postgres",
            "PostgreSQL is not installed",
        ),
    }
}
