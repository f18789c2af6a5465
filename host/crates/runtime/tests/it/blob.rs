//! Blobs: streamed both ways; a digest is a name, not a permission.

use model::Digest;
use serde_json::json;
use test_artifacts as artifacts;

use crate::support::{World, failure, limited, returned};

#[tokio::test]
pub(crate) async fn blob_access() {
    let world = World::new();
    let run = |entry: &'static str, input| world.run(artifacts::BLOB_ACCESS, entry, input);

    let written = run("write_and_read_back", json!({"bytes": 3_000_001})).await;
    let reference = returned(&written);
    assert_eq!(reference["size"], json!(3_000_001));
    assert_eq!(reference["media_type"], json!("application/x-numbers"));
    assert_eq!(written.xcoms[0].blobs.len(), 1, "the reference goes with the XCom");
    let digest: Digest = reference["$blob"].as_str().unwrap().parse().unwrap();
    assert!(world.blobs.stored.lock().unwrap().contains_key(&digest));

    let blob = world.blobs.put(b"for the input");
    assert_eq!(
        returned(&run("read_input", json!({"blob": blob.to_value()})).await),
        json!("for the input")
    );

    world.xcoms.put("load", &blob.to_value());
    assert_eq!(
        returned(&run("read_pulled", json!({"task": "load"})).await),
        json!("for the input")
    );
}

#[tokio::test]
async fn a_digest_opens_nothing_by_itself() {
    let world = World::new();
    let secret = world.blobs.put(b"secret");
    let named = json!({"digest": secret.digest.to_string()});
    let exists = world.run(artifacts::BLOB_ACCESS, "open_by_name", named.clone()).await;
    let absent = json!({"digest": Digest::of(b"no such blob").to_string()});
    let absent = world.run(artifacts::BLOB_ACCESS, "open_by_name", absent).await;
    assert_eq!(returned(&exists), json!("not_found"));
    assert_eq!(returned(&exists), returned(&absent), "whether it exists or not");
    let nonsense = world
        .run(artifacts::BLOB_ACCESS, "open_by_name", json!({"digest": "sha256:xyz"}))
        .await;
    assert_eq!(returned(&nonsense), json!("invalid"));

    let laundered = world
        .run(artifacts::BLOB_ACCESS, "launder_through_checkpoint", named)
        .await;
    assert_eq!(returned(&laundered), json!("other"));
    assert!(world.checkpoints.saved.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_checkpoint_is_saved_with_its_references_and_opens_them_again() {
    let world = World::new();
    let mut request = world
        .request(artifacts::BLOB_ACCESS, "keep_in_checkpoint", json!(null))
        .await;
    assert_eq!(returned(&world.report(request.clone()).await), json!(null));
    let references: Vec<Digest> = {
        let saved = world.checkpoints.saved.lock().unwrap();
        saved[&request.id.ti].blobs.iter().map(|blob| blob.digest).collect()
    };
    assert_eq!(references, [Digest::of(b"half of the work")]);
    request.id.dispatch.0 += 1;
    assert_eq!(returned(&world.report(request).await), json!("half of the work"));
}

#[tokio::test]
async fn an_abandoned_blob_leaves_nothing() {
    let world = World::new();
    world.run(artifacts::BLOB_ACCESS, "abandon", json!(null)).await;
    assert!(world.blobs.stored.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_sum_of_blobs_is_limited() {
    let world = World::new();
    let request = world
        .request(
            artifacts::BLOB_ACCESS,
            "write_and_read_back",
            json!({"bytes": 2_000_000}),
        )
        .await;
    let report = world
        .report(limited(request, |limits| limits.blob_bytes = 1_000_000))
        .await;
    assert!(failure(&report).message.contains("1000000"), "{:?}", failure(&report));
    assert!(world.blobs.stored.lock().unwrap().is_empty());
}
