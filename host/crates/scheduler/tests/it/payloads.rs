//! XComs and checkpoints of running tries.

use std::time::Duration;

use futures::future::join_all;
use model::dag::{Combine, Expansion, MapSource, MapValues};
use model::{DagRunState, MapIndex, TaskId, TriggerRule};
use ports::executor::{TryId, TryOutcome, TryRequest, XcomPush};
use ports::payload::{
    Checkpoint, CheckpointBackend as _, CheckpointError, MAX_LIST_BYTES, Pulled, XcomBackend as _, XcomError,
};
use ports::store::{SchedulerStore as _, TickWrite};

use crate::support::{BAD_CHECKPOINT, DagBuilder, Reply, Rig, RigBuilder, failure};

/// As much as a pull may ask for.
const ALL: u64 = u64::MAX;

fn push(key: &str, value: &str) -> XcomPush {
    XcomPush {
        key: key.to_owned(),
        value: value.into(),
        blobs: Vec::new(),
    }
}

fn task(id: &str) -> TaskId {
    TaskId::new(id).unwrap()
}

fn one(pulled: &Pulled) -> &str {
    match pulled {
        Pulled::One(value) => &value.value,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_pull_sees_committed_values_of_upstream_tasks_only() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.deploy(DagBuilder::chain("d", 3).task("aside", &[])).await;
    let run = rig.trigger("d").await;
    let (first, aside) = (rig.executor.next().await, rig.executor.next().await);
    assert_eq!(aside.task.task_id.as_str(), "aside");
    let done = TryOutcome::Done { falsy: false };
    rig.executor.end_with(
        first.id,
        done.clone(),
        vec![push("return_value", "1"), push("k", "[2]")],
    );
    let second = rig.executor.next().await;
    let pulled = rig.handle.pull(second.id, &task("t0"), "return_value", None, ALL).await;
    assert_eq!(one(&pulled.unwrap()), "1");
    assert_eq!(rig.handle.metrics().xcom_cache_hits, 1, "a chain reads memory");
    let missing = rig
        .handle
        .pull(second.id, &task("t0"), "none", None, ALL)
        .await
        .unwrap();
    assert_eq!(missing, Pulled::Missing);
    rig.executor.end_with(second.id, done, vec![]);
    let third = rig.executor.next().await;
    let transitive = rig.handle.pull(third.id, &task("t0"), "k", None, ALL).await.unwrap();
    assert_eq!(one(&transitive), "[2]");
    for other in ["aside", "t2", "nope"] {
        let refused = rig.handle.pull(third.id, &task(other), "k", None, ALL).await;
        assert!(matches!(refused, Err(XcomError::NotUpstream(_))), "{other}");
    }
    let stale = rig.handle.pull(second.id, &task("t0"), "k", None, ALL).await;
    assert!(matches!(stale, Err(XcomError::Stale)));
    rig.executor.done(third.id);
    rig.executor.done(aside.id);
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
}

/// `n` instances, each of which publishes a text of so many bytes and its number, and `reduce` after them.
async fn mapped(n: u32, bytes: usize) -> (Rig, TryRequest) {
    let script = move |request: &TryRequest| {
        if request.task.task_id.as_str() == "reduce" {
            return Reply::Start;
        }
        let text = format!("\"{}{}\"", "x".repeat(bytes), request.id.map_index().0);
        Reply::End(TryOutcome::Done { falsy: false }, vec![push("return_value", &text)])
    };
    let rig = RigBuilder::new(script).start().await;
    let literal = MapValues::Literal {
        value: (0..n).collect::<Vec<_>>().into(),
    };
    let dag = DagBuilder::new("d")
        .task_with("each", &[], |task| {
            task.expand = Some(Expansion {
                how: Combine::Product,
                sources: vec![MapSource {
                    name: "x".to_owned(),
                    values: literal,
                }],
                limit: n,
            });
        })
        .task("reduce", &["each"]);
    rig.deploy(dag).await;
    rig.trigger("d").await;
    loop {
        let request = rig.executor.next().await;
        if request.task.task_id.as_str() == "reduce" {
            return (rig, request);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn many_values_are_handed_over_in_parts() {
    let (rig, reduce) = mapped(10, 300_000).await;
    let (id, each) = (reduce.id, task("each"));
    assert_eq!(rig.handle.count(id, &each, "return_value").await.unwrap(), 10);
    assert_eq!(rig.handle.count(id, &each, "other").await.unwrap(), 0);
    let mut seen = Vec::new();
    let mut parts = 0;
    loop {
        let after = seen.last().copied();
        let part = rig
            .handle
            .pull_items(id, &each, "return_value", after, 100)
            .await
            .unwrap();
        if part.is_empty() {
            break;
        }
        let bytes: usize = part.iter().map(|(_, value)| value.value.len()).sum();
        assert!(bytes <= 1 << 20, "{bytes} bytes at once");
        parts += 1;
        for (index, value) in part {
            assert!(value.value.ends_with(&format!("x{}\"", index.0)));
            seen.push(index);
        }
    }
    assert_eq!(seen, (0..10).map(MapIndex).collect::<Vec<_>>());
    assert_eq!(parts, 4, "three values fit into a part");
    let two = rig
        .handle
        .pull_items(id, &each, "return_value", Some(MapIndex(4)), 2)
        .await
        .unwrap();
    assert_eq!(two.iter().map(|(index, _)| index.0).collect::<Vec<_>>(), [5, 6]);
    let Pulled::Mapped(all) = rig.handle.pull(id, &each, "return_value", None, ALL).await.unwrap() else {
        panic!("a list");
    };
    assert_eq!(all.len(), 10);
    let refused = rig
        .handle
        .pull_items(id, &task("reduce"), "return_value", None, 1)
        .await;
    assert!(matches!(refused, Err(XcomError::NotUpstream(_))));
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_larger_than_a_part_comes_alone_and_too_many_are_no_list() {
    let (rig, reduce) = mapped(50, 2 << 20).await;
    let (id, each) = (reduce.id, task("each"));
    let part = rig
        .handle
        .pull_items(id, &each, "return_value", None, 100)
        .await
        .unwrap();
    assert_eq!(part.len(), 1);
    let whole = rig.handle.pull(id, &each, "return_value", None, ALL).await;
    let error = whole.unwrap_err();
    assert!(
        matches!(
            error,
            XcomError::TooLarge {
                limit: MAX_LIST_BYTES,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("`each`"), "{error}");
    // Whoever has room for less reads less.
    let read = rig.handle.metrics().xcom_cache_misses;
    let whole = rig.handle.pull(id, &each, "return_value", None, 3 << 20).await;
    assert!(matches!(whole, Err(XcomError::TooLarge { limit: 3_145_728, .. })));
    assert_eq!(rig.handle.metrics().xcom_cache_misses - read, 2, "parts");
}

#[tokio::test(start_paused = true)]
async fn a_returned_failure_publishes_and_a_new_try_begins_with_nothing() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.deploy(
        DagBuilder::new("d")
            .task_with("a", &[], |task| {
                task.retry.retries = 1;
                task.retry.delay = Duration::ZERO;
            })
            .task_with("report", &["a"], |task| task.trigger_rule = TriggerRule::AllDone),
    )
    .await;
    let run = rig.trigger("d").await;
    let first = rig.executor.next().await;
    let failed = failure(model::Cause::Failed, false);
    rig.executor.end_with(
        first.id,
        failed.clone(),
        vec![push("old", "1"), push("report", "\"bad\"")],
    );
    let second = rig.executor.next().await;
    assert_eq!(second.id.try_number.0, 2);
    assert!(
        rig.store.inner.xcoms_of(run.key).is_empty(),
        "the new try's dispatch deletes"
    );
    rig.executor
        .end_with(second.id, failed, vec![push("report", "\"worse\"")]);
    let report = rig.executor.next().await;
    let pulled = rig
        .handle
        .pull(report.id, &task("a"), "report", None, ALL)
        .await
        .unwrap();
    assert_eq!(one(&pulled), "\"worse\"");
    let old = rig.handle.pull(report.id, &task("a"), "old", None, ALL).await.unwrap();
    assert_eq!(old, Pulled::Missing);
    rig.executor.done(report.id);
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
}

#[tokio::test(start_paused = true)]
async fn a_poke_keeps_what_was_published() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let run = rig.trigger("d").await;
    let first = rig.executor.next().await;
    let again = TryOutcome::Reschedule {
        after: Duration::from_secs(1),
    };
    rig.executor.end_with(first.id, again, vec![push("seen", "1")]);
    let second = rig.executor.next().await;
    assert_eq!(rig.store.inner.xcoms_of(run.key).len(), 1);
    rig.executor.done(second.id);
    rig.finished(&run).await;
    assert_eq!(rig.store.inner.xcoms_of(run.key).len(), 1);
}

fn checkpoint(bytes: &[u8]) -> Checkpoint {
    Checkpoint {
        bytes: bytes.to_vec(),
        blobs: Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn checkpoints_survive_retries_are_fenced_and_go_with_success() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.deploy(DagBuilder::new("d").task_with("a", &[], |task| task.retry.retries = 1))
        .await;
    let run = rig.trigger("d").await;
    let first = rig.executor.next().await;
    assert_eq!(rig.handle.load(first.id).await.unwrap(), None);
    rig.handle.save(first.id, Some(checkpoint(b"half"))).await.unwrap();
    rig.executor.end(first.id, failure(model::Cause::Trapped, false));
    let second = rig.executor.next().await;
    let stale = rig.handle.save(first.id, Some(checkpoint(b"late"))).await;
    assert!(matches!(stale, Err(CheckpointError::Stale)));
    assert_eq!(rig.handle.metrics().stale_events, 1, "what is refused is counted");
    assert_eq!(rig.handle.load(second.id).await.unwrap().as_deref(), Some(&b"half"[..]));
    rig.executor.done(second.id);
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    let left = ports::store::SchedulerStore::load_checkpoint(&*rig.store, second.id.ti).await;
    assert_eq!(left.unwrap(), None);
}

/// A DAG of that many tasks, all of which run.
async fn at_once(tasks: usize) -> (Rig, Vec<TryId>) {
    let rig = RigBuilder::new(|_| Reply::Start)
        .config(|config| config.parallelism = Some(1000))
        .start()
        .await;
    rig.deploy(DagBuilder::fan_out("d", tasks)).await;
    rig.trigger("d").await;
    let mut ids = Vec::new();
    for _ in 0..tasks {
        ids.push(rig.executor.next().await.id);
    }
    (rig, ids)
}

async fn loaded(rig: &Rig, id: TryId) -> Option<Vec<u8>> {
    rig.handle.load(id).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn checkpoints_that_are_saved_at_the_same_time_share_transactions() {
    let (rig, ids) = at_once(100).await;
    let saved = ids.iter().enumerate().map(|(n, id)| {
        let bytes = n.to_string().into_bytes();
        rig.handle.save(*id, Some(checkpoint(&bytes)))
    });
    for saved in join_all(saved).await {
        saved.unwrap();
    }
    let sizes: Vec<usize> = rig.store.saved().iter().map(Vec::len).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 100);
    assert!(sizes.len() <= 3, "{sizes:?}");
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(loaded(&rig, *id).await, Some(n.to_string().into_bytes()));
    }
}

#[tokio::test(start_paused = true)]
async fn saves_of_a_task_instance_keep_their_order() {
    let (rig, ids) = at_once(2).await;
    let (id, other) = (ids[0], ids[1]);
    let saves = ["1", "2", "3"].map(|bytes| rig.handle.save(id, Some(checkpoint(bytes.as_bytes()))));
    let of_other = [Some(checkpoint(b"4")), None].map(|saved| rig.handle.save(other, saved));
    for saved in join_all(saves.into_iter().chain(of_other)).await {
        saved.unwrap();
    }
    assert_eq!(rig.store.saved().len(), 1);
    assert_eq!(loaded(&rig, id).await.as_deref(), Some(&b"3"[..]));
    assert_eq!(loaded(&rig, other).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_the_database_refuses_fails_alone() {
    let (rig, ids) = at_once(9).await;
    let saves = ids.iter().enumerate().map(|(n, id)| {
        let bytes = if n == 4 { BAD_CHECKPOINT } else { b"good" };
        rig.handle.save(*id, Some(checkpoint(bytes)))
    });
    let saved = join_all(saves).await;
    for (n, (id, saved)) in ids.iter().zip(saved).enumerate() {
        if n == 4 {
            assert!(matches!(saved, Err(CheckpointError::Backend(_))), "{saved:?}");
            assert_eq!(loaded(&rig, *id).await, None);
        } else {
            saved.unwrap();
            assert_eq!(loaded(&rig, *id).await.as_deref(), Some(&b"good"[..]));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_save_that_waited_for_too_long_is_refused_and_counted_and_the_others_are_not() {
    let (rig, ids) = at_once(3).await;
    // The database knows another dispatch already: memory follows a moment later.
    let mut row = rig.store.inner.task_instance(ids[1].ti).unwrap();
    row.dispatch.0 += 1;
    let tick = TickWrite {
        tick_id: uuid::Uuid::new_v4(),
        task_instances: vec![row],
        ..TickWrite::default()
    };
    let lease = rig.store.inner.lease().unwrap();
    rig.store.inner.commit_tick(&lease, &tick).await.unwrap();
    let saved = join_all(ids.iter().map(|id| rig.handle.save(*id, Some(checkpoint(b"x"))))).await;
    assert!(matches!(saved[1], Err(CheckpointError::Stale)));
    assert!(saved[0].is_ok() && saved[2].is_ok());
    assert_eq!(rig.store.saved().len(), 1);
    assert_eq!(rig.handle.metrics().stale_events, 1);
}
