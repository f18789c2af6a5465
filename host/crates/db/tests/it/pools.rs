//! Pools and the slots that ticks take and give back.

use model::{DagRunKey, DagRunState, TaskInstanceState};
use ports::query::{Metadata, PoolRow};
use ports::store::{CommitError, PoolWrite, SchedulerStore, SlotChange, TickWrite};
use rstest::rstest;

use crate::support::{Backend, TestDb, deploy, key, new_run, run_write, seconds, ti, tick, version_with};

fn pool(name: &str, slots: i32) -> PoolRow {
    PoolRow {
        name: name.to_owned(),
        slots,
        description: Some(format!("Slots of {name}")),
        include_deferred: true,
        used: 0,
    }
}

fn slots(run: i64, pool: &str, change: i64) -> SlotChange {
    SlotChange {
        run: DagRunKey(run),
        pool: pool.to_owned(),
        change,
        unchecked: false,
    }
}

async fn pools(test: &TestDb) -> Vec<PoolRow> {
    let pools = SchedulerStore::pools(&test.db).await.unwrap();
    let shown = Metadata::pools(&test.db).await.unwrap();
    assert_eq!(format!("{pools:?}"), format!("{shown:?}"));
    pools
}

async fn used(test: &TestDb, name: &str) -> i64 {
    let pools = pools(test).await;
    pools.into_iter().find(|pool| pool.name == name).unwrap().used
}

#[rstest]
#[tokio::test]
async fn pools_come_back_as_they_were_written(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let lease = test.lease().await;
    let write = |pools: Vec<PoolWrite>| TickWrite { pools, ..tick() };
    let create = vec![PoolWrite::Create(pool("b", -1)), PoolWrite::Create(pool("a", 3))];
    test.commit(&lease, write(create)).await;
    let names: Vec<_> = pools(&test)
        .await
        .into_iter()
        .map(|pool| (pool.name, pool.slots))
        .collect();
    let expected = [("a", 3), ("b", -1), ("default_pool", 128)];
    assert_eq!(names, expected.map(|(name, slots)| (name.to_owned(), slots)));
    assert_eq!(pools(&test).await[0].description.as_deref(), Some("Slots of a"));
    assert!(pools(&test).await[0].include_deferred);

    test.commit(
        &lease,
        TickWrite {
            slots: vec![slots(1, "a", 2)],
            ..tick()
        },
    )
    .await;
    let change = PoolWrite::Change {
        name: "a".to_owned(),
        pool: PoolRow {
            description: None,
            include_deferred: false,
            ..pool("c", 1)
        },
    };
    test.commit(&lease, write(vec![change, PoolWrite::Delete { name: "b".to_owned() }]))
        .await;
    let changed = pools(&test).await;
    assert_eq!(changed.len(), 2);
    let expected = PoolRow {
        description: None,
        include_deferred: false,
        used: 2,
        ..pool("c", 1)
    };
    assert_eq!(
        format!("{:?}", changed[0]),
        format!("{expected:?}"),
        "what is in use stays"
    );

    // A name that is taken is an error of the data, and nothing of the tick is there.
    let twice = write(vec![PoolWrite::Create(pool("d", 1)), PoolWrite::Create(pool("c", 1))]);
    let refused = test.db.commit_tick(&lease, &twice).await.unwrap_err();
    assert!(matches!(refused, CommitError::Data(_)), "{refused:?}");
    assert_eq!(pools(&test).await.len(), 2);
    test.db.close().await;
}

#[rstest]
#[tokio::test]
async fn slots_are_taken_with_the_tick_or_not_at_all(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let lease = test.lease().await;
    let create = vec![
        PoolWrite::Create(pool("a", 3)),
        PoolWrite::Create(pool("b", 1)),
        PoolWrite::Create(pool("open", -1)),
    ];
    test.commit(
        &lease,
        TickWrite {
            pools: create,
            ..tick()
        },
    )
    .await;
    let take = |changes: Vec<SlotChange>| TickWrite {
        slots: changes,
        ..tick()
    };
    test.commit(
        &lease,
        take(vec![slots(1, "b", 1), slots(2, "open", 1_000), slots(1, "a", 2)]),
    )
    .await;
    assert_eq!(
        (
            used(&test, "a").await,
            used(&test, "b").await,
            used(&test, "open").await
        ),
        (2, 1, 1_000)
    );

    // Net over the runs of a tick; too much of one pool refuses all of it.
    test.commit(
        &lease,
        take(vec![
            slots(1, "a", -2),
            slots(2, "a", 3),
            slots(2, "b", -1),
            slots(3, "b", 1),
        ]),
    )
    .await;
    assert_eq!((used(&test, "a").await, used(&test, "b").await), (3, 1));
    for changes in [
        vec![slots(1, "open", 5), slots(4, "a", 1)],
        vec![slots(1, "a", -1), slots(4, "gone", 1)],
        vec![slots(1, "a", -1), slots(1, "b", 1)],
    ] {
        let tick = take(changes);
        let refused = test.db.commit_tick(&lease, &tick).await.unwrap_err();
        assert!(matches!(refused, CommitError::SlotsTaken), "{refused:?}");
        assert!(!test.db.tick_committed(tick.tick_id).await.unwrap());
    }
    assert_eq!(
        (
            used(&test, "a").await,
            used(&test, "b").await,
            used(&test, "open").await
        ),
        (3, 1, 1_000)
    );

    // What is out already is taken whatever the pool has, and giving back never fails.
    let back = SlotChange {
        unchecked: true,
        ..slots(5, "b", 2)
    };
    test.commit(&lease, take(vec![back])).await;
    assert_eq!(used(&test, "b").await, 3);
    test.commit(&lease, take(vec![slots(5, "b", -2), slots(1, "gone", -4)]))
        .await;
    test.commit(&lease, take(vec![slots(5, "b", -9)])).await;
    assert_eq!(used(&test, "b").await, 0);

    // A change of a pool holds for the slots of the same tick.
    let larger = PoolWrite::Change {
        name: "a".to_owned(),
        pool: pool("a", 4),
    };
    let grown = TickWrite {
        pools: vec![larger],
        slots: vec![slots(6, "a", 1)],
        ..tick()
    };
    test.commit(&lease, grown).await;
    assert_eq!(used(&test, "a").await, 4);
    test.db.close().await;
}

