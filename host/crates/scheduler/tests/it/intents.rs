//! Operations on many runs: promised by one commit, carried out over bounded ticks, exactly once whatever fails on the way.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::{DagId, DagRunKey, DagRunState, TaskInstanceState, Timestamp};
use ports::control::{ClearRequest, Control as _, ControlError, SetStateRequest};
use ports::intent::IntentWrite;
use ports::query::RunRow;
use ports::store::{DagWrite, SchedulerStore as _, TickWrite};
use scheduler::MemoryStore;

use crate::support::{DagBuilder, Fault, FaultyStore, Reply, Rig, RigBuilder, request};

fn dag(id: &str) -> DagId {
    DagId::new(id).unwrap()
}

fn everything() -> ClearRequest {
    ClearRequest {
        user: "tester".to_owned(),
        ..ClearRequest::default()
    }
}

/// Answers come with the promise, not with what follows.
fn builder() -> RigBuilder {
    RigBuilder::new(|_| Reply::done()).config(|config| {
        config.intent_patience = Duration::ZERO;
        config.purge_rows = 3;
    })
}

async fn with_runs(builder: RigBuilder, runs: usize) -> (Rig, Vec<RunRow>) {
    let rig = builder.start().await;
    rig.deploy(DagBuilder::chain("d", 2)).await;
    let mut ended = Vec::new();
    for _ in 0..runs {
        ended.push(rig.run_to_end("d").await.0);
    }
    (rig, ended)
}

/// Starts again on what the crashed one left.
async fn restart(rig: Rig) -> Rig {
    let id = rig.store.inner.lease().unwrap().scheduler_id;
    let (store, clock) = rig.crash().await;
    let store = FaultyStore::new(Arc::clone(&store.inner), |_, _| Fault::None);
    builder()
        .store(store)
        .clock(clock)
        .config(|config| config.scheduler_id = id)
        .start()
        .await
}

