//! A scheduler that is asked from another process, on the databases that servers use.

use std::sync::Arc;
use std::time::Duration;

use db::{Db, Options};
use model::human::{APPROVE, Approval, HumanStep, OnTimeout, REJECT};
use model::{Clock, DagId, DagRunState, MapIndex, RunId, TaskId, TaskInstanceState, Timestamp, Work};
use ports::control::{
    ClearRequest, Control, ControlError, NewPool, PoolPatch, RespondRequest, SetNoteRequest, SetStateRequest,
    TriggerRequest,
};
use ports::executor::TryOutcome;
use ports::inbox::InboxStore as _;
use ports::query::{PoolRow, RunRow, TiRow};
use ports::store::SchedulerStore;
use scheduler::{Config, Handle, Remote, RemoteConfig, Running, Scheduler};
use serde_json::json;
use uuid::Uuid;

use crate::support::{DagBuilder, Reply, TestExecutor, TokioClock, request, run_id};

const ID: Uuid = Uuid::from_u128(1);

async fn start(db: &Db, clock: &Arc<TokioClock>) -> (Handle, Running) {
    let executor = TestExecutor::new(64, |request| match &request.task.work {
        Work::Human(_) => {
            let asks = TryOutcome::AwaitInput {
                subject: "Go on?".to_owned(),
                body: None,
            };
            Reply::End(asks, Vec::new())
        }
        _ => Reply::done(),
    });
    let scheduler = Scheduler::new(Config::new(ID), Arc::new(db.clone()), Arc::clone(clock) as _);
    let handle = scheduler.handle();
    executor.attach(Arc::new(handle.clone()), Arc::clone(clock) as Arc<dyn Clock>);
    let running = scheduler.start(executor).await.unwrap();
    (handle, running)
}

/// A process that asks, over connections of its own.
async fn remote(
    url: &str,
    clock: &Arc<TokioClock>,
    config: RemoteConfig,
    bell: impl Fn() + Send + Sync + 'static,
) -> Remote {
    let db = Arc::new(Db::open(url, &Options::default()).await.unwrap());
    let (remote, service) = Remote::new(config, db.clone(), db, Arc::clone(clock) as _, bell);
    tokio::spawn(service.run());
    remote
}

enum Home {
    Directory(#[expect(dead_code, reason = "kept so that the directory stays")] tempfile::TempDir),
    Server(#[expect(dead_code, reason = "kept so that the database stays")] Box<test_postgres::TestDatabase>),
}

async fn databases() -> Vec<(String, Home)> {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("airtight.db").display());
    let mut databases = vec![(url, Home::Directory(directory))];
    if let Some(database) = test_postgres::database().await {
        databases.push((database.url().to_owned(), Home::Server(Box::new(database))));
    }
    databases
}

fn dag_id() -> DagId {
    DagId::new("d").unwrap()
}

fn task(id: &str) -> TaskId {
    TaskId::new(id).unwrap()
}

fn dag() -> DagBuilder {
    let step = HumanStep {
        options: [APPROVE, REJECT].map(str::to_owned).to_vec(),
        defaults: None,
        multiple: false,
        params: Default::default(),
        assigned_users: vec!["ann".to_owned()],
        timeout: None,
        on_timeout: OnTimeout::Fail,
        approval: Some(Approval { fail_on_reject: false }),
        branches: false,
    };
    DagBuilder::new("d")
        .param("size", Some(json!(9_007_199_254_740_993_i64)))
        .task("load", &[])
        .task_with("ask", &["load"], |task| task.work = Work::Human(Box::new(step)))
        .task("store", &["ask"])
}

fn named(name: &str) -> TriggerRequest {
    TriggerRequest {
        run_id: Some(run_id(name)),
        note: Some("first".to_owned()),
        conf: json!({"size": 9_007_199_254_740_995_i64}),
        ..request("d")
    }
}

fn states(request: &SetStateRequest) -> SetStateRequest {
    request.clone()
}

/// What was said, without what differs from time to time.
struct Transcript(Vec<String>);

impl Transcript {
    fn note<T>(&mut self, what: &str, result: Result<T, ControlError>, show: impl Fn(&T) -> String) -> Option<T> {
        let text = match &result {
            Ok(done) => show(done),
            Err(error) => {
                let debug = format!("{error:?}");
                format!("{} ({error})", debug.split([' ', '(']).next().unwrap_or_default())
            }
        };
        self.0.push(format!("{what}: {text}"));
        result.ok()
    }

