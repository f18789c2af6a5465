//! Runs from trigger to end.

use std::time::Duration;

use model::dag::TaskKind;
use model::retry_rule::{MoreMemory, RetryAction, RetryRule};
use model::sensor::Sensor;
use model::{Cause, DagRunState, TaskIndex, TaskInstanceState, TriggerRule};
use ports::executor::TryOutcome;

use crate::support::{DagBuilder, Reply, RigBuilder, failure};

#[tokio::test(start_paused = true)]
async fn a_chain_runs_in_order_and_ends_in_success() {
    let rig = RigBuilder::new(|_| Reply::done()).start().await;
    rig.deploy(DagBuilder::chain("chain", 5)).await;
    let (run, state) = rig.run_to_end("chain").await;
    assert_eq!(state, DagRunState::Success);
    assert_eq!(rig.executor.tasks(), ["t0", "t1", "t2", "t3", "t4"]);
    assert_eq!(rig.stored(run.key).state, DagRunState::Success);
    assert_eq!(rig.store.inner.tries(run.key).len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_failed_try_is_retried_after_its_delay() {
    let rig = RigBuilder::new(|request| {
        if request.id.try_number.0 == 1 {
            Reply::failed(false)
        } else {
            Reply::done()
        }
    })
    .start()
    .await;
    rig.deploy(DagBuilder::new("d").task_with("a", &[], |task| task.retry.retries = 2))
        .await;
    let began = tokio::time::Instant::now();
    let (run, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Success);
    assert!(began.elapsed() >= Duration::from_secs(9), "{:?}", began.elapsed());
    let ti = rig.ti(run.key, "a");
    assert_eq!((ti.try_number.0, ti.max_tries), (2, 3));
    let tries = rig.store.inner.tries(run.key);
    assert_eq!(tries[0].state, TaskInstanceState::Failed);
    assert_eq!(tries[0].message.as_deref(), Some("it did not work"));
    assert_eq!(tries[1].state, TaskInstanceState::Success);
    assert_eq!(ti.message, None, "the message of the failed try is history");
}

#[tokio::test(start_paused = true)]
async fn a_fatal_failure_skips_the_retries_and_fails_the_run() {
    let rig = RigBuilder::new(|_| Reply::failed(true)).start().await;
    rig.deploy(
        DagBuilder::new("d")
            .task_with("a", &[], |task| task.retry.retries = 5)
            .task("b", &["a"])
            .task_with("c", &["a"], |task| task.trigger_rule = TriggerRule::OneFailed),
    )
    .await;
    let (run, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Failed);
    assert_eq!(rig.state(run.key, "a"), TaskInstanceState::Failed);
    assert_eq!(rig.state(run.key, "b"), TaskInstanceState::UpstreamFailed);
    assert_eq!(rig.ti(run.key, "a").code.as_deref(), Some("broken"));
    assert_eq!(rig.executor.tasks(), ["a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_branch_follows_its_label_and_an_unknown_label_breaks_the_contract() {
    for (label, chosen) in [("left", Some("l")), ("right", Some("r")), ("middle", None), ("", None)] {
        let rig = RigBuilder::new(move |request| {
            if request.task.task_id.as_str() == "gate" && !label.is_empty() {
                let labels = vec![label.to_owned()];
                Reply::End(TryOutcome::Branch { labels }, Vec::new())
            } else {
                Reply::done()
            }
        })
        .start()
        .await;
        let labels = [
            ("left".to_owned(), vec![TaskIndex(1)]),
            ("right".to_owned(), vec![TaskIndex(2)]),
        ];
        rig.deploy(
            DagBuilder::new("d")
                .task_with("gate", &[], |task| {
                    task.kind = TaskKind::Branch {
                        labels: labels.into_iter().collect(),
                    };
                })
                .task("l", &["gate"])
                .task("r", &["gate"]),
        )
        .await;
        let (run, state) = rig.run_to_end("d").await;
        match chosen {
            Some(chosen) => {
                assert_eq!(state, DagRunState::Success);
                for task in ["l", "r"] {
                    let expected = if task == chosen {
                        TaskInstanceState::Success
                    } else {
                        TaskInstanceState::Skipped
                    };
                    assert_eq!(rig.state(run.key, task), expected);
                }
            }
            None => {
                assert_eq!(state, DagRunState::Failed);
                let gate = rig.ti(run.key, "gate");
                assert_eq!(gate.cause, Some(Cause::ContractViolation));
                let expected = if label.is_empty() {
                    "without choosing a label"
                } else {
                    "left, right"
                };
                assert!(gate.message.unwrap().contains(expected));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sensor_is_poked_until_it_is_done_under_the_same_try() {
    let rig = RigBuilder::new(|request| {
        if request.id.dispatch.0 < 4 {
            let after = Duration::from_secs(60);
            Reply::End(TryOutcome::Reschedule { after }, Vec::new())
        } else {
            Reply::done()
        }
    })
    .start()
    .await;
    rig.deploy(DagBuilder::new("d").task("wait", &[])).await;
    let began = tokio::time::Instant::now();
    let (run, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Success);
    assert!(began.elapsed() >= Duration::from_secs(180));
    let ti = rig.ti(run.key, "wait");
    assert_eq!((ti.try_number.0, ti.dispatch.0), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn a_short_circuit_skips_what_follows() {
    let rig = RigBuilder::new(|_| Reply::End(TryOutcome::Done { falsy: true }, Vec::new()))
        .start()
        .await;
    rig.deploy(
        DagBuilder::new("d")
            .task_with("check", &[], |task| {
                task.kind = TaskKind::ShortCircuit {
                    ignore_downstream_trigger_rules: true,
                };
            })
            .task("a", &["check"])
            .task("b", &["a"]),
    )
    .await;
    let (run, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Success);
    assert_eq!(rig.state(run.key, "a"), TaskInstanceState::Skipped);
    assert_eq!(rig.state(run.key, "b"), TaskInstanceState::Skipped);
}

#[tokio::test(start_paused = true)]
async fn a_run_waits_for_its_time_and_for_its_dag() {
    let rig = RigBuilder::new(|_| Reply::done()).start().await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let mut request = crate::support::request("d");
    request.run_after = Some(rig.now().plus(Duration::from_secs(3_600)));
    let began = tokio::time::Instant::now();
    let run = ports::control::Control::trigger(&rig.handle, request).await.unwrap();
    assert_eq!(run.state, DagRunState::Queued);
    rig.finished(&run).await;
    assert!(began.elapsed() >= Duration::from_secs(3_600));

    let dag = model::DagId::new("d").unwrap();
    ports::control::Control::set_paused(&rig.handle, &dag, true, "tester")
        .await
        .unwrap();
    let run = rig.trigger("d").await;
    assert_eq!(run.state, DagRunState::Queued);
    let state = ports::control::Control::wait(&rig.handle, &dag, &run.run_id, Duration::from_secs(100)).await;
    assert_eq!(state.unwrap(), DagRunState::Queued);
    let before = rig.commits();
    ports::control::Control::set_paused(&rig.handle, &dag, false, "tester")
        .await
        .unwrap();
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert_eq!(rig.commits() - before, 2, "unpausing starts the run in its own commit");
}

#[tokio::test(start_paused = true)]
async fn max_active_runs_holds_runs_back_and_lets_the_next_one_in_with_the_same_commit() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.deploy(DagBuilder::chain("d", 1).with(|dag| dag.max_active_runs = 2))
        .await;
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.push(rig.trigger("d").await);
    }
    let first = rig.executor.next().await;
    let second = rig.executor.next().await;
    assert_eq!(rig.executor.count(), 2);
    let before = rig.commits();
    rig.executor.done(first.id);
    assert_eq!(rig.finished(&runs[0]).await, DagRunState::Success);
    let third = rig.executor.next().await;
    assert_eq!(third.run.run_id, runs[2].run_id);
    assert!(rig.commits() - before <= 2, "at most the start marks beside the result");
    rig.executor.done(second.id);
    rig.executor.done(third.id);
    let fourth = rig.executor.next().await;
    rig.executor.done(fourth.id);
    for run in &runs {
        assert_eq!(rig.finished(run).await, DagRunState::Success);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_policy_gives_the_next_try_more_memory_and_says_so() {
    const MIB: u64 = 1 << 20;
    let rig = RigBuilder::new(|request| {
        if request.task.limits.memory_bytes < 2048 * MIB {
            Reply::End(failure(Cause::OutOfMemory, false), Vec::new())
        } else {
            Reply::done()
        }
    })
    .start()
    .await;
    let more = RetryRule {
        causes: vec![Cause::OutOfMemory],
        codes: Vec::new(),
        action: RetryAction::Retry,
        delay: Some(Duration::from_secs(1)),
        memory: Some(MoreMemory {
            percent: 200,
            max_bytes: 4096 * MIB,
        }),
    };
    rig.deploy(DagBuilder::new("d").task_with("a", &[], |task| {
        task.retry.retries = 5;
        task.retry.rules = vec![more];
    }))
    .await;
    let (run, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Success);
    let limits: Vec<u64> = rig
        .executor
        .dispatched
        .lock()
        .unwrap()
        .iter()
        .map(|request| request.task.limits.memory_bytes / MIB)
        .collect();
    assert_eq!(limits, [512, 1024, 2048]);
    let shown: Vec<(Option<u32>, bool)> = rig
        .store
        .inner
        .tries(run.key)
        .iter()
        .map(|row| {
            (
                row.raised_memory_kib.map(|kib| kib.get() >> 10),
                row.retry_rule.is_some(),
            )
        })
        .collect();
    assert_eq!(shown, [(None, true), (Some(1024), true), (Some(2048), false)]);
}

#[tokio::test(start_paused = true)]
async fn a_sensor_that_has_waited_too_long_says_so() {
    let rig = RigBuilder::new(|_| {
        let after = Duration::ZERO;
        Reply::End(TryOutcome::Reschedule { after }, Vec::new())
    })
    .start()
    .await;
    rig.deploy(DagBuilder::new("d").task_with("wait", &[], |task| {
        task.sensor = Some(Sensor {
            timeout: Duration::from_secs(10),
            ..Sensor::default()
        });
    }))
    .await;
    let (run, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Failed);
    let ti = rig.ti(run.key, "wait");
    assert_eq!(ti.cause, Some(Cause::TimedOut));
    assert_eq!(
        ti.message.as_deref(),
        Some("the sensor has waited longer than its `timeout`")
    );
    assert!(ti.dispatch.0 <= 12, "one poke a second at the most: {}", ti.dispatch.0);
}