/// Waits until nothing is promised and nothing runs.
async fn settled(rig: &Rig) {
    loop {
        let promised = rig.store.inner.intents().await.unwrap();
        if promised.is_empty() && rig.store.inner.active_runs().await.unwrap().is_empty() {
            return;
        }
        // Paused time: whatever is due comes first.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn steps(ticks: &[TickWrite]) -> impl Iterator<Item = &IntentWrite> {
    ticks
        .iter()
        .flat_map(|tick| &tick.dags)
        .filter_map(|change| match change {
            DagWrite::Intent(step) => Some(step),
            _ => None,
        })
}

#[tokio::test(start_paused = true)]
async fn clearing_many_runs_is_one_promise_and_then_a_few_runs_a_tick() {
    let (rig, runs) = with_runs(builder(), 50).await;
    let dry = ClearRequest {
        dry_run: true,
        ..everything()
    };
    assert_eq!(rig.handle.clear(&dag("d"), dry).await.unwrap().len(), 100);
    assert!(rig.store.inner.intents().await.unwrap().is_empty());
    let before = rig.store.committed().len();
    let answered = rig.handle.clear(&dag("d"), everything()).await.unwrap();
    assert_eq!(answered.len(), 100);
    let ticks = rig.store.committed().split_off(before);
    let begun: Vec<_> = steps(&ticks)
        .filter(|step| matches!(step, IntentWrite::Begin(intent) if intent.runs.len() == 50))
        .collect();
    assert_eq!(begun.len(), 1);
    assert_eq!(ticks[0].audit.len(), 1);
    assert_eq!(ticks[0].audit[0].event, "clear_task_instances");
    assert_eq!(ticks[0].audit[0].extra.as_deref(), Some("{\"dag_runs\":50}"));
    assert_eq!(rig.store.inner.intents().await.unwrap().len(), 1, "it is only promised");

    // Other work does not wait for it.
    let other = rig.trigger("d").await;
    assert_eq!(rig.finished(&other).await, DagRunState::Success);
    settled(&rig).await;
    let ticks = rig.store.committed().split_off(before);
    let mut times: HashMap<DagRunKey, u32> = HashMap::new();
    for tick in &ticks {
        assert!(tick.intent_runs_done.len() <= 16);
        for (_, run) in &tick.intent_runs_done {
            *times.entry(*run).or_default() += 1;
        }
    }
    assert_eq!(times.len(), 50);
    assert!(times.values().all(|times| *times == 1));
    for run in &runs {
        assert_eq!(rig.ti(run.key, "t0").try_number.0, 2);
        assert_eq!(rig.ti(run.key, "t1").try_number.0, 2);
    }
    assert_eq!(rig.ti(other.key, "t0").try_number.0, 1, "it came later");
    let lines = rig.store.inner.audit_log();
    let lines = lines.iter().filter(|line| line.event == "clear_task_instances");
    assert_eq!(lines.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_written_does_not_keep_the_others_from_being_cleared() {
    let bad = DagRunKey(3);
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), move |_, tick: &TickWrite| {
        match tick.intent_runs_done.iter().any(|(_, run)| *run == bad) {
            true => Fault::Data,
            false => Fault::None,
        }
    });
    let (rig, runs) = with_runs(builder().store(store), 6).await;
    rig.handle.clear(&dag("d"), everything()).await.unwrap();
    while !rig.store.inner.intents().await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for run in &runs {
        let tries = if run.key == bad { 1 } else { 2 };
        rig.executor.seen(22).await;
        while run.key != bad && rig.state(run.key, "t1") != TaskInstanceState::Success {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(rig.ti(run.key, "t1").try_number.0, tries);
    }
    assert_eq!(rig.handle.health().set_aside_runs.len(), 1);
}

/// What is done to five ended runs.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Clear,
    DeleteRun,
    DeleteDag,
}

impl Operation {
    async fn ask(self, rig: &Rig, runs: &[RunRow]) -> Result<(), ControlError> {
        match self {
            Self::Clear => rig.handle.clear(&dag("d"), everything()).await.map(drop),
            Self::DeleteRun => rig.handle.delete_run(&dag("d"), &runs[0].run_id, "tester").await,
            Self::DeleteDag => rig.handle.delete_dag(&dag("d"), "tester").await,
        }
    }

    /// Whether it happened, wholly and once; panics if it happened in part or twice.
    async fn happened(self, rig: &Rig, runs: &[RunRow], context: &str) -> bool {
        let store = &rig.store.inner;
        let keys: Vec<DagRunKey> = runs.iter().map(|run| run.key).collect();
        let left = store.runs().len();
        match self {
            Self::Clear => {
                let ended: Vec<usize> = keys.iter().map(|key| store.tries(*key).len()).collect();
                assert!(ended == [2; 5] || ended == [4; 5], "{context}: {ended:?}");
                ended[0] == 4
            }
            Self::DeleteRun => {
                assert!(left == 4 || left == 5, "{context}: {left}");
                assert_eq!(store.has_rows(&keys[..1]).await.unwrap(), left == 5, "{context}");
                assert!(store.has_rows(&keys[1..2]).await.unwrap(), "{context}");
                left == 4
            }
            Self::DeleteDag => {
                let dags = store.load_dags().await.unwrap().len();
                assert_eq!(left, dags * 5, "{context}");
                assert_eq!(store.has_rows(&keys).await.unwrap(), dags == 1, "{context}");
                let redeploy = DagBuilder::chain("d", 2).manifest("2");
                let deployed = rig.handle.deploy(redeploy, true, "tester").await.unwrap();
                assert_eq!(deployed.version_number, if dags == 1 { 2 } else { 1 }, "{context}");
                dags == 0
            }
        }
    }
}

/// Each commit of each operation fails in each way.
#[tokio::test(start_paused = true)]
async fn whatever_commit_fails_what_was_promised_happens_once() {
    use Fault::{CrashAfter, CrashBefore, Passing, UnknownLost, UnknownWritten};
    for operation in [Operation::Clear, Operation::DeleteRun, Operation::DeleteDag] {
        for fault in [CrashBefore, CrashAfter, Passing, UnknownLost, UnknownWritten] {
            let mut at = 0;
            while fail_at(operation, fault, at).await {
                at += 1;
            }
            assert!(at >= 3, "{operation:?} has only {at} commits");
        }
    }
}

/// Answers whether there was such a commit.
async fn fail_at(operation: Operation, fault: Fault, at: u64) -> bool {
    let context = format!("{operation:?}, {fault:?} at {at}");
    let (armed, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let store = {
        let (armed, failed, mut seen) = (Arc::clone(&armed), Arc::clone(&failed), 0);
        FaultyStore::new(Arc::new(MemoryStore::new()), move |_, _| {
            if !armed.load(Ordering::SeqCst) {
                return Fault::None;
            }
            seen += 1;
            if seen - 1 != at {
                return Fault::None;
            }
            failed.store(true, Ordering::SeqCst);
            fault
        })
    };
    let (rig, runs) = with_runs(builder().store(store), 5).await;
    // Marks that may wait for a tick do not count.
    tokio::time::sleep(Duration::from_secs(1)).await;
    armed.store(true, Ordering::SeqCst);
    let mut crashed = rig.store.crashed.subscribe();
    let mut acknowledged = false;
    let work = async {
        operation.ask(&rig, &runs).await.unwrap();
        acknowledged = true;
        settled(&rig).await;
    };
    let has_crashed = tokio::select! {
        () = work => false,
        crashed = crashed.wait_for(|crashed| *crashed) => crashed.is_ok(),
    };
    armed.store(false, Ordering::SeqCst);
    let rig = if has_crashed { restart(rig).await } else { rig };
    settled(&rig).await;
    let happened = operation.happened(&rig, &runs, &context).await;
    assert!(happened || !acknowledged, "{context}: acknowledged, and did not happen");
    failed.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn a_dag_that_is_being_deleted_is_gone_for_everybody_and_keeps_its_name() {
    // What removes rows is refused for good, so that the deletion stays where it is.
    let stuck = Arc::new(AtomicBool::new(true));
    let store = {
        let stuck = Arc::clone(&stuck);
        FaultyStore::new(Arc::new(MemoryStore::new()), move |_, tick: &TickWrite| {
            let purges = steps(std::slice::from_ref(tick)).any(|step| matches!(step, IntentWrite::Purge { .. }));
            if purges && stuck.load(Ordering::SeqCst) {
                Fault::Data
            } else {
                Fault::None
            }
        })
    };
    let (rig, runs) = with_runs(builder().store(store), 3).await;
    rig.handle.delete_dag(&dag("d"), "tester").await.unwrap();
    let check = async |rig: &Rig| {
        let missing = rig.try_trigger("d").await;
        assert!(matches!(missing, Err(ControlError::DagNotFound(_))), "{missing:?}");
        let missing = rig.handle.delete_dag(&dag("d"), "tester").await;
        assert!(matches!(missing, Err(ControlError::DagNotFound(_))), "{missing:?}");
        let missing = rig.handle.clear(&dag("d"), everything()).await.map(|rows| rows.len());
        assert!(matches!(missing, Err(ControlError::DagNotFound(_))), "{missing:?}");
        let missing = rig.handle.set_paused(&dag("d"), true, "tester").await;
        assert!(matches!(missing, Err(ControlError::DagNotFound(_))), "{missing:?}");
        let failed = DagRunState::Failed;
        let missing = rig
            .handle
            .set_run_state(&dag("d"), &runs[0].run_id, failed, "tester")
            .await
            .map(|row| row.state);
        assert!(matches!(missing, Err(ControlError::DagNotFound(_))), "{missing:?}");
        let taken = rig
            .handle
            .deploy(DagBuilder::chain("d", 1).manifest("2"), false, "tester")
            .await
            .map(|deployed| deployed.version);
        let Err(ControlError::Conflict(reason)) = taken else {
            panic!("{taken:?}")
        };
        assert!(reason.contains("being deleted"), "{reason}");
        assert_eq!(rig.store.inner.intents().await.unwrap().len(), 1);
    };
    check(&rig).await;
    rig.deploy(DagBuilder::chain("other", 1)).await;

    // A restart knows it too, and goes on with it.
    let id = rig.store.inner.lease().unwrap().scheduler_id;
    let (store, clock) = rig.crash().await;
    let rig = builder()
        .store(store)
        .clock(clock)
        .config(|config| config.scheduler_id = id)
        .start()
        .await;
    check(&rig).await;
    stuck.store(false, Ordering::SeqCst);
    let rig = restart(rig).await;
    settled(&rig).await;
    assert!(rig.store.inner.runs().is_empty());
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let (run, state) = rig.run_to_end("d").await;
    assert_eq!((run.version_number, state), (1, DagRunState::Success));
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_goes_a_few_rows_a_tick() {
    let rig = builder().start().await;
    rig.deploy(DagBuilder::fan_out("d", 20)).await;
    let (run, _) = rig.run_to_end("d").await;
    let before = rig.store.committed().len();
    rig.handle.delete_run(&dag("d"), &run.run_id, "tester").await.unwrap();
    assert!(rig.store.inner.runs().is_empty(), "it is gone at once");
    settled(&rig).await;
    assert!(!rig.store.inner.has_rows(&[run.key]).await.unwrap());
    let ticks = rig.store.committed().split_off(before);
    let purges = steps(&ticks).filter(|step| matches!(step, IntentWrite::Purge { rows: 3, .. }));
    assert_eq!(purges.count(), 7, "twenty rows, three at a time");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_being_read_while_its_dag_is_deleted_writes_nothing() {
    let (rig, runs) = with_runs(builder(), 2).await;
    let one = ClearRequest {
        run_id: Some(runs[0].run_id.clone()),
        ..everything()
    };
    let d = dag("d");
    // The request for the run is taken first, and the run has to be read.
    let (cleared, deleted) = tokio::join!(rig.handle.clear(&d, one), rig.handle.delete_dag(&d, "tester"));
    match deleted {
        Ok(()) => assert!(matches!(cleared, Err(ControlError::DagNotFound(_))), "{cleared:?}"),
        Err(error) => {
            assert!(matches!(error, ControlError::Conflict(_)), "{error:?}");
            cleared.unwrap();
            settled(&rig).await;
            rig.handle.delete_dag(&d, "tester").await.unwrap();
        }
    }
    settled(&rig).await;
    assert!(rig.store.inner.runs().is_empty());
    let keys: Vec<_> = runs.iter().map(|run| run.key).collect();
    assert!(!rig.store.inner.has_rows(&keys).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_answer_waits_a_moment_for_what_it_promises() {
    let (rig, runs) = with_runs(RigBuilder::new(|_| Reply::done()), 3).await;
    let cleared = rig.handle.clear(&dag("d"), everything()).await.unwrap();
    assert_eq!(cleared.len(), 6);
    assert!(rig.store.inner.intents().await.unwrap().is_empty());
    for run in &runs {
        rig.finished(run).await;
    }
    rig.handle.delete_dag(&dag("d"), "tester").await.unwrap();
    rig.deploy(DagBuilder::chain("d", 1)).await;
}

#[tokio::test(start_paused = true)]
async fn states_of_several_runs_are_set_once_whatever_fails_on_the_way() {
    for at in 1..40 {
        // The deploy and the runs come before the promise.
        let (rig, _) = with_runs(builder(), 0).await;
        let mut runs = Vec::new();
        for day in [1, 2, 3] {
            let mut request = request("d");
            request.logical_date = Some(Timestamp(day * 86_400_000_000));
            let run = rig.handle.trigger(request).await.unwrap();
            rig.finished(&run).await;
            runs.push(run);
        }
        let before = rig.commits();
        let store = FaultyStore::new(Arc::clone(&rig.store.inner), move |attempt, _| {
            if attempt == at { Fault::CrashAfter } else { Fault::None }
        });
        let id = rig.store.inner.lease().unwrap().scheduler_id;
        let (_, clock) = rig.crash().await;
        let rig = builder()
            .store(store)
            .clock(clock)
            .config(|config| config.scheduler_id = id)
            .start()
            .await;
        let mut crashed = rig.store.crashed.subscribe();
        let request = SetStateRequest {
            dag_id: dag("d"),
            run_id: runs[1].run_id.clone(),
            include_past: true,
            include_future: false,
            tasks: vec![("t0".parse().unwrap(), None)],
            groups: Vec::new(),
            include_upstream: false,
            include_downstream: true,
            state: TaskInstanceState::Failed,
            dry_run: false,
            user: "tester".to_owned(),
        };
        let work = async {
            rig.handle.set_task_instance_state(request).await.ok();
            settled(&rig).await;
        };
        let has_crashed = tokio::select! {
            () = work => false,
            crashed = crashed.wait_for(|crashed| *crashed) => crashed.is_ok(),
        };
        let promised = rig.commits() > before;
        let rig = if has_crashed { restart(rig).await } else { rig };
        settled(&rig).await;
        if promised {
            for (run, state) in runs.iter().zip(["failed", "failed", "success"]) {
                for task in ["t0", "t1"] {
                    assert_eq!(rig.state(run.key, task).as_str(), state, "{at}: {} {task}", run.run_id);
                }
            }
        }
        assert!(rig.store.inner.intents().await.unwrap().is_empty());
        if !has_crashed {
            assert!(at > 2, "there are more commits than {at}");
            return;
        }
    }
    panic!("it never ended without a crash");
}
