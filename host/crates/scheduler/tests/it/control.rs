//! The commands of `Control`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use model::dag::{Combine, Expansion, MapSource, MapValues};
use model::{DagId, DagRunState, TaskId, TaskIndex, TaskInstanceState, Timestamp};
use ports::control::{ClearRequest, Control as _, ControlError, RunEvent};
use ports::executor::{ExecutorEvent, TryOutcome, TryReport, TryUsage};
use ports::query::RunRow;
use ports::store::TiWrite;

use crate::support::{DagBuilder, Reply, Rig, RigBuilder, request, run_id};

fn dag(id: &str) -> DagId {
    DagId::new(id).unwrap()
}

async fn rig(n: usize) -> Rig {
    let rig = RigBuilder::new(|_| Reply::done()).start().await;
    rig.deploy(DagBuilder::chain("d", n)).await;
    rig
}

fn tasks(ids: &[&str]) -> Option<Vec<(TaskId, Option<model::MapIndex>)>> {
    Some(ids.iter().map(|id| (TaskId::new(id).unwrap(), None)).collect())
}

#[tokio::test(start_paused = true)]
async fn runs_triggered_in_one_microsecond_get_different_names() {
    let rig = rig(1).await;
    let (a, b, c) = tokio::join!(rig.trigger("d"), rig.trigger("d"), rig.trigger("d"));
    assert!(a.run_id != b.run_id && b.run_id != c.run_id && a.run_id != c.run_id);
    assert!(a.run_id.as_str().starts_with("manual__2026-01-01T00:00:00.00000"));
}

#[tokio::test(start_paused = true)]
async fn a_generated_name_says_when_its_run_is_due_and_it_is_due_at_once() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.deploy(DagBuilder::chain("d", 1).with(|dag| dag.max_active_runs = 2_000))
        .await;
    let mut named = HashSet::new();
    let mut check = |run: &RunRow| {
        assert_eq!(run.run_id.as_str(), format!("manual__{}", run.run_after));
        assert_eq!(run.state, DagRunState::Running, "{}", run.run_id);
        assert!(named.insert(run.run_id.clone()), "{}", run.run_id);
    };
    let before = rig.now();
    let runs = futures::future::join_all((0..1_000).map(|_| rig.trigger("d"))).await;
    assert_eq!(
        rig.now(),
        before,
        "the clock stood still: all names but one lie ahead of it"
    );
    runs.iter().for_each(&mut check);
    let latest = runs.iter().map(|run| run.run_after).max().unwrap();
    assert_eq!(latest.since(before), Duration::from_micros(999));
    check(&rig.trigger("d").await);
    // A run that is due now does not lie an hour ahead because the clock was set back.
    rig.clock.set_back(Duration::from_secs(3_600));
    let run = rig.trigger("d").await;
    check(&run);
    assert_eq!(run.run_after, rig.now());
    let mut given = request("d");
    given.run_after = Some(Timestamp(rig.now().0 - 7));
    let run = rig.handle.trigger(given).await.unwrap();
    assert_eq!(run.run_id.as_str(), format!("manual__{}", run.run_after));
}

#[tokio::test(start_paused = true)]
async fn a_given_name_or_logical_date_is_taken_once_even_within_one_tick() {
    let rig = rig(1).await;
    let mut named = request("d");
    named.run_id = Some(run_id("mine"));
    let (a, b) = tokio::join!(rig.handle.trigger(named.clone()), rig.handle.trigger(named.clone()));
    assert!(a.is_ok() != b.is_ok());
    for error in [a.err().or(b.err()), rig.handle.trigger(named).await.err()] {
        assert!(matches!(error, Some(ControlError::RunExists(_))), "{error:?}");
    }
    let mut dated = request("d");
    dated.logical_date = Some(rig.now());
    let (a, b) = tokio::join!(rig.handle.trigger(dated.clone()), rig.handle.trigger(dated.clone()));
    assert!(a.is_ok() != b.is_ok());
    let error = rig.handle.trigger(dated).await.err();
    assert!(matches!(error, Some(ControlError::RunExists(_))), "{error:?}");
    let mut later = request("d");
    later.run_after = Some(rig.now());
    let first = rig.handle.trigger(later.clone()).await.unwrap();
    let second = rig.handle.trigger(later).await.unwrap();
    assert!(first.run_id != second.run_id, "a name that was not asked for makes way");
}

