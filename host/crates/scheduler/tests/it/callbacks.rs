//! Callbacks: committed with what they are due for, carried out afterwards, at least once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::callback::{Callback, CallbackAction, CallbackEvent, CallbackKind, CallbackState, NotificationLevel, TEXT};
use model::work::ComponentTask;
use model::{Cause, DagRunState, Digest, Limits, Work};
use ports::callback::CallbackRow;
use ports::control::{ClearRequest, Control as _};
use ports::executor::{TryOutcome, TryRequest, XcomPush};
use ports::payload::{Pulled, XcomBackend as _};
use ports::query::RunRow;
use ports::store::SchedulerStore as _;
use scheduler::MemoryStore;
use serde_json::{Value, json};

use crate::support::{DagBuilder, Fault, FaultyStore, Reply, Rig, RigBuilder, failure};

/// As much as a pull may ask for.
const ALL: u64 = u64::MAX;

fn runs(event: CallbackEvent) -> Callback {
    Callback {
        event,
        action: CallbackAction::Task {
            component: ComponentTask {
                reference: "alerts@1".to_owned(),
                digest: Digest::of(b"alerts"),
                entry: "send".to_owned(),
            },
            limits: Limits::default(),
        },
        input: json!({"why": "{{ callback.message }}"}),
    }
}

fn notifies(event: CallbackEvent, text: &str) -> Callback {
    Callback {
        event,
        action: CallbackAction::Notify {
            level: NotificationLevel::Error,
        },
        input: json!({ TEXT: text }),
    }
}

/// Tasks whose id begins with `bad` fail; callbacks do as the script says.
fn builder(script: impl Fn(&TryRequest) -> Reply + Send + Sync + 'static) -> RigBuilder {
    RigBuilder::new(move |request| {
        if request.id.callback.is_some() {
            script(request)
        } else if request.task.task_id.as_str().starts_with("bad") {
            Reply::failed(false)
        } else {
            Reply::done()
        }
    })
}

fn text_of(request: &TryRequest) -> Reply {
    let text = match &request.task.work {
        Work::Notify => format!("about {}", request.callback.as_ref().unwrap()["event"]),
        _ => return Reply::done(),
    };
    let push = XcomPush {
        key: "return_value".to_owned(),
        value: Value::from(text).to_string().into(),
        blobs: Vec::new(),
    };
    Reply::End(TryOutcome::Done { falsy: false }, vec![push])
}