#[rstest]
#[tokio::test]
async fn slots_are_counted_from_what_is_dispatched(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version_with("etl", 1, &["small", "large", "plain"], |dag| {
        for (task, slots) in dag.tasks.iter_mut().zip([1, 3]) {
            task.pool = "a".to_owned();
            task.pool_slots = slots;
        }
    });
    let lease = test.lease().await;
    test.commit(
        &lease,
        TickWrite {
            pools: vec![PoolWrite::Create(pool("a", 2))],
            ..deploy(&version)
        },
    )
    .await;
    let in_state = |run, task, state| ti(key(run, task), ["small", "large", "plain"][task as usize], state);
    let aside = ports::store::RunWrite {
        set_aside: Some("bad".to_owned()),
        ..run_write(3, DagRunState::Running)
    };
    test.commit(
        &lease,
        TickWrite {
            new_runs: (1..=4).map(|run| new_run(&version, run)).collect(),
            runs: vec![
                run_write(1, DagRunState::Running),
                run_write(2, DagRunState::Running),
                aside,
                run_write(4, DagRunState::Success),
            ],
            task_instances: vec![
                in_state(1, 0, TaskInstanceState::Running),
                in_state(1, 1, TaskInstanceState::Restarting),
                in_state(1, 2, TaskInstanceState::Queued),
                in_state(2, 0, TaskInstanceState::Scheduled),
                in_state(2, 1, TaskInstanceState::Success),
                in_state(2, 2, TaskInstanceState::Deferred),
                in_state(3, 1, TaskInstanceState::Running),
                in_state(4, 1, TaskInstanceState::Success),
            ],
            ..tick()
        },
    )
    .await;
    assert_eq!(used(&test, "a").await, 0, "this tick said nothing of slots");
    let counted = test.db.recount_slots(&lease).await.unwrap();
    let counts: Vec<_> = counted.iter().map(|pool| (pool.name.as_str(), pool.used)).collect();
    assert_eq!(
        counts,
        [("a", 4), ("default_pool", 1)],
        "more than the pool has, but that is how it is"
    );
    assert_eq!(used(&test, "a").await, 4);

    let mut wanted: Vec<_> = Metadata::pool_use(&test.db)
        .await
        .unwrap()
        .into_iter()
        .map(|usage| (usage.pool, usage.state, usage.slots))
        .collect();
    wanted.sort();
    let a = |state, slots| ("a".to_owned(), state, slots);
    let default = |state, slots| ("default_pool".to_owned(), state, slots);
    let mut expected = vec![
        a(TaskInstanceState::Scheduled, 1),
        a(TaskInstanceState::Running, 1),
        a(TaskInstanceState::Restarting, 3),
        default(TaskInstanceState::Queued, 1),
        default(TaskInstanceState::Deferred, 1),
    ];
    expected.sort();
    assert_eq!(wanted, expected);

    // Whoever takes over counts anew; whoever lost the lease does not.
    test.commit(
        &lease,
        TickWrite {
            slots: vec![slots(1, "a", -3)],
            ..tick()
        },
    )
    .await;
    assert_eq!(used(&test, "a").await, 1);
    let other = uuid::Uuid::from_u128(2);
    let taken_over = test.db.acquire_lease(other, seconds(120), seconds(180)).await.unwrap();
    assert_eq!(used(&test, "a").await, 4);
    let fenced = test.db.recount_slots(&lease).await.unwrap_err();
    assert!(matches!(fenced, CommitError::Fenced), "{fenced:?}");
    assert!(test.db.recount_slots(&taken_over).await.is_ok());
    test.db.close().await;
}