#[tokio::test(start_paused = true)]
async fn parameters_are_resolved_or_refused() {
    let rig = RigBuilder::new(|_| Reply::Nothing).start().await;
    let builder = DagBuilder::chain("d", 1)
        .param("threshold", Some(serde_json::json!(0.5)))
        .param("source", None);
    rig.deploy(builder).await;
    let error = rig.try_trigger("d").await.unwrap_err();
    assert!(matches!(error, ControlError::InvalidParams { problems } if problems[0].contains("source")));
    let mut good = request("d");
    good.conf = serde_json::json!({"source": "s", "other": 1});
    rig.handle.trigger(good).await.unwrap();
    let dispatched = rig.executor.next().await;
    assert_eq!(
        dispatched.run.params,
        serde_json::json!({"threshold": 0.5, "source": "s"})
    );
    assert_eq!(dispatched.run.conf["other"], 1);
    assert!(matches!(
        rig.try_trigger("nope").await.unwrap_err(),
        ControlError::DagNotFound(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn clearing_an_ended_run_loads_it_and_runs_what_was_cleared() {
    let rig = rig(3).await;
    let (run, _) = rig.run_to_end("d").await;
    let clear = ClearRequest {
        run_id: Some(run.run_id.clone()),
        tasks: tasks(&["t1"]),
        include_downstream: true,
        dry_run: true,
        ..ClearRequest::default()
    };
    let shown = rig.handle.clear(&dag("d"), clear.clone()).await.unwrap();
    assert_eq!(shown.len(), 2);
    assert_eq!(rig.executor.count(), 3, "a dry run does nothing");
    let clear = ClearRequest {
        dry_run: false,
        ..clear
    };
    rig.handle.clear(&dag("d"), clear).await.unwrap();
    rig.executor.seen(5).await;
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert_eq!(rig.executor.tasks(), ["t0", "t1", "t2", "t1", "t2"]);
    let ti = rig.ti(run.key, "t1");
    assert_eq!((ti.try_number.0, ti.dispatch.0), (2, 2), "tries go on counting");
    assert_eq!(rig.store.inner.tries(run.key).len(), 5);
}

#[tokio::test(start_paused = true)]
async fn clearing_picks_states_and_refuses_unknown_tasks_and_runs() {
    let rig = RigBuilder::new(|request| {
        if request.task.task_id.as_str() == "t1" && request.id.try_number.0 == 1 {
            Reply::failed(true)
        } else {
            Reply::done()
        }
    })
    .start()
    .await;
    rig.deploy(DagBuilder::chain("d", 3)).await;
    let (first, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Failed);
    let (second, _) = rig.run_to_end("d").await;
    let unknown = ClearRequest {
        run_id: Some(first.run_id.clone()),
        tasks: tasks(&["nope"]),
        ..ClearRequest::default()
    };
    let error = rig.handle.clear(&dag("d"), unknown).await.unwrap_err();
    assert!(matches!(error, ControlError::TaskNotFound { .. }));
    let missing = ClearRequest {
        run_id: Some(run_id("nope")),
        ..ClearRequest::default()
    };
    let error = rig.handle.clear(&dag("d"), missing).await.unwrap_err();
    assert!(matches!(error, ControlError::RunNotFound { .. }));
    // No run id: all runs.
    let failed = ClearRequest {
        only_failed: true,
        ..ClearRequest::default()
    };
    let cleared = rig.handle.clear(&dag("d"), failed).await.unwrap();
    assert_eq!(cleared.len(), 4, "t1 failed and t2 upstream_failed, in both runs");
    rig.executor.seen(8).await;
    for run in [&first, &second] {
        assert_eq!(rig.finished(run).await, DagRunState::Success);
        assert_eq!(rig.ti(run.key, "t0").try_number.0, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn clearing_what_runs_cancels_it_and_starts_it_again() {
    let rig = RigBuilder::new(|request| {
        if request.id.dispatch.0 == 1 {
            Reply::Start
        } else {
            Reply::done()
        }
    })
    .start()
    .await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let run = rig.trigger("d").await;
    let first = rig.executor.next().await;
    let clear = ClearRequest {
        run_id: Some(run.run_id.clone()),
        ..ClearRequest::default()
    };
    rig.handle.clear(&dag("d"), clear).await.unwrap();
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert_eq!(rig.executor.cancelled.lock().unwrap().as_slice(), [first.id]);
    assert_eq!(rig.ti(run.key, "t0").try_number.0, 2);
}

#[tokio::test(start_paused = true)]
async fn instances_that_came_to_be_since_the_request_are_cleared_too() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    let expansion = Expansion {
        how: Combine::Product,
        sources: vec![MapSource {
            name: "x".to_owned(),
            values: MapValues::Xcom {
                task: TaskIndex(0),
                key: "return_value".to_owned(),
                path: Vec::new(),
                measure: 0,
            },
        }],
        limit: 10,
    };
    let dag_of_two = DagBuilder::new("d")
        .task("list", &[])
        .task_with("each", &["list"], |task| task.expand = Some(expansion));
    rig.deploy(dag_of_two).await;
    let run = rig.trigger("d").await;
    let list = rig.executor.next().await;
    let report = TryReport {
        id: list.id,
        outcome: TryOutcome::Done { falsy: false },
        xcoms: Vec::new(),
        measured: vec![3],
        rendered_map_index: None,
        started_at: Timestamp(1),
        ended_at: Timestamp(2),
        usage: TryUsage::default(),
    };
    // The request reads what there is before the loop sees the end of `list`.
    rig.executor.send(ExecutorEvent::Finished(Box::new(report)));
    let clear = ClearRequest {
        run_id: Some(run.run_id.clone()),
        tasks: tasks(&["list"]),
        include_downstream: true,
        ..ClearRequest::default()
    };
    let cleared = rig.handle.clear(&dag("d"), clear).await.unwrap();
    assert_eq!(cleared.len(), 4, "`list` and the three that it made");
    assert_eq!(rig.executor.next().await.id.try_number.0, 2);
    let waiting: Vec<TiWrite> = rig.store.inner.task_instances(run.key);
    let each = waiting.iter().filter(|ti| ti.task_id.as_str() == "each");
    assert!(
        each.clone().all(|ti| ti.state == TaskInstanceState::NoStatus),
        "{waiting:?}"
    );
    assert_eq!(rig.executor.count(), 2, "nothing runs on what is made anew");
}

#[tokio::test(start_paused = true)]
async fn failing_a_run_by_hand_cancels_and_refuses_late_results() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.deploy(DagBuilder::chain("d", 2)).await;
    let run = rig.trigger("d").await;
    let first = rig.executor.next().await;
    let row = rig
        .handle
        .set_run_state(&run.dag_id, &run.run_id, DagRunState::Failed, "tester")
        .await
        .unwrap();
    assert_eq!(row.state, DagRunState::Failed);
    assert_eq!(rig.executor.cancelled.lock().unwrap().as_slice(), [first.id]);
    assert!(!rig.handle.is_active(run.uuid));
    let before = rig.commits();
    rig.executor.done(first.id);
    rig.trigger("d").await;
    assert_eq!(rig.commits() - before, 1, "the late result writes nothing");
    assert!(rig.handle.metrics().stale_events > 0);
    let running = rig
        .handle
        .set_run_state(&run.dag_id, &run.run_id, DagRunState::Running, "tester")
        .await;
    assert!(matches!(running, Err(ControlError::Conflict(_))));
}

#[tokio::test(start_paused = true)]
async fn notes_change_and_ended_or_active_runs_can_be_deleted() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let run = rig.trigger("d").await;
    let row = rig
        .handle
        .set_run_note(&run.dag_id, &run.run_id, "look here", "tester")
        .await
        .unwrap();
    assert_eq!(row.note.as_deref(), Some("look here"));
    rig.executor.next().await;
    rig.handle.delete_run(&run.dag_id, &run.run_id, "tester").await.unwrap();
    assert_eq!(rig.store.inner.runs().len(), 0);
    assert_eq!(rig.executor.cancelled.lock().unwrap().len(), 1);
    let again = rig.handle.delete_run(&run.dag_id, &run.run_id, "tester").await;
    assert!(matches!(again, Err(ControlError::RunNotFound { .. })));

    let run = rig.trigger("d").await;
    let request = rig.executor.next().await;
    rig.executor.done(request.id);
    rig.finished(&run).await;
    rig.handle.delete_run(&run.dag_id, &run.run_id, "tester").await.unwrap();
    assert_eq!(rig.store.inner.runs().len(), 0);
    let events: Vec<_> = rig.store.inner.audit_log().iter().map(|line| line.event).collect();
    assert!(events.contains(&"delete_dag_run") && events.contains(&"trigger_dag_run"));
}

#[tokio::test(start_paused = true)]
async fn deploys_count_versions_and_a_run_keeps_the_one_it_started_with() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    let deploy = |n, content| {
        rig.handle
            .deploy(DagBuilder::chain("d", n).manifest(content), true, "tester")
    };
    let first = deploy(2, "a").await.unwrap();
    assert!(first.new_dag && first.new_version && first.version_number == 1);
    let run = rig.trigger("d").await;
    let request = rig.executor.next().await;
    let second = deploy(1, "b").await.unwrap();
    assert!(!second.new_dag && second.new_version && second.version_number == 2);
    let back = deploy(2, "a").await.unwrap();
    assert!(!back.new_version && back.version == first.version);
    deploy(1, "b").await.unwrap();
    rig.executor.done(request.id);
    let request = rig.executor.next().await;
    assert_eq!(request.task.task_id.as_str(), "t1");
    rig.executor.done(request.id);
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    let fresh = rig.trigger("d").await;
    assert_eq!(fresh.version_number, 2);
    let refused = rig
        .handle
        .deploy(DagBuilder::chain("d", 3).manifest("c"), false, "tester")
        .await;
    assert!(matches!(refused, Err(ControlError::Conflict(_))));
}

#[tokio::test(start_paused = true)]
async fn a_dag_is_deleted_only_when_nothing_of_it_is_active() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let run = rig.trigger("d").await;
    let refused = rig.handle.delete_dag(&dag("d"), "tester").await;
    assert!(matches!(refused, Err(ControlError::Conflict(_))));
    let request = rig.executor.next().await;
    rig.executor.done(request.id);
    rig.finished(&run).await;
    rig.handle.delete_dag(&dag("d"), "tester").await.unwrap();
    assert!(rig.store.inner.runs().is_empty());
    assert!(matches!(rig.try_trigger("d").await, Err(ControlError::DagNotFound(_))));
    let gone = rig.handle.delete_dag(&dag("d"), "tester").await;
    assert!(matches!(gone, Err(ControlError::DagNotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn subscribers_see_runs_and_task_instances_after_the_commit() {
    let rig = rig(1).await;
    let mut events = rig.handle.subscribe();
    let (run, _) = rig.run_to_end("d").await;
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        match event {
            RunEvent::DagRun { run_id, state, .. } => {
                assert_eq!(run_id, run.run_id);
                seen.push(state.to_string());
            }
            RunEvent::TaskInstance { state, .. } => seen.push(format!("t0 {state}")),
            RunEvent::Callback { .. }
            | RunEvent::Expanded { .. }
            | RunEvent::Progress { .. }
            | RunEvent::Dag { .. } => {}
        }
    }
    assert_eq!(seen, ["t0 queued", "running", "t0 running", "t0 success", "success"]);
    assert!(matches!(rig.state(run.key, "t0"), TaskInstanceState::Success));
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_the_timeout_or_at_once_for_what_is_not_there() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let run = rig.trigger("d").await;
    let state = rig.handle.wait(&run.dag_id, &run.run_id, Duration::from_secs(5)).await;
    assert_eq!(state.unwrap(), DagRunState::Running);
    let nothing = rig
        .handle
        .wait(&run.dag_id, &run_id("nope"), Duration::from_secs(5))
        .await;
    assert!(matches!(nothing, Err(ControlError::RunNotFound { .. })));
}

#[tokio::test(start_paused = true)]
async fn progress_is_shown_of_current_dispatches_only() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let run = rig.trigger("d").await;
    let request = rig.executor.next().await;
    let mut stale = request.id;
    stale.dispatch.0 += 1;
    for (id, note) in [(request.id, "half"), (stale, "wrong")] {
        rig.executor.send(ports::executor::ExecutorEvent::Progress {
            id,
            fraction: Some(0.5),
            note: note.to_owned(),
        });
    }
    let shown = rig.handle.progress(&run.dag_id, &run.run_id);
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].3, "half");
    rig.executor.done(request.id);
    rig.finished(&run).await;
    assert!(rig.handle.progress(&run.dag_id, &run.run_id).is_empty());
    drop(Arc::clone(&rig.store));
}