async fn settled(rig: &Rig, run: &RunRow) -> Vec<CallbackRow> {
    loop {
        let rows = rig.store.inner.callbacks_of(run.key);
        if !rows.is_empty() && rows.iter().all(|row| row.state.is_finished()) {
            return rows;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn shown(rows: &[CallbackRow]) -> Vec<(Option<&str>, &str, &str, &str)> {
    rows.iter()
        .map(|row| {
            (
                row.task_id.as_ref().map(|id| id.as_str()),
                row.event.as_str(),
                row.kind.as_str(),
                row.state.as_str(),
            )
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn what_ends_calls_with_the_whole_story() {
    let rig = builder(text_of).start().await;
    let dag = DagBuilder::new("d")
        .task_with("bad", &[], |task| {
            task.retry.retries = 1;
            task.callbacks = vec![
                runs(CallbackEvent::Failure),
                notifies(CallbackEvent::Retry, "plain"),
                notifies(CallbackEvent::Failure, "{{ callback.message }}"),
                runs(CallbackEvent::Success),
            ];
        })
        .task_with("never", &["bad"], |task| {
            task.callbacks = CallbackEvent::ALL.iter().map(|event| runs(*event)).collect();
        })
        .with(|dag| dag.callbacks = vec![runs(CallbackEvent::Failure), runs(CallbackEvent::Success)]);
    rig.deploy(dag).await;
    let (run, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Failed);
    let rows = settled(&rig, &run).await;
    assert_eq!(
        shown(&rows),
        [
            (Some("bad"), "on_retry", "notification", "success"),
            (Some("bad"), "on_failure", "task", "success"),
            (Some("bad"), "on_failure", "notification", "success"),
            (None, "on_failure", "task", "success"),
        ]
    );
    assert_eq!(rows[0].text.as_deref(), Some("plain"));
    assert_eq!(
        (rows[0].attempt, rows[1].attempt),
        (0, 1),
        "a plain text is complete at once"
    );
    assert_eq!(rows[2].text.as_deref(), Some("about \"on_failure\""));
    let facts = |row: &CallbackRow| serde_json::from_str::<Value>(&row.facts).unwrap();
    let retry = facts(&rows[0]);
    assert_eq!(
        (&retry["try_number"], &retry["state"], &retry["cause"], &retry["code"]),
        (&json!(1), &json!("up_for_retry"), &json!("failed"), &json!("broken"))
    );
    assert!(
        retry["next_retry_at"].is_string() && retry["end_date"].is_string(),
        "{retry}"
    );
    let failed = facts(&rows[1]);
    assert_eq!(
        (
            &failed["try_number"],
            &failed["message"],
            &failed["max_tries"],
            &failed["run_state"]
        ),
        (&json!(2), &json!("it did not work"), &json!(2), &json!("failed"))
    );
    let path = failed["log_path"].as_str().unwrap();
    assert!(path.ends_with("/taskInstances/bad/logs/2?map_index=-1"), "{path}");
    let of_run = facts(&rows[3]);
    assert_eq!(
        (&of_run["reason"], &of_run["failed_tasks"], &of_run["failed_count"]),
        (&json!("task_failure"), &json!(["bad", "never"]), &json!(2))
    );
    // What is due is in the very tick of what it is due for.
    for tick in rig.store.committed() {
        for due in &tick.callbacks {
            match &due.of {
                Some(of) => assert!(
                    tick.tries
                        .iter()
                        .any(|row| row.key.task == of.task && row.try_number == of.try_number)
                ),
                None => assert!(tick.runs.iter().any(|run| run.state.is_finished())),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_callback_sees_what_its_task_sees_and_what_it_published() {
    let rig = RigBuilder::new(|request| match request.id.callback {
        Some(_) => Reply::Start,
        None => {
            let push = XcomPush {
                key: "return_value".to_owned(),
                value: format!("\"of {}\"", request.task.task_id).into(),
                blobs: Vec::new(),
            };
            Reply::End(TryOutcome::Done { falsy: false }, vec![push])
        }
    })
    .start()
    .await;
    let dag = DagBuilder::new("d")
        .task("a", &[])
        .task_with("b", &["a"], |task| task.callbacks = vec![runs(CallbackEvent::Success)])
        .task("c", &["b"])
        .with(|dag| dag.callbacks = vec![runs(CallbackEvent::Success)]);
    rig.deploy(dag).await;
    let (_, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Success);
    let mut found = Vec::new();
    let mut out = Vec::new();
    while out.len() < 2 {
        let request = rig.executor.next().await;
        if request.id.callback.is_none() {
            continue;
        }
        for task in ["a", "b", "c"] {
            let task = model::TaskId::new(task).unwrap();
            let pulled = rig.handle.pull(request.id, &task, "return_value", None, ALL).await;
            found.push((
                request.task.task_id.to_string(),
                match pulled {
                    Ok(Pulled::One(value)) => value.value.to_string(),
                    other => format!("{}", other.is_ok()),
                },
            ));
        }
        out.push(request.id);
    }
    found.sort();
    let of = |task: &str, value: &str| (task.to_owned(), value.to_owned());
    assert_eq!(
        found,
        [
            of("b", "\"of a\""),
            of("b", "\"of b\""),
            of("b", "false"),
            of("on_success", "\"of a\""),
            of("on_success", "\"of b\""),
            of("on_success", "\"of c\""),
        ]
    );
    // Once it has ended, it is nobody any more.
    rig.executor.done(out[0]);
    while rig.store.inner.due_callbacks(rig.now(), 10).await.unwrap().due.len() > 1 {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    let a = model::TaskId::new("a").unwrap();
    assert!(rig.handle.pull(out[0], &a, "return_value", None, ALL).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_fails_is_tried_three_times_and_changes_nothing() {
    let rig = builder(|request| Reply::End(failure(Cause::Trapped, request.task.input["fatal"] == true), Vec::new()))
        .start()
        .await;
    let dag = DagBuilder::new("d").task_with("a", &[], |task| {
        let fatal = Callback {
            input: json!({"fatal": true}),
            ..runs(CallbackEvent::Success)
        };
        task.callbacks = vec![runs(CallbackEvent::Success), fatal];
    });
    rig.deploy(dag).await;
    let began = rig.now();
    let (run, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Success);
    let rows = settled(&rig, &run).await;
    assert_eq!(
        (rows[0].state, rows[0].attempt, rows[0].cause),
        (CallbackState::Failed, 3, Some(Cause::Trapped))
    );
    assert_eq!(rows[0].message.as_deref(), Some("it did not work"));
    assert_eq!((rows[1].state, rows[1].attempt), (CallbackState::Failed, 1));
    assert!(
        rig.now().since(began) >= Duration::from_secs(30),
        "10 and 20 seconds between them"
    );
    assert_eq!(rig.stored(run.key).state, DagRunState::Success);
    assert_eq!(rig.ti(run.key, "a").try_number.0, 1);
    let metrics = rig.handle.metrics();
    assert_eq!((metrics.callback_attempts, metrics.callbacks_failed), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn callbacks_have_turns_of_their_own() {
    let rig = builder(|_| Reply::Start)
        .config(|config| config.parallelism = Some(1))
        .start()
        .await;
    let dag = (0..10).fold(DagBuilder::new("d"), |dag, at| {
        dag.task_with(&format!("t{at}"), &[], |task| {
            task.callbacks = vec![runs(CallbackEvent::Success)];
        })
    });
    rig.deploy(dag).await;
    // No callback ends, and all tasks run all the same, one at a time.
    let (run, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Success);
    rig.executor.seen(14).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.executor.count(), 14, "ten tasks and four callbacks");
    let running = |rig: &Rig| {
        let rows = rig.store.inner.callbacks_of(run.key);
        rows.iter().filter(|row| row.state == CallbackState::Running).count()
    };
    assert_eq!(running(&rig), 4);
    let mut ended = 0;
    while ended < 10 {
        let request = rig.executor.next().await;
        if request.id.callback.is_some() {
            assert!(running(&rig) <= 4);
            rig.executor.done(request.id);
            ended += 1;
        }
    }
    let rows = settled(&rig, &run).await;
    assert!(
        rows.iter()
            .all(|row| row.state == CallbackState::Success && row.attempt == 1)
    );
}

#[tokio::test(start_paused = true)]
async fn only_the_current_attempt_is_heard_and_only_once() {
    let rig = builder(|_| Reply::Start).start().await;
    let dag = DagBuilder::new("d").task_with("a", &[], |task| task.callbacks = vec![runs(CallbackEvent::Success)]);
    rig.deploy(dag).await;
    let (run, _) = rig.run_to_end("d").await;
    rig.executor.next().await;
    let first = rig.executor.next().await.id;
    rig.executor.end(first, failure(Cause::TimedOut, false));
    // The executor says it again, and something else as well.
    rig.executor.end(first, failure(Cause::TimedOut, false));
    rig.executor.done(first);
    let second = rig.executor.next().await.id;
    assert_eq!((second.callback, second.dispatch.0), (first.callback, 2));
    rig.executor.done(first);
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    let row = &rig.store.inner.callbacks_of(run.key)[0];
    assert_eq!((row.state, row.attempt), (CallbackState::Running, 2));
    rig.executor.done(second);
    let rows = settled(&rig, &run).await;
    assert_eq!((rows[0].state, rows[0].attempt), (CallbackState::Success, 2));
    assert_eq!(rig.handle.metrics().stale_events, 3);
}

#[tokio::test(start_paused = true)]
async fn what_a_shutdown_hands_back_does_not_count_and_a_crash_does() {
    let dag = || DagBuilder::new("d").task_with("a", &[], |task| task.callbacks = vec![runs(CallbackEvent::Success)]);
    let rig = builder(|_| Reply::Start).start().await;
    rig.deploy(dag()).await;
    let (run, _) = rig.run_to_end("d").await;
    rig.executor.next().await;
    let id = rig.executor.next().await.id;
    rig.handle.shutdown(Duration::ZERO).await;
    let row = &rig.store.inner.callbacks_of(run.key)[0];
    assert_eq!((row.state, row.attempt), (CallbackState::Queued, 0), "handed back");
    let Rig { store, clock, .. } = rig;

    let mut rig = builder(|_| Reply::Start).store(store).clock(clock).start().await;
    for attempt in 1..=3 {
        let request = rig.executor.next().await;
        assert_eq!((request.id.callback, request.id.dispatch.0), (id.callback, attempt));
        let scheduler = rig.store.inner.lease().unwrap().scheduler_id;
        let (store, clock) = rig.crash().await;
        rig = builder(|_| Reply::Start)
            .config(|config| config.scheduler_id = scheduler)
            .store(store)
            .clock(clock)
            .start()
            .await;
    }
    let rows = settled(&rig, &run).await;
    assert_eq!(rows[0].state, CallbackState::Failed);
    assert_eq!(
        rows[0].cause,
        Some(Cause::InfrastructureLost),
        "it is not tried for ever"
    );
    assert_eq!(rig.executor.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_callbacks_of_a_run_go_with_it() {
    let rig = builder(|_| Reply::Start).start().await;
    let dag = DagBuilder::new("d").task_with("a", &[], |task| {
        task.callbacks = vec![runs(CallbackEvent::Success), notifies(CallbackEvent::Success, "x")];
    });
    rig.deploy(dag).await;
    let (run, _) = rig.run_to_end("d").await;
    rig.executor.next().await;
    let id = rig.executor.next().await.id;
    rig.handle.delete_run(&run.dag_id, &run.run_id, "tester").await.unwrap();
    rig.executor.done(id);
    while rig.store.inner.has_rows(&[run.key]).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(rig.store.inner.callbacks_of(run.key).is_empty());
    assert!(
        rig.store
            .inner
            .due_callbacks(rig.now(), 10)
            .await
            .unwrap()
            .due
            .is_empty()
    );
    // The turn is free again: four more can be out.
    let (_, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Success);
    rig.executor.seen(4).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_cleared_calls_again() {
    let rig = builder(text_of).start().await;
    let dag = DagBuilder::new("d").task_with("a", &[], |task| {
        task.callbacks = vec![notifies(CallbackEvent::Success, "x")];
    });
    rig.deploy(dag).await;
    let (run, _) = rig.run_to_end("d").await;
    let clear = ClearRequest {
        run_id: Some(run.run_id.clone()),
        ..ClearRequest::default()
    };
    rig.handle.clear(&run.dag_id, clear).await.unwrap();
    rig.executor.seen(2).await;
    rig.finished(&run).await;
    let rows = settled(&rig, &run).await;
    let tries: Vec<_> = rows.iter().map(|row| row.try_number.unwrap().0).collect();
    assert_eq!(tries, [1, 2]);
}

/// Crashed at every commit, before and after it was written; and with every other way in which a commit can fail.
#[tokio::test(start_paused = true)]
async fn whatever_commit_fails_each_callback_is_stored_once_and_carried_out() {
    let faults = [
        Fault::CrashBefore,
        Fault::CrashAfter,
        Fault::Passing,
        Fault::UnknownLost,
        Fault::UnknownWritten,
    ];
    for fault in faults {
        let mut at = 1;
        loop {
            let store = FaultyStore::new(Arc::new(MemoryStore::new()), move |attempt, _| {
                if attempt == at { fault } else { Fault::None }
            });
            let carried: Arc<Mutex<BTreeSet<i64>>> = Arc::default();
            let script = |carried: &Arc<Mutex<BTreeSet<i64>>>| {
                let carried = Arc::clone(carried);
                move |request: &TryRequest| {
                    carried.lock().unwrap().insert(request.id.callback.unwrap().0);
                    text_of(request)
                }
            };
            let rig = builder(script(&carried)).store(store).start().await;
            let dag = DagBuilder::new("d")
                .task_with("bad", &[], |task| {
                    task.retry.retries = 1;
                    task.callbacks = vec![
                        runs(CallbackEvent::Retry),
                        runs(CallbackEvent::Failure),
                        notifies(CallbackEvent::Failure, "{{ callback.message }}"),
                        notifies(CallbackEvent::Failure, "plain"),
                    ];
                })
                .task_with("good", &[], |task| task.callbacks = vec![runs(CallbackEvent::Success)])
                .with(|dag| dag.callbacks = vec![runs(CallbackEvent::Failure)]);
            rig.deploy(dag).await;
            let mut crashed = rig.store.crashed.subscribe();
            let work = async {
                let (run, _) = rig.run_to_end("d").await;
                settled(&rig, &run).await;
            };
            let has_crashed = tokio::select! {
                () = work => false,
                crashed = crashed.wait_for(|crashed| *crashed) => crashed.is_ok(),
            };
            let attempts = rig.store.attempts();
            let rig = if has_crashed {
                let scheduler = rig.store.inner.lease().unwrap().scheduler_id;
                let (store, clock) = rig.crash().await;
                builder(script(&carried))
                    .config(|config| config.scheduler_id = scheduler)
                    .store(store)
                    .clock(clock)
                    .start()
                    .await
            } else {
                rig
            };
            for run in rig.store.inner.runs() {
                assert_eq!(rig.finished(&run).await, DagRunState::Failed, "{fault:?} at {at}");
                let rows = settled(&rig, &run).await;
                let mut what: Vec<_> = rows
                    .iter()
                    .map(|row| {
                        (
                            row.task_id.clone().map(|id| id.to_string()),
                            row.event,
                            row.kind,
                            row.try_number.map(|number| number.0),
                        )
                    })
                    .collect();
                what.sort();
                let bad = Some("bad".to_owned());
                assert_eq!(
                    what,
                    [
                        (None, CallbackEvent::Failure, CallbackKind::Task, None),
                        (bad.clone(), CallbackEvent::Failure, CallbackKind::Task, Some(2)),
                        (bad.clone(), CallbackEvent::Failure, CallbackKind::Notification, Some(2)),
                        (bad.clone(), CallbackEvent::Failure, CallbackKind::Notification, Some(2)),
                        (bad, CallbackEvent::Retry, CallbackKind::Task, Some(1)),
                        (
                            Some("good".to_owned()),
                            CallbackEvent::Success,
                            CallbackKind::Task,
                            Some(1)
                        ),
                    ],
                    "{fault:?} at {at}"
                );
                for row in &rows {
                    assert_eq!(row.state, CallbackState::Success, "{fault:?} at {at}: {row:?}");
                    let out = carried.lock().unwrap().contains(&row.id.0);
                    assert_eq!(out, row.text.as_deref() != Some("plain"), "{fault:?} at {at}: {row:?}");
                    assert!(row.attempt <= 2, "{row:?}");
                }
            }
            if attempts <= at {
                assert!(at > 6, "{fault:?}: there are more commits than {at}");
                break;
            }
            at += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_one_run_only_so_many_are_kept() {
    let rig = builder(text_of).start().await;
    let dag = (0..700).fold(DagBuilder::new("d"), |dag, at| {
        dag.task_with(&format!("t{at}"), &[], |task| {
            task.callbacks = (0..16).map(|_| notifies(CallbackEvent::Success, "x")).collect();
        })
    });
    rig.deploy(dag.with(|dag| dag.callbacks = vec![notifies(CallbackEvent::Success, "over")]))
        .await;
    let (run, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Success, "the run takes no harm");
    assert_eq!(rig.store.inner.callbacks_of(run.key).len(), 10_000);
    // It is counted through a restart.
    let scheduler = rig.store.inner.lease().unwrap().scheduler_id;
    let (store, clock) = rig.crash().await;
    let rig = builder(text_of)
        .config(|config| config.scheduler_id = scheduler)
        .store(store)
        .clock(clock)
        .start()
        .await;
    let clear = ClearRequest {
        run_id: Some(run.run_id.clone()),
        ..ClearRequest::default()
    };
    rig.handle.clear(&run.dag_id, clear).await.unwrap();
    rig.executor.seen(700).await;
    rig.finished(&run).await;
    assert_eq!(rig.store.inner.callbacks_of(run.key).len(), 10_000);
}

/// An end that the database refuses for its data stays as it was until the next start, and is in nobody's way.
#[tokio::test(start_paused = true)]
async fn an_end_that_cannot_be_stored_holds_up_nobody() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), |_, tick| {
        let ends = tick.dags.iter().any(|change| {
            matches!(change, ports::store::DagWrite::Callback(change) if change.id.0 <= 4 && change.state == CallbackState::Success)
        });
        if ends { Fault::Data } else { Fault::None }
    });
    let rig = builder(text_of).store(store).start().await;
    let dag = (0..6).fold(DagBuilder::new("d"), |dag, at| {
        dag.task_with(&format!("t{at}"), &[], |task| {
            task.callbacks = vec![runs(CallbackEvent::Success)]
        })
    });
    rig.deploy(dag).await;
    let (run, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Success);
    let states = || -> Vec<CallbackState> {
        let rows = rig.store.inner.callbacks_of(run.key);
        rows.iter().map(|row| row.state).collect()
    };
    while states()[4..] != [CallbackState::Success; 2] {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(states()[..4], [CallbackState::Running; 4]);
    assert_eq!(rig.executor.count(), 12, "none is begun twice");
}
