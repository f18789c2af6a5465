//! Callbacks: stored with a tick, read back to be carried out, changed, listed, and removed with their runs.

use model::callback::{Callback, CallbackAction, CallbackEvent, CallbackKind, CallbackState, NotificationLevel, TEXT};
use model::work::ComponentTask;
use model::{Cause, DagRunKey, DagRunState, Limits, MapIndex, TaskIndex, TryNumber};
use ports::callback::{CallbackChange, CallbackFilter, CallbackId, CallbackOf, CallbackWrite};
use ports::component::Tag;
use ports::intent::IntentWrite;
use ports::query::{Metadata, Page, TimeRange};
use ports::store::{ComponentStore, ComponentWriteError, DagWrite, SchedulerStore, TickWrite};
use rstest::rstest;
use serde_json::json;

use crate::support::{
    Backend, NOW, TestDb, component_digest, dag_id, new_run, run_id, run_write, seconds, task_id, tick, version,
    version_with,
};

const PAGE: Page = Page { limit: 100, offset: 0 };

fn due(run: i64, ordinal: u32, kind: CallbackKind, of: Option<&str>) -> CallbackWrite {
    let notification = kind == CallbackKind::Notification;
    CallbackWrite {
        run: DagRunKey(run),
        of: of.map(|task| CallbackOf {
            task: TaskIndex(0),
            task_id: task_id(task),
            map_index: MapIndex(3),
            try_number: TryNumber(2),
        }),
        ordinal,
        event: CallbackEvent::Failure,
        kind,
        name: "alerts@1 send".to_owned(),
        level: notification.then_some(NotificationLevel::Warning),
        state: if notification {
            CallbackState::Success
        } else {
            CallbackState::Queued
        },
        text: notification.then(|| "it \0 failed \u{1F980}".to_owned()),
        facts: r#"{"event":"on_failure","n":9007199254740993}"#.into(),
        standing: of.map(|_| r#"{"position":null,"now":[[0,[3]]],"before":[]}"#.into()),
    }
}

fn change(id: CallbackId, state: CallbackState, attempt: u32) -> CallbackChange {
    CallbackChange {
        id,
        state,
        attempt,
        next_at: None,
        started_at: None,
        ended_at: None,
        cause: None,
        code: None,
        message: None,
        text: None,
    }
}

#[rstest]
#[tokio::test]
async fn callbacks_are_stored_carried_out_listed_and_go_with_their_run(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    let commit = async |tick: TickWrite| test.commit(&lease, tick).await;
    commit(TickWrite {
        new_runs: vec![new_run(&version, 1), new_run(&version, 2)],
        runs: vec![run_write(1, DagRunState::Running), run_write(2, DagRunState::Running)],
        callbacks: vec![
            due(1, 0, CallbackKind::Task, Some("load")),
            due(1, 1, CallbackKind::Notification, Some("load")),
            due(2, 0, CallbackKind::Task, None),
        ],
        ..tick()
    })
    .await;
    let db = test.again().await;
    let left = async |now| db.due_callbacks(now, 10).await.unwrap();
    let found = left(NOW).await.due;
    assert_eq!(found.len(), 2, "what is complete is not due: {found:?}");
    let (first, second) = (&found[0], &found[1]);
    assert!(first.id < second.id);
    assert_eq!(first.of, due(1, 0, CallbackKind::Task, Some("load")).of);
    assert_eq!(
        (first.run, first.attempt, first.state),
        (DagRunKey(1), 0, CallbackState::Queued)
    );
    assert_eq!(&*first.facts, r#"{"event":"on_failure","n":9007199254740993}"#);
    assert!(first.standing.is_some() && second.standing.is_none() && second.of.is_none());
    let run = db.callback_run(DagRunKey(1)).await.unwrap().unwrap();
    assert_eq!((run.version, run.context.dag_id.as_str()), (version.uuid, "etl"));
    assert_eq!(db.load_run(DagRunKey(1)).await.unwrap().unwrap().callbacks, 2);
    assert_eq!(db.due_callbacks(NOW, 1).await.unwrap().due.len(), 1);

    // One is out, the other waits for its next attempt.
    let again = CallbackChange {
        next_at: Some(seconds(30)),
        cause: Some(Cause::Trapped),
        code: Some("broken".into()),
        message: Some("no \0 luck".into()),
        ..change(second.id, CallbackState::Queued, 1)
    };
    commit(TickWrite {
        dags: vec![
            DagWrite::Callback(change(first.id, CallbackState::Running, 1)),
            DagWrite::Callback(again),
        ],
        ..tick()
    })
    .await;
    let waiting = left(NOW).await;
    assert_eq!(
        waiting.due.len(),
        1,
        "one that is out is left to whoever comes after a crash"
    );
    assert_eq!(
        (waiting.due[0].state, waiting.due[0].attempt),
        (CallbackState::Running, 1)
    );
    assert_eq!(waiting.next_at, Some(seconds(30)));
    assert_eq!(left(seconds(30)).await.due.len(), 2);
    let done = CallbackChange {
        ended_at: Some(seconds(31)),
        ..change(first.id, CallbackState::Success, 1)
    };
    commit(TickWrite {
        dags: vec![DagWrite::Callback(done)],
        ..tick()
    })
    .await;
    assert_eq!(left(seconds(30)).await.due.len(), 1);

    let listed = async |filter: CallbackFilter| {
        let listed = db.callbacks(&filter, PAGE).await.unwrap();
        assert_eq!(listed.total, listed.items.len() as u64);
        listed.items
    };
    let all = listed(CallbackFilter::default()).await;
    assert_eq!(all.len(), 3);
    assert_eq!(
        (all[0].state, all[0].ended_at),
        (CallbackState::Success, Some(seconds(31)))
    );
    assert_eq!(all[1].text.as_deref(), Some("it \u{fffd} failed \u{1F980}"));
    assert_eq!(
        (all[1].level, all[1].map_index.0),
        (Some(NotificationLevel::Warning), 3)
    );
    assert_eq!(all[2].message.as_deref(), Some("no \u{fffd} luck"));
    assert_eq!((all[2].cause, all[2].task_id.is_none()), (Some(Cause::Trapped), true));
    for (filter, ids) in [
        (
            CallbackFilter {
                dag_id: Some(dag_id("etl")),
                run_id: Some(all[2].run_id.clone()),
                ..CallbackFilter::default()
            },
            vec![2],
        ),
        (
            CallbackFilter {
                run_id: Some(run_id("nope")),
                ..CallbackFilter::default()
            },
            vec![],
        ),
        (
            CallbackFilter {
                task_id: Some(task_id("load")),
                newest_first: true,
                ..CallbackFilter::default()
            },
            vec![1, 0],
        ),
        (
            CallbackFilter {
                kinds: vec![CallbackKind::Notification],
                levels: vec![NotificationLevel::Warning],
                events: vec![CallbackEvent::Failure],
                ..CallbackFilter::default()
            },
            vec![1],
        ),
        (
            CallbackFilter {
                states: vec![CallbackState::Queued, CallbackState::Running],
                ..CallbackFilter::default()
            },
            vec![2],
        ),
        (
            CallbackFilter {
                after: Some(all[0].id),
                ..CallbackFilter::default()
            },
            vec![1, 2],
        ),
        (
            CallbackFilter {
                id: Some(all[1].id),
                ..CallbackFilter::default()
            },
            vec![1],
        ),
        (
            CallbackFilter {
                created_at: TimeRange {
                    gt: Some(seconds(60)),
                    ..TimeRange::default()
                },
                ..CallbackFilter::default()
            },
            vec![],
        ),
    ] {
        let shown = format!("{filter:?}");
        let found: Vec<_> = listed(filter).await.into_iter().map(|row| row.id).collect();
        let expected: Vec<_> = ids.into_iter().map(|at: usize| all[at].id).collect();
        assert_eq!(found, expected, "{shown}");
    }

    // They go with their run, and are not carried out from the moment on that it is deleted.
    commit(TickWrite {
        run_deletes: vec![DagRunKey(2)],
        ..tick()
    })
    .await;
    assert!(left(seconds(90)).await.due.is_empty());
    assert!(db.has_rows(&[DagRunKey(2)]).await.unwrap());
    commit(TickWrite {
        dags: vec![DagWrite::Intent(IntentWrite::Purge {
            runs: vec![DagRunKey(2)],
            rows: 16,
        })],
        ..tick()
    })
    .await;
    assert!(!db.has_rows(&[DagRunKey(2)]).await.unwrap());
    assert_eq!(listed(CallbackFilter::default()).await.len(), 2);
    // A late change of what is gone changes nothing.
    commit(TickWrite {
        dags: vec![DagWrite::Callback(change(all[2].id, CallbackState::Success, 2))],
        ..tick()
    })
    .await;
    assert_eq!(listed(CallbackFilter::default()).await.len(), 2);
    test.db.close().await;
    db.close().await;
}

#[rstest]
#[tokio::test]
async fn a_component_that_only_a_callback_runs_is_in_use(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let digest = model::Digest::of(b"alerts");
    assert_ne!(digest, component_digest());
    let tag: Tag = Tag {
        name: model::ComponentName::new("alerts").unwrap(),
        version: model::ComponentVersion::new("1").unwrap(),
    };
    test.db.add_component(digest, 6, Some(&tag), NOW).await.unwrap();
    let version = version_with("etl", 1, &["load"], |dag| {
        dag.callbacks = vec![
            Callback {
                event: CallbackEvent::Failure,
                action: CallbackAction::Task {
                    component: ComponentTask {
                        reference: "alerts@1".to_owned(),
                        digest,
                        entry: "send".to_owned(),
                    },
                    limits: Limits::default(),
                },
                input: json!({}),
            },
            Callback {
                event: CallbackEvent::Failure,
                action: CallbackAction::Notify {
                    level: NotificationLevel::Info,
                },
                input: json!({ TEXT: "x" }),
            },
        ];
    });
    test.with_dag(&version).await;
    for refused in [test.db.delete_component(digest).await, test.db.delete_tag(&tag).await] {
        let Err(ComponentWriteError::InUse(users)) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(users, ["etl version 1"]);
    }
    let stored = test.db.load_version(version.uuid).await.unwrap().unwrap();
    assert_eq!(stored.dag.callbacks, version.dag.callbacks);
    test.db.close().await;
}
