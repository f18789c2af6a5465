//! Random DAGs with everything that a run can have, under operators who clear, mark, answer, stop and delete, on an unreliable
//! executor, with crashes and failing commits: replayable by the seed. Whatever happens: effects come after their commit, a try
//! ends once, nothing that was acknowledged is lost, every run ends as the leaf rule says, and the pools count what is dispatched.
//!
//! `AIRTIGHT_SEEDS=FROM..TO` plays other seeds than the usual ones (`cargo xtask soak` plays many).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use model::between::IfExists;
use model::dag::Measured;
use model::{
    Cause, Dag, DagId, DagRunKey, DagRunState, MapIndex, RunId, TaskIndex, TaskInstanceState, TiKey, Timestamp, Work,
};
use ports::between::TriggerDagRequest;
use ports::control::{ClearRequest, Control as _, ControlError, NewPool, RespondRequest, SetStateRequest};
use ports::executor::{TryOutcome, TryRequest};
use ports::inbox::{Answer, Done, InboxStore as _, Request};
use ports::intent::{Intent, IntentWork};
use ports::query::RunRow;
use ports::store::SchedulerStore as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use scheduler::{Config, Handle, MemoryStore, Scheduler};
use uuid::Uuid;

use crate::support::{
    CHILD, Fault, FaultyStore, NARROW, TokioClock, UnreliableExecutor, child_dag, failure, random_dag, request,
};

/// After this much time nothing is left to happen by itself: retries, pokes, questions and timeouts are shorter together.
const LONG: Duration = Duration::from_secs(3_600);

fn play(request: &TryRequest, random: &mut StdRng) -> (TryOutcome, Vec<u32>) {
    let name = request.task.task_id.as_str();
    if request.id.callback.is_some() {
        let outcome = match random.random_range(0..10) {
            0 => failure(Cause::Trapped, random.random_bool(0.5)),
            _ => TryOutcome::Done { falsy: false },
        };
        return (outcome, Vec::new());
    }
    if request.task.when.is_some() && random.random_bool(0.3) {
        let reason = "`when` is false".to_owned();
        return (TryOutcome::Skip { reason }, Vec::new());
    }
    if let Work::TriggerDag(step) = &request.task.work {
        // Where the run may be there already, few names are shared by all.
        let shared = step.if_exists != IfExists::Fail && random.random_bool(0.9);
        let child = TriggerDagRequest {
            dag: None,
            conf: serde_json::json!({}),
            run_id: shared.then(|| RunId::new(&format!("key_{}", random.random_range(0..2))).unwrap()),
            logical_date: None,
        };
        return (TryOutcome::TriggerDag(Box::new(child)), Vec::new());
    }
    if matches!(request.task.work, Work::Human(_)) {
        let asked = TryOutcome::AwaitInput {
            subject: "Go on?".to_owned(),
            body: None,
        };
        return (asked, Vec::new());
    }
    let outcome = match random.random_range(0..100) {
        0..10 => {
            let cause = [Cause::Failed, Cause::Trapped, Cause::OutOfMemory, Cause::TimedOut];
            failure(*cause.choose(random).unwrap(), random.random_bool(0.2))
        }
        10..15 => TryOutcome::Skip {
            reason: "nothing to do".to_owned(),
        },
        15..20 => TryOutcome::Reschedule {
            after: Duration::from_secs(random.random_range(0..3)),
        },
        20..60 if name.starts_with("sensor") => TryOutcome::Reschedule {
            after: Duration::from_secs(1),
        },
        _ if name.starts_with("branch") => {
            let labels = ["some", "none"].into_iter().filter(|_| random.random_bool(0.6));
            TryOutcome::Branch {
                labels: labels.map(str::to_owned).collect(),
            }
        }
        _ => TryOutcome::Done {
            falsy: random.random_bool(0.3),
        },
    };
    let succeeded = matches!(outcome, TryOutcome::Done { .. } | TryOutcome::Branch { .. });
    let measures = request.task.measures.iter().filter(|_| succeeded);
    let measured = measures.map(|measure| match measure.what {
        Measured::Length { .. } => random.random_range(0..4),
        Measured::Present => u32::from(random.random_bool(0.8)),
        Measured::Truth { .. } => u32::from(random.random_bool(0.4)),
    });
    (outcome, measured.collect())
}

