//! Runs and the task instances that triggered them.

use std::sync::Arc;

use model::{DagRunKey, DagRunState, DispatchNumber, MapIndex, TaskIndex};
use ports::between::{ChildRun, RunParent};
use ports::query::{Metadata, Page, RunFilter};
use ports::store::{NewRun, SchedulerStore, TickWrite};
use rstest::rstest;

use crate::support::{Backend, TestDb, dag_id, new_run, run_id, run_write, task_id, tick, version};

fn parent(of: i64) -> RunParent {
    RunParent {
        run: DagRunKey(of),
        dag_id: dag_id("parent"),
        run_id: run_id("manual__1"),
        task: TaskIndex(2),
        task_id: task_id("group.solve"),
        map_index: MapIndex(-1),
        dispatch: DispatchNumber(7),
        depth: 3,
    }
}

#[rstest]
#[tokio::test]
async fn a_run_knows_its_parent_and_a_parent_finds_its_runs(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("d", 1, &["a"]);
    let lease = test.with_dag(&version).await;
    let child = |key, map_index| NewRun {
        parent: Some(Arc::new(RunParent {
            map_index: MapIndex(map_index),
            ..parent(1)
        })),
        ..new_run(&version, key)
    };
    let write = TickWrite {
        new_runs: vec![new_run(&version, 1), child(2, -1), child(3, 4)],
        runs: vec![run_write(2, DagRunState::Success)],
        ..tick()
    };
    test.commit(&lease, write).await;

    let stored = test.db.load_run(DagRunKey(3)).await.unwrap().unwrap();
    let known = stored.row.parent.as_deref().unwrap();
    assert_eq!(
        *known,
        RunParent {
            map_index: MapIndex(4),
            ..parent(1)
        }
    );
    // What follows the parent's columns is where it was.
    assert_eq!(stored.row.set_aside, None);
    assert_eq!(stored.context.params, serde_json::json!({"threshold": 0.85}));
    let row = test.db.run_row(DagRunKey(1)).await.unwrap().unwrap();
    assert_eq!(row.parent, None);

    let one = |key, map_index, state| ChildRun {
        key: DagRunKey(key),
        dag_id: dag_id("d"),
        run_id: run_id(&format!("manual__{key}")),
        version: version.uuid,
        state,
        task: TaskIndex(2),
        map_index: MapIndex(map_index),
        dispatch: DispatchNumber(7),
    };
    assert_eq!(
        test.db.children(DagRunKey(1)).await.unwrap(),
        [one(2, -1, DagRunState::Success), one(3, 4, DagRunState::Queued)]
    );
    assert_eq!(test.db.children(DagRunKey(2)).await.unwrap(), []);

    let filter = RunFilter {
        parent: Some(DagRunKey(1)),
        ..RunFilter::default()
    };
    let listed = test.db.runs(&filter, Page { limit: 1, offset: 1 }).await.unwrap();
    assert_eq!((listed.total, listed.items[0].key), (2, DagRunKey(3)));

    // A change of the run leaves its parent alone, and so does the parent's end.
    let write = TickWrite {
        runs: vec![run_write(3, DagRunState::Failed)],
        run_deletes: vec![DagRunKey(1)],
        ..tick()
    };
    test.commit(&lease, write).await;
    let row = test.db.run_row(DagRunKey(3)).await.unwrap().unwrap();
    assert_eq!((row.state, row.parent.unwrap().depth), (DagRunState::Failed, 3));
}

#[rstest]
#[tokio::test]
async fn a_run_gets_another_parent_and_nothing_else(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("d", 1, &["a"]);
    let lease = test.with_dag(&version).await;
    let with_parent = NewRun {
        parent: Some(Arc::new(parent(1))),
        ..new_run(&version, 2)
    };
    let write = TickWrite {
        new_runs: vec![new_run(&version, 1), with_parent, new_run(&version, 3)],
        runs: vec![run_write(2, DagRunState::Success), run_write(3, DagRunState::Failed)],
        ..tick()
    };
    test.commit(&lease, write).await;
    let mut before = Vec::new();
    for key in [2, 3] {
        before.push(test.db.run_row(DagRunKey(key)).await.unwrap().unwrap());
    }
    let other = |key| {
        Arc::new(RunParent {
            run: DagRunKey(1),
            task: TaskIndex(5),
            depth: 4,
            dispatch: DispatchNumber(9),
            ..parent(key)
        })
    };
    let parents = [3, 2].map(|key| ports::store::ParentWrite {
        run: DagRunKey(key),
        parent: other(key),
    });
    let write = TickWrite {
        parents: parents.to_vec(),
        ..tick()
    };
    test.commit(&lease, write).await;
    for (key, before) in [2, 3].into_iter().zip(before) {
        let after = test.db.run_row(DagRunKey(key)).await.unwrap().unwrap();
        assert_eq!(after.parent, Some(other(key)));
        let expected = ports::query::RunRow {
            parent: Some(other(key)),
            ..before
        };
        assert_eq!(format!("{after:?}"), format!("{expected:?}"));
    }
    let children = test.db.children(DagRunKey(1)).await.unwrap();
    let dispatches: Vec<_> = children.iter().map(|child| (child.key.0, child.dispatch.0)).collect();
    assert_eq!(dispatches, [(2, 9), (3, 9)]);
}
