//! XComs and the references to blobs in them.

use model::{DagRunKey, Digest, MapIndex, TaskIndex, TaskInstanceState, TiKey};
use ports::executor::BlobRef;
use ports::payload::XcomValue;
use ports::query::{Metadata, Page, XcomFilter};
use ports::store::{BlobRefs, BlobUploads as _, NewRun, SchedulerStore, TickWrite, XcomWrite};
use rstest::rstest;

use crate::support::{
    Backend, NOW, TestDb, dag_id, key, new_run, purge, run_id, seconds, task_id, ti, tick, version, xcom,
};

fn blob(name: &str, size: u64, media_type: Option<&str>) -> BlobRef {
    BlobRef {
        digest: Digest::of(name.as_bytes()),
        size,
        media_type: media_type.map(Into::into),
    }
}

fn with_blobs(ti: TiKey, key: &str, blobs: Vec<BlobRef>) -> XcomWrite {
    XcomWrite {
        value: XcomValue {
            value: r#"[{"$blob":"…"}]"#.into(),
            blobs,
        },
        ..xcom(ti, key, "")
    }
}

fn xcoms(xcoms: Vec<XcomWrite>) -> TickWrite {
    TickWrite { xcoms, ..tick() }
}

#[rstest]
#[tokio::test]
async fn a_value_comes_back_byte_for_byte(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    let texts = [
        r#"{"b":1,"a":[1.0,1e400,-0,12345678901234567890123],"text":"\u0000\"\\ \u00e9é🦀"}"#,
        " [ 1 , 2 ] ",
        "null",
        "\"\"",
    ];
    let big = format!("\"{}\"", "x".repeat(3 << 20));
    let mut writes: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| xcom(key(1, 0), &format!("key {index}"), text))
        .collect();
    // More than fits one statement.
    for index in 0..5 {
        writes.push(xcom(key(1, 0), &format!("big {index}"), &big));
    }
    test.commit(
        &lease,
        TickWrite {
            new_runs: vec![new_run(&version, 1)],
            xcoms: writes,
            ..tick()
        },
    )
    .await;
    for (index, text) in texts.iter().enumerate() {
        let values = test.values(1, 0, &format!("key {index}")).await;
        assert_eq!((values.len(), &*values[0].1.value), (1, *text));
    }
    for index in 0..5 {
        let values = test.values(1, 0, &format!("big {index}")).await;
        assert_eq!(*values[0].1.value, *big);
    }
    assert!(test.values(1, 0, "none").await.is_empty());
}

#[rstest]
#[tokio::test]
async fn references_follow_their_values(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load", "train"]);
    let lease = test.with_dag(&version).await;
    let (rows, model) = (blob("rows", 10, Some("text/csv")), blob("model", 1 << 40, None));
    let twice = vec![rows.clone(), model.clone(), rows.clone()];
    test.commit(
        &lease,
        TickWrite {
            new_runs: vec![new_run(&version, 1)],
            xcoms: vec![
                with_blobs(key(1, 0), "return_value", twice.clone()),
                with_blobs(key(1, 1), "return_value", vec![model.clone()]),
            ],
            ..tick()
        },
    )
    .await;
    let (db, unknown) = (&test.db, Digest::of(b"unknown"));
    let unreferenced = || async { db.unreferenced(&[rows.digest, unknown, model.digest]).await.unwrap() };
    let values = test.values(1, 0, "return_value").await;
    assert_eq!(values[0].1.blobs, twice);
    assert_eq!(unreferenced().await, [unknown]);
    assert!(db.blob_is_readable(rows.digest).await.unwrap());
    assert!(!db.blob_is_readable(unknown).await.unwrap());

    // A repeat replaces the references too.
    test.commit(
        &lease,
        xcoms(vec![with_blobs(key(1, 0), "return_value", vec![model.clone()])]),
    )
    .await;
    assert_eq!(unreferenced().await, [rows.digest, unknown]);
    let values = test.values(1, 0, "return_value").await;
    assert_eq!(values[0].1.blobs, std::slice::from_ref(&model));

    // Deletes come before inserts.
    test.commit(
        &lease,
        TickWrite {
            xcom_deletes: vec![key(1, 0), key(1, 1)],
            xcoms: vec![with_blobs(key(1, 0), "report", vec![rows.clone()])],
            ..tick()
        },
    )
    .await;
    assert_eq!(unreferenced().await, [unknown, model.digest]);
    assert!(test.values(1, 0, "return_value").await.is_empty());
    assert_eq!(
        test.values(1, 0, "report").await[0].1.blobs,
        std::slice::from_ref(&rows)
    );
    test.commit(
        &lease,
        TickWrite {
            run_deletes: vec![DagRunKey(1)],
            dags: vec![purge(&[1], 100)],
            ..tick()
        },
    )
    .await;
    assert_eq!(unreferenced().await.len(), 3);
}