/// What people were told, over all lives.
#[derive(Default)]
struct Told {
    runs: Vec<DagRunKey>,
    /// Somebody asked for it, heard of it or not.
    deleted: BTreeSet<DagRunKey>,
    /// Runs whose state may be what a person said.
    marked: BTreeSet<DagRunKey>,
    /// Events of the audit log that were acknowledged.
    audited: HashMap<&'static str, usize>,
    /// What was asked by rows of the inbox.
    asked: Vec<Uuid>,
}

impl Told {
    /// An answer that is no surprise: it was done, or refused for a reason that can be.
    fn take<T>(&mut self, seed: u64, event: &'static str, answer: Result<T, ControlError>) -> Option<T> {
        match answer {
            Ok(done) => {
                *self.audited.entry(event).or_default() += 1;
                Some(done)
            }
            Err(error) if is_refusal(&error) => None,
            Err(error) => panic!("seed {seed}: {event}: {error:?}"),
        }
    }
}

fn is_refusal(error: &ControlError) -> bool {
    matches!(
        error,
        ControlError::Unavailable
            | ControlError::Stopping
            | ControlError::Conflict(_)
            | ControlError::DagNotFound(_)
            | ControlError::RunNotFound { .. }
            | ControlError::TaskInstanceNotFound(_)
            | ControlError::NotAsked(_)
            | ControlError::RunExists(_)
            | ControlError::PoolExists(_)
            | ControlError::PoolNotFound(_)
    )
}

