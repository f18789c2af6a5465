//! What a guest knows of its try and of the world.

use model::{MapIndex, TryNumber};
use serde_json::json;
use test_artifacts as artifacts;

use crate::support::{World, returned};

#[tokio::test]
pub(crate) async fn context_fields() {
    let world = World::new();
    let mut request = world.request(artifacts::CONTEXT_FIELDS, "all", json!(null)).await;
    request.id.ti.map_index = MapIndex(4);
    request.id.try_number = TryNumber(2);
    assert_eq!(
        returned(&world.report(request).await),
        json!({
            "dag_id": "a_dag",
            "run_id": "manual__1",
            "task_id": "a_task",
            "map_index": 4,
            "try_number": 2,
            "max_tries": 3,
            "logical_date": "2026-01-31T04:00:00.000000Z",
            "data_interval_start": null,
            "data_interval_end": null,
            "params": {"threshold": 0.85},
            "conf": {},
        })
    );
}

#[tokio::test]
async fn the_world_outside_is_empty() {
    let world = World::new();
    let report = world.run(artifacts::CONTEXT_FIELDS, "surroundings", json!(null)).await;
    assert_eq!(
        returned(&report),
        json!({
            "env": 0, "args": 0, "root": false, "write": false, "stdin": 0, "random": true, "clock": true,
        })
    );
}