#[rstest]
#[tokio::test]
async fn blobs_of_a_runs_configuration_are_referenced(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("d", 1, &["a"]);
    let lease = test.with_dag(&version).await;
    let digest = Digest::of(b"a data set");
    let run = NewRun {
        conf: format!(r#"{{"dataset": {{"$blob": "{digest}", "size": 10}}}}"#).into(),
        ..new_run(&version, 1)
    };
    assert_eq!(test.db.unreferenced(&[digest]).await.unwrap(), [digest]);
    let created = TickWrite {
        new_runs: vec![run],
        ..tick()
    };
    test.commit(&lease, created).await;
    assert!(test.db.unreferenced(&[digest]).await.unwrap().is_empty());
    let deleted = TickWrite {
        run_deletes: vec![DagRunKey(1)],
        dags: vec![purge(&[1], 100)],
        ..tick()
    };
    test.commit(&lease, deleted).await;
    assert_eq!(test.db.unreferenced(&[digest]).await.unwrap(), [digest]);
}

#[rstest]
#[tokio::test]
async fn values_of_a_mapped_task_come_in_index_order(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    let at = |index| TiKey {
        map_index: MapIndex(index),
        ..key(1, 0)
    };
    test.commit(
        &lease,
        TickWrite {
            new_runs: vec![new_run(&version, 1)],
            xcoms: [10, 2, 0, 1]
                .map(|index| xcom(at(index), "return_value", &index.to_string()))
                .into(),
            ..tick()
        },
    )
    .await;
    let values = test.values(1, 0, "return_value").await;
    let values: Vec<_> = values.iter().map(|(index, value)| (index.0, &*value.value)).collect();
    assert_eq!(values, [(0, "0"), (1, "1"), (2, "2"), (10, "10")]);

    let sizes = async |from, to, limit| {
        let indexes = MapIndex(from)..=MapIndex(to);
        let sizes = test
            .db
            .xcom_sizes(DagRunKey(1), TaskIndex(0), indexes, "return_value", limit);
        sizes
            .await
            .unwrap()
            .into_iter()
            .map(|(index, bytes)| (index.0, bytes))
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(0, i32::MAX, 100).await, [(0, 1), (1, 1), (2, 1), (10, 2)]);
    assert_eq!(sizes(1, 9, 100).await, [(1, 1), (2, 1)]);
    assert_eq!(sizes(1, 10, 1).await, [(1, 1)]);
    let some = SchedulerStore::xcoms(
        &test.db,
        DagRunKey(1),
        TaskIndex(0),
        MapIndex(1)..=MapIndex(2),
        "return_value",
    );
    assert_eq!(some.await.unwrap().len(), 2);
}

#[rstest]
#[tokio::test]
async fn xcoms_are_filtered_and_shown(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load", "train"]);
    let lease = test.with_dag(&version).await;
    for run in [1, 2] {
        test.commit(
            &lease,
            TickWrite {
                new_runs: vec![new_run(&version, run)],
                task_instances: vec![ti(key(run, 0), "load", TaskInstanceState::Success)],
                xcoms: vec![
                    xcom(key(run, 0), "return_value", "1"),
                    xcom(key(run, 1), "return_value", "2"),
                    with_blobs(key(run, 1), "report", vec![blob("report", 3, None)]),
                ],
                ..tick()
            },
        )
        .await;
    }
    let page = Page { limit: 10, offset: 0 };
    let list = |filter: XcomFilter| {
        let db = &test.db;
        async move {
            let listed = Metadata::xcoms(db, &filter, page).await.unwrap();
            assert_eq!(listed.total, listed.items.len() as u64);
            assert!(
                listed
                    .items
                    .iter()
                    .all(|row| row.value.is_none() && row.timestamp == NOW)
            );
            let name = |row: &ports::query::XcomRow| format!("{} {} {}", row.run_id, row.task_id, row.key);
            listed.items.iter().map(name).collect::<Vec<_>>()
        }
    };
    assert_eq!(list(XcomFilter::default()).await.len(), 6);
    let filter = XcomFilter {
        dag_id: Some(dag_id("etl")),
        run_id: Some(run_id("manual__2")),
        task_id: Some(task_id("train")),
        ..XcomFilter::default()
    };
    assert_eq!(
        list(filter).await,
        ["manual__2 train report", "manual__2 train return_value"]
    );
    let filter = XcomFilter {
        key: Some("report".into()),
        map_index: Some(MapIndex::UNMAPPED),
        ..XcomFilter::default()
    };
    assert_eq!(list(filter).await, ["manual__1 train report", "manual__2 train report"]);

    let get = |task, key| {
        let db = &test.db;
        async move {
            let (dag, run, task) = (dag_id("etl"), run_id("manual__1"), task_id(task));
            db.xcom(&dag, &run, &task, MapIndex::UNMAPPED, key).await.unwrap()
        }
    };
    let row = get("train", "report").await.unwrap();
    assert_eq!(row.value.unwrap().blobs, [blob("report", 3, None)]);
    assert_eq!(&*get("load", "return_value").await.unwrap().value.unwrap().value, "1");
    assert!(get("load", "report").await.is_none());
}

#[rstest]
#[tokio::test]
async fn what_was_uploaded_may_be_read_for_a_while(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let [old, new, unknown] = [b"old", b"new", b"unk"].map(|text| Digest::of(text));
    test.db.add_upload(old, 3, seconds(1)).await.unwrap();
    test.db.add_upload(new, 4, seconds(1)).await.unwrap();
    // Uploaded again: it stays as long as a new one.
    test.db.add_upload(new, 4, seconds(9)).await.unwrap();
    let readable = async || {
        let mut found = test.db.readable_blobs(&[old, new, unknown]).await.unwrap();
        found.sort();
        found
    };
    let mut both = vec![(old, 3), (new, 4)];
    both.sort();
    assert_eq!(readable().await, both);
    // It is no reference: the sweep asks for those.
    assert_eq!(test.db.unreferenced(&[old, new]).await.unwrap().len(), 2);
    test.db.forget_uploads(seconds(9)).await.unwrap();
    assert_eq!(readable().await, [(new, 4)]);
    assert!(!test.db.blob_is_readable(old).await.unwrap());
    assert!(test.db.blob_is_readable(new).await.unwrap());
}