/// Somebody asks, here or from another process.
async fn ask(
    seed: u64,
    random: &mut StdRng,
    handle: &Handle,
    memory: &MemoryStore,
    told: &mut Told,
    (event, request): (&'static str, Request),
) {
    if random.random_bool(0.3) {
        let id = Uuid::from_u128(told.asked.len() as u128 + 1);
        let text = serde_json::to_string(&request).unwrap();
        memory.ask(id, &text, Timestamp(0)).await.unwrap();
        told.asked.push(id);
        if random.random_bool(0.7) {
            handle.ring();
        }
        return;
    }
    match request {
        Request::Trigger(wanted) => {
            let run = told.take(seed, event, handle.trigger(wanted).await);
            told.runs.extend(run.map(|run| run.key));
        }
        Request::Clear { dag_id, request } => {
            told.take(seed, event, handle.clear(&dag_id, request).await);
        }
        Request::SetRunState {
            dag_id,
            run_id,
            state,
            user,
        } => {
            let answer = handle.set_run_state(&dag_id, &run_id, state, &user).await;
            told.take(seed, event, answer);
        }
        Request::SetTaskInstanceState(set) => {
            told.take(seed, event, handle.set_task_instance_state(set).await);
        }
        Request::DeleteRun { dag_id, run_id, user } => {
            told.take(seed, event, handle.delete_run(&dag_id, &run_id, &user).await);
        }
        Request::Respond(respond) => {
            told.take(seed, event, handle.respond(respond).await);
        }
        other => panic!("nobody asks for {other:?}"),
    }
}

/// One thing that somebody does.
async fn meddle(seed: u64, random: &mut StdRng, handle: &Handle, memory: &MemoryStore, dag: &Dag, told: &mut Told) {
    let user = "tester";
    let runs = memory.runs_of(&dag.id);
    let action = random.random_range(0..10);
    let Some(run) = runs.choose(random).filter(|_| action > 1) else {
        let mut wanted = request(dag.id.as_str());
        // Earlier and later than those that are there: the past is what the date says.
        wanted.logical_date = random
            .random_bool(0.8)
            .then(|| Timestamp(1_767_225_600_000_000).plus(Duration::from_secs(random.random_range(0..1_000))));
        let wanted = ("trigger", Request::Trigger(wanted));
        return ask(seed, random, handle, memory, told, wanted).await;
    };
    let task = dag.tasks.choose(random).map(|task| task.id.clone()).unwrap();
    let wanted = match action {
        2..5 => {
            let clear = ClearRequest {
                run_id: random.random_bool(0.7).then(|| run.run_id.clone()),
                tasks: random.random_bool(0.8).then(|| vec![(task, None)]),
                include_upstream: random.random_bool(0.2),
                include_downstream: random.random_bool(0.7),
                only_failed: random.random_bool(0.3),
                user: user.to_owned(),
                ..ClearRequest::default()
            };
            let wanted = Request::Clear {
                dag_id: dag.id.clone(),
                request: clear,
            };
            ("clear", wanted)
        }
        5 => {
            told.marked.insert(run.key);
            let states = [DagRunState::Queued, DagRunState::Success, DagRunState::Failed];
            let state = *states.choose(random).unwrap();
            let wanted = Request::SetRunState {
                dag_id: dag.id.clone(),
                run_id: run.run_id.clone(),
                state,
                user: user.to_owned(),
            };
            ("set_run_state", wanted)
        }
        6 => {
            let states = [
                TaskInstanceState::Success,
                TaskInstanceState::Failed,
                TaskInstanceState::Skipped,
            ];
            let all = random.random_bool(0.2);
            told.marked
                .extend(runs.iter().filter(|of| all || of.key == run.key).map(|of| of.key));
            let set = SetStateRequest {
                groups: Vec::new(),
                include_past: all,
                include_future: all,
                dag_id: dag.id.clone(),
                run_id: run.run_id.clone(),
                tasks: vec![(task, None)],
                include_upstream: false,
                include_downstream: random.random_bool(0.3),
                state: *states.choose(random).unwrap(),
                dry_run: false,
                user: user.to_owned(),
            };
            if all {
                // Which runs there are is known now, not when a row is read.
                let answer = handle.set_task_instance_state(set).await;
                told.take(seed, "set_task_instance_state", answer);
                return;
            }
            ("set_task_instance_state", Request::SetTaskInstanceState(set))
        }
        7 if random.random_bool(0.3) => {
            told.deleted.insert(run.key);
            let wanted = Request::DeleteRun {
                dag_id: dag.id.clone(),
                run_id: run.run_id.clone(),
                user: user.to_owned(),
            };
            ("delete_run", wanted)
        }
        8 => {
            let slots = random.random_range(2..6);
            memory.set_slots(NARROW, slots);
            return;
        }
        _ => match answer_question(random, memory, run, dag) {
            Some(respond) => ("respond", Request::Respond(respond)),
            None => return,
        },
    };
    ask(seed, random, handle, memory, told, wanted).await;
}

fn answer_question(random: &mut StdRng, memory: &MemoryStore, run: &RunRow, dag: &Dag) -> Option<RespondRequest> {
    let questions = memory.hitl_of(run.key);
    let open: Vec<TiKey> = questions
        .iter()
        .filter(|(_, answer)| answer.is_none())
        .map(|(asked, _)| asked.ti)
        .collect();
    let ti = open.choose(random)?;
    Some(RespondRequest {
        dag_id: dag.id.clone(),
        run_id: run.run_id.clone(),
        task_id: dag.task(ti.task).map(|task| task.id.clone()).unwrap(),
        map_index: ti.map_index,
        chosen_options: vec![["yes", "no"].choose(random).map(|option| (*option).to_owned()).unwrap()],
        params_input: serde_json::Map::new(),
        user: "tester".to_owned(),
    })
}

async fn simulate(seed: u64) -> Seen {
    let mut seen = Seen::default();
    let memory = Arc::new(MemoryStore::new());
    let clock = Arc::new(TokioClock::new());
    let manifest = random_dag("d", seed).manifest("1");
    let dag = Arc::clone(&manifest.dag);
    let mut random = StdRng::seed_from_u64(seed ^ 0x6d69_7865);
    let mut stores = Vec::new();
    let mut told = Told::default();
    let lives = random.random_range(0..4_u64);
    for life in 0..=lives {
        let last = life == lives;
        let mut plan = StdRng::seed_from_u64(seed ^ life << 32);
        let crash_at = plan.random_range(1..40_u64);
        let store = FaultyStore::new(Arc::clone(&memory), move |attempt, _| {
            if !last && attempt == crash_at {
                return *[Fault::CrashBefore, Fault::CrashAfter].choose(&mut plan).unwrap();
            }
            match plan.random_range(0..100) {
                0..4 => Fault::Passing,
                4..6 => Fault::UnknownLost,
                6..8 => Fault::UnknownWritten,
                _ => Fault::None,
            }
        });
        stores.push(Arc::clone(&store));
        let mut config = Config::new(Uuid::from_u128(1));
        config.run_key_block = 4;
        config.heartbeat_timeout = Some(Duration::from_secs(10));
        config.keep_answers = 100 * LONG;
        if seed % 2 == 1 {
            // What is large is done in steps: for every other seed all runs are.
            config.max_transitions_per_event = usize::try_from(1 + seed / 2 % 4).unwrap();
            config.max_transitions_per_step = usize::try_from(1 + seed / 8 % 4).unwrap();
        }
        let scheduler = Scheduler::new(config, Arc::clone(&store) as _, Arc::clone(&clock) as _);
        let handle = scheduler.handle();
        let executor = UnreliableExecutor::new(seed + life, Arc::clone(&clock), Arc::clone(&memory), true, play);
        executor.attach(Arc::new(handle.clone()));
        let running = scheduler.start(executor).await.unwrap();
        let mut crashed = store.crashed.subscribe();
        let work = async {
            let narrow = NewPool {
                name: NARROW.to_owned(),
                slots: 4,
                description: None,
                include_deferred: seed % 3 == 0,
            };
            told.take(seed, "create_pool", handle.create_pool(narrow, "tester").await);
            told.take(
                seed,
                "deploy",
                handle.deploy(child_dag().manifest("1"), true, "tester").await,
            );
            told.take(seed, "deploy", handle.deploy(manifest.clone(), true, "tester").await);
            for _ in 0..random.random_range(4..12) {
                meddle(seed, &mut random, &handle, &memory, &dag, &mut told).await;
                tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
            }
            tokio::time::sleep(LONG).await;
            if last {
                let blocked = let_all_end(seed, &handle, &memory, &dag, &mut told).await;
                seen.blocked += u64::from(blocked > 0);
            }
        };
        tokio::select! {
            () = work => {}
            _ = crashed.wait_for(|crashed| *crashed) => seen.crashes += 1,
        }
        let metrics = handle.metrics();
        seen.losses += metrics.infrastructure_losses;
        seen.failed_commits += metrics.commits_failed_passing + metrics.commits_unknown;
        running.abort();
        let _ = running.await;
    }
    check_inbox(seed, &memory, &mut told, &mut seen).await;
    check(seed, &memory, &dag, &told, &stores, &mut seen);
    seen
}

/// Runs that wait for the run before do so as long as nobody does what is advised: clears that one, says that it succeeded, or deletes it. Nothing
/// else may hold them up, above all not each other. Answers how often it had to be done.
async fn let_all_end(seed: u64, handle: &Handle, memory: &MemoryStore, dag: &Dag, told: &mut Told) -> u32 {
    for round in 0.. {
        let runs = memory.runs_of(&dag.id);
        let unfinished: Vec<&RunRow> = runs.iter().filter(|run| !run.state.is_finished()).collect();
        if unfinished.is_empty() {
            return round;
        }
        let waits = || -> Vec<_> {
            let states = |run: &RunRow| -> Vec<String> {
                let rows = memory.task_instances(run.key).into_iter();
                let rows = rows.filter(|ti| !ti.state.is_finished());
                rows.map(|ti| format!("{}[{}]={}", ti.task_id, ti.key.map_index.0, ti.state))
                    .collect()
            };
            let one = |run: &&RunRow| (run.run_id.clone(), run.logical_date, run.state, states(run));
            unfinished.iter().map(one).collect()
        };
        let first = unfinished.iter().filter_map(|run| run.logical_date).min();
        let before = runs
            .iter()
            .filter(|run| run.state.is_finished() && run.logical_date < first);
        let before = before
            .filter(|run| run.logical_date.is_some())
            .max_by_key(|run| run.logical_date);
        let Some(before) = before.filter(|_| first.is_some() && round < 60) else {
            panic!("seed {seed}: these runs wait for nothing that is over: {:?}", waits());
        };
        let (user, run_id) = ("tester", before.run_id.clone());
        match round % 6 {
            0..4 => {
                let clear = ClearRequest {
                    run_id: Some(run_id),
                    user: user.to_owned(),
                    ..ClearRequest::default()
                };
                told.take(seed, "clear", handle.clear(&dag.id, clear).await);
            }
            4 => {
                told.marked.insert(before.key);
                let answer = handle.set_run_state(&dag.id, &run_id, DagRunState::Success, user).await;
                told.take(seed, "set_run_state", answer);
            }
            _ => {
                told.deleted.insert(before.key);
                told.take(seed, "delete_run", handle.delete_run(&dag.id, &run_id, user).await);
            }
        }
        tokio::time::sleep(LONG).await;
    }
    0
}

/// What was asked by rows is answered, and was done once or not at all, as the answer says.
async fn check_inbox(seed: u64, memory: &MemoryStore, told: &mut Told, seen: &mut Seen) {
    let mut settled: HashMap<Uuid, u32> = HashMap::new();
    for id in memory.audit_log().iter().filter_map(|line| line.settles) {
        *settled.entry(id).or_default() += 1;
    }
    let answers = memory.answers(&told.asked).await.unwrap();
    let left = memory.inbox(&[], 10).await.unwrap();
    assert_eq!(answers.len(), told.asked.len(), "seed {seed}: left: {left:?}");
    for (id, answer) in answers {
        let times = settled.remove(&id).unwrap_or(0);
        let text = answer;
        let answer: Answer = serde_json::from_str(&text).unwrap();
        let expected = match answer {
            // Where there is nothing to clear nothing is committed.
            Ok(Done::TaskInstances(rows)) if rows.is_empty() => 0..=1,
            Ok(done) => {
                seen.unsaid += u64::from(matches!(done, Done::Unsaid));
                if let Done::Run(run) = done {
                    told.runs.push(run.key);
                }
                1..=1
            }
            // It was done, and the run was deleted before it could be shown.
            Err(ControlError::RunNotFound { .. }) => 0..=1,
            Err(error) if is_refusal(&error) => 0..=0,
            Err(error) => panic!("seed {seed}: request {id}: {error:?}"),
        };
        assert!(
            expected.contains(&times),
            "seed {seed}: request {id} was done {times} times: {text}"
        );
        seen.asked += 1;
    }
    assert!(settled.is_empty(), "seed {seed}: {settled:?}");
}

/// What was committed about a run, for whoever looks into a seed.
fn history(stores: &[Arc<FaultyStore>], run: DagRunKey) -> String {
    let mut lines = Vec::new();
    for tick in stores.iter().flat_map(|store| store.committed()) {
        lines.extend(
            tick.audit
                .iter()
                .map(|line| format!("{}: {} {:?}", line.event, line.user, line.extra)),
        );
        let of_run = tick.runs.iter().filter(|write| write.key == run);
        lines.extend(of_run.map(|write| format!("run: {:?}", write.state)));
        for ti in tick.task_instances.iter().filter(|ti| ti.key.run == run) {
            let place = format!("{}[{}]", ti.task_id, ti.key.map_index.0);
            lines.push(format!(
                "{place} {} try {} dispatch {}",
                ti.state, ti.try_number.0, ti.dispatch.0
            ));
        }
        lines.push("--".to_owned());
    }
    lines.dedup();
    lines.join("\n")
}

fn check(seed: u64, memory: &MemoryStore, dag: &Dag, told: &Told, stores: &[Arc<FaultyStore>], seen: &mut Seen) {
    let mut triggered = BTreeSet::new();
    for run in memory.runs_of(&DagId::new(CHILD).unwrap()) {
        assert!(
            run.state.is_finished(),
            "seed {seed}: run {} of the child is {}",
            run.key,
            run.state
        );
        let parent = run.parent.as_ref().expect("only tasks trigger it");
        let of = (parent.run, parent.task, parent.map_index, parent.dispatch);
        assert!(triggered.insert(of), "seed {seed}: {of:?} triggered two runs");
        seen.children += 1;
        seen.keyed += u64::from(run.run_id.as_str().starts_with("key_"));
    }
    let runs = memory.runs_of(&dag.id);
    for key in &told.runs {
        let is_there = runs.iter().any(|run| run.key == *key);
        assert!(is_there || told.deleted.contains(key), "seed {seed}: run {key} is gone");
    }
    for run in &runs {
        let rows = memory.task_instances(run.key);
        let states = || -> Vec<String> {
            let one = |ti: &ports::store::TiWrite| format!("{}[{}]={}", ti.task_id, ti.key.map_index.0, ti.state);
            rows.iter().map(one).collect()
        };
        assert!(
            matches!(run.state, DagRunState::Success | DagRunState::Failed),
            "seed {seed}: run {} is {}: {:?}\n{}",
            run.key,
            run.state,
            states(),
            history(stores, run.key)
        );
        let all_ended = rows.iter().all(|ti| ti.state.is_finished());
        // A run that cannot go on is failed as it is; a person may say of such a run that it succeeded, and teardowns stay as they are.
        assert!(
            all_ended || run.state == DagRunState::Failed || told.marked.contains(&run.key),
            "seed {seed}: run {}: {:?}\n{}",
            run.key,
            states(),
            history(stores, run.key)
        );
        assert!(
            rows.iter().all(|ti| !ti.state.is_dispatched()),
            "seed {seed}: {:?}",
            states()
        );
        if all_ended && dag.dagrun_timeout.is_none() && !told.marked.contains(&run.key) {
            let failed = rows.iter().any(|ti| {
                dag.is_leaf(ti.key.task)
                    && matches!(ti.state, TaskInstanceState::Failed | TaskInstanceState::UpstreamFailed)
            });
            assert_eq!(
                run.state == DagRunState::Failed,
                failed,
                "seed {seed}: run {}: {:?}\n{}",
                run.key,
                states(),
                history(stores, run.key)
            );
        }
        if all_ended && dag.dagrun_timeout.is_none() && !told.marked.contains(&run.key) {
            seen.cleaned += check_teardowns(dag, &rows, || {
                format!("seed {seed}: run {}\n{}", run.key, history(stores, run.key))
            });
        }
        let mut called = BTreeSet::new();
        for row in memory.callbacks_of(run.key) {
            assert!(row.state.is_finished(), "seed {seed}: callback {row:?}");
            assert!(called.insert(row.id), "seed {seed}: callback {} is there twice", row.id);
            seen.callbacks += 1;
        }
        for ti in rows {
            *seen.states.entry(ti.state).or_default() += 1;
            seen.mapped += u64::from(ti.key.map_index > MapIndex(0));
        }
    }
    for pool in memory.all_pools() {
        assert_eq!(pool.used, 0, "seed {seed}: pool `{}`", pool.name);
    }
    let mut ended: HashMap<(TiKey, u32), u32> = HashMap::new();
    let mut published: HashMap<(TiKey, String), u32> = HashMap::new();
    for tick in stores.iter().flat_map(|store| store.committed()) {
        let of_people = |intent: &&Arc<Intent>| !matches!(intent.work, IntentWork::DeleteRuns | IntentWork::DeleteDag);
        seen.promised += tick.intents.iter().filter(of_people).count() as u64;
        seen.taken += tick.parents.len() as u64;
        let reused = |ti: &&ports::store::TiWrite| ti.details.as_ref().is_some_and(|said| said.contains("reused"));
        let reusing = tick.task_instances.iter().filter(reused).count() as u64;
        seen.taken += reusing;
        // Who waited for what another one resets has its row in the same tick.
        seen.taken_over += u64::from(!tick.parents.is_empty() && reusing > 0);
        for write in &tick.tries {
            *ended.entry((write.key, write.try_number.0)).or_default() += 1;
        }
        for xcom in tick.xcoms.iter().filter(|xcom| xcom.key == "dispatch") {
            *published.entry((xcom.ti, xcom.value.value.to_string())).or_default() += 1;
        }
    }
    for ((ti, try_number), times) in &ended {
        assert_eq!(*times, 1, "seed {seed}: try {try_number} of {ti:?} ended {times} times");
    }
    for ((ti, dispatch), times) in &published {
        assert_eq!(
            *times, 1,
            "seed {seed}: dispatch {dispatch} of {ti:?} was taken {times} times"
        );
    }
    let audit = memory.audit_log();
    let acknowledged: usize = ["set_run_state", "delete_run", "respond"]
        .iter()
        .filter_map(|event| told.audited.get(event))
        .sum();
    assert!(
        audit.len() >= acknowledged,
        "seed {seed}: {} lines for {acknowledged} operations",
        audit.len()
    );
    seen.runs += runs.len() as u64;
    seen.operations += told.audited.values().sum::<usize>() as u64;
}

/// Whatever was cleared, and in whatever order things ended: a teardown that ran began after everything that used what it cleaned up, and
/// after the setup whose last try prepared it. Answers how many ran.
fn check_teardowns(dag: &Dag, rows: &[ports::store::TiWrite], what: impl Fn() -> String) -> u64 {
    let mut ran = 0;
    for teardown in rows
        .iter()
        .filter(|ti| dag.task(ti.key.task).is_some_and(model::dag::Task::is_teardown))
    {
        let executed = matches!(teardown.state, TaskInstanceState::Success | TaskInstanceState::Failed);
        let Some(began) = teardown.start_date.filter(|_| executed && teardown.try_number.0 > 0) else {
            continue;
        };
        let task = teardown.key.task;
        // What leads to it without needing what its setups prepared does not count: it may run again by itself.
        let scopes = dag.setup_scopes().into_iter();
        let of_its_setups = scopes.filter(|(setup, _)| dag.teardowns_of(*setup).contains(&task));
        let users: BTreeSet<_> = of_its_setups
            .flat_map(|(setup, scope)| scope.into_iter().chain([setup]))
            .collect();
        let awaited = dag.awaited(task);
        let definition = |task: TaskIndex| dag.task(task).expect("it is of the DAG");
        // In a repeated group each element and each iteration has its own; what is mapped in there by itself is not told apart here.
        let met = |ti: &ports::store::TiWrite| {
            let (user, teardown_of) = (definition(ti.key.task), definition(task));
            let together = user.group == teardown_of.group && user.expand.is_none();
            user.group.is_none() || (together && ti.key.map_index == teardown.key.map_index)
        };
        let is_user =
            |ti: &&ports::store::TiWrite| awaited.contains(&ti.key.task) && users.contains(&ti.key.task) && met(ti);
        for user in rows.iter().filter(is_user) {
            let ended = user.end_date.filter(|_| user.state != TaskInstanceState::Removed);
            assert!(
                ended.is_none_or(|ended| ended <= began),
                "{}: {} after the teardown",
                what(),
                user.task_id
            );
        }
        ran += 1;
    }
    ran
}

/// What happened, to be sure that enough did.
#[derive(Debug, Default)]
struct Seen {
    runs: u64,
    crashes: u64,
    losses: u64,
    /// Operations on one run that were done in steps.
    promised: u64,
    failed_commits: u64,
    operations: u64,
    mapped: u64,
    /// Teardowns that ran, in runs that went their own way.
    cleaned: u64,
    children: u64,
    /// Those of them that tasks may share, or make run again.
    keyed: u64,
    /// Times that tasks of several runs waited for one of those, or took it over.
    taken: u64,
    /// Times that one of those who took it over found another one waiting.
    taken_over: u64,
    callbacks: u64,
    /// Seeds in which runs waited for earlier ones until somebody did something about those.
    blocked: u64,
    /// Requests that came as rows of the inbox.
    asked: u64,
    /// Those of them that were done by a scheduler that could not say so.
    unsaid: u64,
    states: HashMap<TaskInstanceState, u64>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.crashes += other.crashes;
        self.losses += other.losses;
        self.promised += other.promised;
        self.failed_commits += other.failed_commits;
        self.operations += other.operations;
        self.mapped += other.mapped;
        self.cleaned += other.cleaned;
        self.children += other.children;
        self.keyed += other.keyed;
        self.taken += other.taken;
        self.taken_over += other.taken_over;
        self.callbacks += other.callbacks;
        self.blocked += other.blocked;
        self.asked += other.asked;
        self.unsaid += other.unsaid;
        for (state, count) in other.states {
            *self.states.entry(state).or_default() += count;
        }
    }
}

