//! Components: tags never change what they name, and what is in use stays.

use model::{ComponentName, ComponentVersion, Digest, Work};
use ports::component::{ComponentState, Descriptor, Inspected, Refusal, Tag};
use ports::query::Page;
use ports::store::{BlobRefs, ComponentStore, ComponentWriteError};
use rstest::rstest;

use crate::support::{Backend, NOW, TestDb, component_digest, deploy, seconds, version, version_with};

fn tag(version: &str) -> Tag {
    Tag {
        name: ComponentName::new("ml").unwrap(),
        version: ComponentVersion::new(version).unwrap(),
    }
}

const PAGE: Page = Page { limit: 10, offset: 0 };

#[rstest]
#[tokio::test]
async fn a_component_is_compiled_once_and_comes_back_whole(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let (db, digest) = (&test.db, component_digest());
    assert!(
        db.add_component(digest, 5_000_000, Some(&tag("1.0")), NOW)
            .await
            .unwrap()
    );
    assert!(
        !db.add_component(digest, 5_000_000, Some(&tag("1.1")), seconds(9))
            .await
            .unwrap()
    );
    assert_eq!(db.compiling_components().await.unwrap(), [digest]);

    let refusal = Refusal {
        code: "unknown_import".into(),
        message: "imports `foo:bar/baz`".into(),
    };
    db.finish_component(digest, &Err(refusal.clone())).await.unwrap();
    let refused = db.component(digest).await.unwrap().unwrap();
    assert_eq!(
        (refused.state, refused.refusal),
        (ComponentState::Refused, Some(refusal.clone()))
    );
    db.restart_component(digest).await.unwrap();
    assert_eq!(db.compiling_components().await.unwrap(), [digest]);

    let inspected = Inspected {
        descriptor: Descriptor {
            format: 1,
            sdk: Some("airtight-sdk 0.1.0".into()),
            tasks: Vec::new(),
        },
        capabilities: vec!["blobs".into()],
        imports: vec!["airtight:task/blobs@0.1.0".into()],
        needs: ports::component::EngineNeeds::default(),
    };
    db.finish_component(digest, &Ok(inspected.clone())).await.unwrap();
    // Another server that compiles the same component fails for a reason of its own, later.
    db.finish_component(digest, &Err(refusal)).await.unwrap();
    let ready = db.component(digest).await.unwrap().unwrap();
    assert_eq!(
        (ready.state, ready.refusal, ready.size),
        (ComponentState::Ready, None, 5_000_000)
    );
    assert_eq!(ready.descriptor.as_ref(), Some(&inspected.descriptor));
    assert_eq!(
        (ready.capabilities, ready.imports),
        (inspected.capabilities, inspected.imports)
    );
    assert_eq!((ready.tags, ready.created_at), (vec![tag("1.0"), tag("1.1")], NOW));
    assert!(db.compiling_components().await.unwrap().is_empty());
    // A component that is ready is not compiled again.
    db.restart_component(digest).await.unwrap();
    assert_eq!(
        db.component(digest).await.unwrap().unwrap().state,
        ComponentState::Ready
    );
    assert!(db.component(Digest::of(b"other")).await.unwrap().is_none());
}

#[rstest]
#[tokio::test]
async fn a_tag_never_names_other_content(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let (db, first, second) = (&test.db, Digest::of(b"first"), Digest::of(b"second"));
    db.add_component(first, 1, Some(&tag("1.0")), NOW).await.unwrap();
    let taken = |result: Result<bool, ComponentWriteError>| matches!(result, Err(ComponentWriteError::TagTaken(digest)) if digest == first);
    assert!(taken(db.add_component(second, 1, Some(&tag("1.0")), NOW).await));
    // Nothing of the refused upload was kept.
    assert!(db.component(second).await.unwrap().is_none());

    db.delete_tag(&tag("1.0")).await.unwrap();
    assert_eq!(db.resolve_tag(&tag("1.0")).await.unwrap(), None);
    assert!(matches!(
        db.delete_tag(&tag("1.0")).await,
        Err(ComponentWriteError::NotFound)
    ));
    assert!(taken(db.add_component(second, 1, Some(&tag("1.0")), NOW).await));
    // Not even when the component itself is gone.
    db.delete_component(first).await.unwrap();
    assert!(taken(db.add_component(second, 1, Some(&tag("1.0")), NOW).await));
    // The same content may have it back.
    assert!(db.add_component(first, 1, Some(&tag("1.0")), NOW).await.unwrap());
    assert_eq!(db.resolve_tag(&tag("1.0")).await.unwrap(), Some(first));
}

#[rstest]
#[tokio::test]
async fn a_component_in_use_stays(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let (db, digest) = (&test.db, component_digest());
    db.add_component(digest, 1, Some(&tag("1.0")), NOW).await.unwrap();
    let lease = test.with_dag(&version("etl", 1, &["load", "train"])).await;

    let in_use = |result: Result<(), ComponentWriteError>| match result {
        Err(ComponentWriteError::InUse(users)) => users,
        other => panic!("{other:?}"),
    };
    assert_eq!(in_use(db.delete_component(digest).await), ["etl version 1"]);
    assert_eq!(in_use(db.delete_tag(&tag("1.0")).await), ["etl version 1"]);
    // With another tag the manifest's author has somewhere to go.
    db.add_component(digest, 1, Some(&tag("2.0")), NOW).await.unwrap();
    db.delete_tag(&tag("1.0")).await.unwrap();
    // A tag that no current version names can go, even if it is the last one.
    db.delete_tag(&tag("2.0")).await.unwrap();

    // A later version without it: the old one still uses it.
    let other = version_with("etl", 2, &["load"], |dag| {
        dag.tasks[0].work = Work::of_component("ml@1.0", Digest::of(b"other"), "do_load");
    });
    test.commit(&lease, deploy(&other)).await;
    assert_eq!(in_use(db.delete_component(digest).await), ["etl version 1"]);
    assert!(matches!(
        db.delete_component(Digest::of(b"none")).await,
        Err(ComponentWriteError::NotFound)
    ));
}

#[rstest]
#[tokio::test]
async fn components_are_listed_newest_first(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    for index in 0..5_u8 {
        let tag = (index == 1).then(|| tag("1.0"));
        let added = test
            .db
            .add_component(Digest::of(&[index]), 1, tag.as_ref(), seconds(index.into()))
            .await;
        assert!(added.unwrap());
    }
    let listed = test.db.components(Page { limit: 2, offset: 2 }).await.unwrap();
    let digests: Vec<_> = listed.items.iter().map(|component| component.digest).collect();
    assert_eq!((listed.total, digests), (5, vec![Digest::of(&[2]), Digest::of(&[1])]));
    assert_eq!(listed.items[1].tags, [tag("1.0")]);
    assert_eq!(test.db.components(PAGE).await.unwrap().items.len(), 5);
}

#[rstest]
#[tokio::test]
async fn the_file_of_a_component_is_not_swept(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let (known, unknown) = (component_digest(), Digest::of(b"unknown"));
    test.db.add_component(known, 1, None, NOW).await.unwrap();
    assert_eq!(test.db.unreferenced(&[unknown, known]).await.unwrap(), [unknown]);
    assert!(test.db.unreferenced(&[]).await.unwrap().is_empty());
}