    fn done(&mut self, what: &str, result: Result<(), ControlError>) {
        self.note(what, result, |()| "done".to_owned());
    }

    fn run(&mut self, what: &str, result: Result<RunRow, ControlError>) -> Option<RunRow> {
        self.note(what, result, |run| {
            format!("{} {:?} {:?} {}", run.run_id, run.note, run.triggering_user, run.conf)
        })
    }

    fn task_instances(&mut self, what: &str, result: Result<Vec<TiRow>, ControlError>) {
        self.note(what, result, |rows| {
            let shown = rows
                .iter()
                .map(|row| format!("{}/{} {:?}", row.task_id, row.key.map_index.0, row.note));
            shown.collect::<Vec<_>>().join(", ")
        });
    }

    fn pool(&mut self, what: &str, result: Result<PoolRow, ControlError>) {
        self.note(what, result, |pool| {
            format!(
                "{} {} {:?} {}",
                pool.name, pool.slots, pool.description, pool.include_deferred
            )
        });
    }
}

/// Asks for everything that can be asked for, right and wrong.
async fn everything(control: &dyn Control, waits: &Handle) -> Vec<String> {
    let d = dag_id();
    let nowhere = DagId::new("nowhere").unwrap();
    let mut said = Transcript(Vec::new());
    let manifest = || dag().manifest("1");
    let deployed = control.deploy(manifest(), false, "ann").await;
    said.note("deploy", deployed, |it| {
        format!("{} {} {} {}", it.dag_id, it.version_number, it.new_dag, it.new_version)
    });
    let deployed = control.deploy(manifest(), false, "ann").await;
    said.note("deploy again", deployed, |it| it.version_number.to_string());
    let deployed = control.deploy(dag().manifest("2"), true, "ann").await;
    said.note("deploy another", deployed, |it| {
        format!("{} {}", it.version_number, it.new_dag)
    });
    let unknown = control.unknown_dags(vec![d.clone(), nowhere.clone()]).await;
    said.note("unknown", unknown, |dags| format!("{dags:?}"));

    said.done("pause", control.set_paused(&d, true, "ann").await);
    said.done("unpause", control.set_paused(&d, false, "ann").await);
    said.done("pause nowhere", control.set_paused(&nowhere, true, "ann").await);

    let run = said.run("trigger", control.trigger(named("one")).await).unwrap();
    said.run("trigger again", control.trigger(named("one")).await);
    let mut wrong = named("wrong");
    wrong.conf = json!([1]);
    said.run("trigger with a list", control.trigger(wrong).await);
    said.run("trigger nowhere", control.trigger(request("nowhere")).await);
    let dated = TriggerRequest {
        logical_date: Some(Timestamp(1)),
        ..named("dated")
    };
    said.run("trigger for a date", control.trigger(dated.clone()).await);
    let dated = TriggerRequest {
        run_id: Some(run_id("dated-2")),
        ..dated
    };
    said.run("trigger for that date again", control.trigger(dated).await);

    // The step asks only once its dispatch has reported.
    let mut events = waits.subscribe();
    let asks = |rows: Vec<TiRow>| rows.iter().any(|row| row.state == TaskInstanceState::AwaitingInput);
    let rows = async || {
        let request = SetStateRequest {
            dry_run: true,
            ..whole(&run.run_id)
        };
        waits.set_task_instance_state(request).await.unwrap()
    };
    while !asks(rows().await) {
        events.recv().await.unwrap();
    }
    let respond = |user: &str, option: &str| RespondRequest {
        dag_id: d.clone(),
        run_id: run.run_id.clone(),
        task_id: task("ask"),
        map_index: MapIndex::UNMAPPED,
        chosen_options: vec![option.to_owned()],
        params_input: serde_json::Map::new(),
        user: user.to_owned(),
    };
    for (user, option) in [("bob", APPROVE), ("ann", "Perhaps"), ("ann", APPROVE), ("ann", APPROVE)] {
        let responded = control.respond(respond(user, option)).await;
        said.note("respond", responded, |it| format!("{:?}", it.answer));
    }
    let state = control.wait(&d, &run.run_id, Duration::from_secs(60)).await;
    said.note("wait", state, |state| state.to_string());
    let state = control.wait(&d, &run_id("none"), Duration::ZERO).await;
    said.note("wait for none", state, |state| state.to_string());

    let one = Some(run.run_id.clone());
    let clear = |dry_run| ClearRequest {
        run_id: one.clone(),
        tasks: Some(vec![(task("store"), None)]),
        dry_run,
        user: "ann".to_owned(),
        ..ClearRequest::default()
    };
    said.task_instances("clear, dry", control.clear(&d, clear(true)).await);
    said.task_instances("clear", control.clear(&d, clear(false)).await);
    let mut unknown = clear(false);
    unknown.tasks = Some(vec![(task("nothing"), None)]);
    said.task_instances("clear nothing", control.clear(&d, unknown).await);
    let state = control.wait(&d, &run.run_id, Duration::from_secs(60)).await;
    said.note("wait", state, |state| state.to_string());
    let all = ClearRequest {
        tasks: Some(vec![(task("load"), None)]),
        user: "ann".to_owned(),
        ..ClearRequest::default()
    };
    said.task_instances("clear all runs", control.clear(&d, all).await);

    let failed = SetStateRequest {
        state: TaskInstanceState::Failed,
        ..whole(&run.run_id)
    };
    said.task_instances("set state", control.set_task_instance_state(states(&failed)).await);
    said.task_instances("set state again", control.set_task_instance_state(failed).await);
    let note = SetNoteRequest {
        dag_id: d.clone(),
        run_id: run.run_id.clone(),
        tasks: vec![(task("store"), None)],
        groups: Vec::new(),
        note: "look\u{0}here".to_owned(),
        user: "ann".to_owned(),
    };
    said.task_instances("note", control.set_task_instance_note(note).await);
    said.run(
        "note a run",
        control.set_run_note(&d, &run.run_id, "second", "ann").await,
    );
    said.run(
        "note none",
        control.set_run_note(&d, &run_id("none"), "second", "ann").await,
    );
    for state in [DagRunState::Running, DagRunState::Success] {
        let set = control.set_run_state(&d, &run.run_id, state, "ann").await;
        said.run("set the state of a run", set);
    }

    let pool = |name: &str| NewPool {
        name: name.to_owned(),
        slots: 3,
        description: Some("few".to_owned()),
        include_deferred: true,
    };
    said.pool("create a pool", control.create_pool(pool("few"), "ann").await);
    said.pool("create it again", control.create_pool(pool("few"), "ann").await);
    let patch = PoolPatch {
        slots: Some(4),
        description: Some(None),
        ..PoolPatch::default()
    };
    said.pool("change it", control.change_pool("few", patch, "ann").await);
    said.pool(
        "leave it",
        control.change_pool("few", PoolPatch::default(), "ann").await,
    );
    said.pool(
        "change none",
        control.change_pool("none", PoolPatch::default(), "ann").await,
    );
    said.note("pools", control.pools().await, |pools| {
        pools.iter().map(|pool| pool.name.clone()).collect::<Vec<_>>().join(" ")
    });
    said.done(
        "delete the default pool",
        control.delete_pool("default_pool", "ann").await,
    );
    said.done("delete it", control.delete_pool("few", "ann").await);

    said.done("delete a DAG with a run", control.delete_dag(&d, "ann").await);
    for name in ["one", "dated", "none"] {
        said.done("delete a run", control.delete_run(&d, &run_id(name), "ann").await);
    }
    said.done("delete the DAG", control.delete_dag(&d, "ann").await);
    said.done("delete it again", control.delete_dag(&d, "ann").await);
    said.0
}

fn whole(run_id: &RunId) -> SetStateRequest {
    SetStateRequest {
        dag_id: dag_id(),
        run_id: run_id.clone(),
        include_past: false,
        include_future: false,
        tasks: vec![(task("load"), None), (task("ask"), None)],
        groups: Vec::new(),
        include_upstream: false,
        include_downstream: false,
        state: TaskInstanceState::Success,
        dry_run: false,
        user: "ann".to_owned(),
    }
}

#[tokio::test]
async fn what_is_asked_from_another_process_is_answered_as_what_is_asked_here() {
    let mut transcripts = Vec::new();
    for far in [false, true] {
        for (url, _home) in databases().await {
            let db = Db::open(&url, &Options::default()).await.unwrap();
            let clock = Arc::new(TokioClock::new());
            let (handle, running) = start(&db, &clock).await;
            let said = if far {
                let bell = handle.clone();
                let control = remote(&url, &clock, RemoteConfig::new(ID), move || bell.ring()).await;
                everything(&control, &handle).await
            } else {
                everything(&handle, &handle).await
            };
            assert!(db.inbox(&[], 10).await.unwrap().is_empty(), "all is answered");
            transcripts.push((far, said));
            handle.shutdown(Duration::ZERO).await;
            running.await.unwrap();
        }
    }
    let (_, here) = transcripts.first().unwrap();
    assert!(
        here.len() > 40 && here.iter().any(|line| line.contains("RunExists")),
        "{here:#?}"
    );
    for (far, said) in &transcripts {
        assert_eq!(said, here, "far: {far}");
    }
}

fn impatient() -> RemoteConfig {
    RemoteConfig {
        scheduler_patience: Duration::from_millis(1),
        answer_patience: Duration::from_millis(1),
        watch_every: Duration::from_millis(1),
        ..RemoteConfig::new(ID)
    }
}

#[tokio::test]
async fn without_a_scheduler_nothing_is_asked_and_what_is_not_answered_is_said_to_be_stored() {
    for (url, _home) in databases().await {
        let clock = Arc::new(TokioClock::new());
        let db = Db::open(&url, &Options::default()).await.unwrap();
        let control = remote(&url, &clock, impatient(), || {}).await;
        let refusal = async |expected: &str| loop {
            match control.trigger(request("d")).await {
                Err(ControlError::NoScheduler(why)) if why.contains(expected) => break,
                // It looks now and then who schedules.
                Err(ControlError::NoScheduler(_)) => {}
                other => panic!("{other:?}"),
            }
        };
        refusal("no scheduler is running; nothing was changed").await;
        assert!(!control.health().healthy);
        let now = clock.now();
        let hour = now.plus(Duration::from_secs(3600));
        db.acquire_lease(Uuid::from_u128(2), now, hour).await.unwrap();
        refusal("scheduled from another data directory, by scheduler 00000000-0000-0000-0000-000000000002").await;
        let lease = ports::store::Lease {
            scheduler_id: Uuid::from_u128(2),
            epoch: 1,
        };
        db.release_lease(&lease).await.unwrap();
        db.acquire_lease(ID, now, now).await.unwrap();
        refusal("does not answer, it was last seen at 20").await;
        assert!(db.inbox(&[], 10).await.unwrap().is_empty(), "nothing was asked");

        // A scheduler that holds the lease and does nothing.
        let lease = db.acquire_lease(ID, now, hour).await.unwrap();
        let pending = loop {
            match control.set_paused(&dag_id(), true, "ann").await {
                Err(ControlError::NoScheduler(_)) => {}
                Err(ControlError::Pending(why)) => break why,
                other => panic!("{other:?}"),
            }
        };
        let left = db.inbox(&[], 10).await.unwrap();
        assert_eq!(left.len(), 1);
        assert!(pending.contains(&left[0].id.to_string()), "{pending}");
        assert!(control.health().healthy);
        // The next one does it.
        db.release_lease(&lease).await.unwrap();
        let (handle, running) = start(&db, &clock).await;
        let answered = loop {
            let answers = db.answers(&[left[0].id]).await.unwrap();
            if let Some((_, answer)) = answers.first() {
                break answer.clone();
            }
            tokio::task::yield_now().await;
        };
        assert!(answered.contains("dag_not_found"), "{answered}");
        handle.shutdown(Duration::ZERO).await;
        running.await.unwrap();
    }
}