/// Plays seeds, each on a runtime of its own: the seed decides everything.
fn play_seeds(seeds: std::ops::Range<u64>) -> Seen {
    let mut all = Seen::default();
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(simulate(seed))));
        match seen {
            Ok(seen) => all.add(seen),
            Err(panic) => {
                eprintln!("seed {seed} failed; AIRTIGHT_SEEDS={seed}..{} plays it again", seed + 1);
                std::panic::resume_unwind(panic);
            }
        }
    }
    all
}

/// The seeds that the environment asks for.
fn asked() -> Option<std::ops::Range<u64>> {
    let text = std::env::var("AIRTIGHT_SEEDS").ok()?;
    let (from, to) = text.split_once("..").expect("AIRTIGHT_SEEDS is FROM..TO");
    Some(from.parse().expect("a number")..to.parse().expect("a number"))
}

fn check_enough(seen: &Seen) {
    let per_mille = |count: u64| count * 1_000 / seen.runs.max(1);
    assert!(seen.runs > 1_000 && seen.operations > 3_000, "{seen:?}");
    assert!(
        seen.crashes > 500 && seen.losses > 500 && seen.failed_commits > 500,
        "{seen:?}"
    );
    assert!(per_mille(seen.mapped) > 500 && per_mille(seen.cleaned) > 20, "{seen:?}");
    assert!(seen.blocked > 20, "{seen:?}");
    assert!(
        seen.asked > 1_000 && seen.unsaid > 20 && seen.promised > 300,
        "{seen:?}"
    );
    assert!(
        per_mille(seen.children) > 100 && per_mille(seen.callbacks) > 500,
        "{seen:?}"
    );
    assert!(seen.keyed > 100 && seen.taken > 100 && seen.taken_over > 10, "{seen:?}");
    for state in [
        TaskInstanceState::Success,
        TaskInstanceState::Failed,
        TaskInstanceState::Skipped,
        TaskInstanceState::UpstreamFailed,
        TaskInstanceState::Removed,
    ] {
        assert!(seen.states.get(&state).copied().unwrap_or(0) > 100, "{state}: {seen:?}");
    }
}

#[test]
fn a_thousand_seeds_end_well() {
    let seen = play_seeds(asked().unwrap_or(0..1_000));
    eprintln!("{seen:?}");
    if asked().is_none() {
        check_enough(&seen);
    }
}

#[test]
fn another_thousand_seeds_end_well() {
    if asked().is_none() {
        check_enough(&play_seeds(1_000..2_000));
    }
}
