//! Storing a checked manifest as a version. The same content is the same version; new content gets the next number.

use std::sync::Arc;

use model::Dag;
use model::params::param_lengths;
use model::run::count_from_start;
use ports::control::ControlError;
use ports::deploy::{CheckedManifest, DagVersion, Deployed};
use uuid::Uuid;

use super::trigger::check_count;
use crate::asker::Asker;
use crate::inbox::{DagOp, Message};
use crate::shared::{Name, Shared, query_failed};

pub(crate) async fn deploy(
    shared: &Arc<Shared>,
    manifest: CheckedManifest,
    replace: bool,
    by: Asker,
) -> Result<Deployed, ControlError> {
    let shared = Arc::clone(shared);
    // In a task of its own, so that a caller who leaves does not let go of the name before the commit.
    tokio::spawn(async move { deploy_named(&shared, manifest, replace, by).await })
        .await
        .map_err(|error| ControlError::Internal(Box::new(error)))?
}

async fn deploy_named(
    shared: &Shared,
    manifest: CheckedManifest,
    replace: bool,
    by: Asker,
) -> Result<Deployed, ControlError> {
    shared.check_open()?;
    let dag_id = manifest.dag.id.clone();
    let lengths = param_lengths(&manifest.dag, &defaults(&manifest.dag));
    let count = count_from_start(&manifest.dag, &lengths);
    check_count(&manifest.dag, count, shared.config.max_task_instances_per_run)?;
    let _turn = shared.names.lock(Name::Dag(dag_id.clone())).await;
    let (known, highest) = shared
        .store
        .find_version(&dag_id, manifest.digest)
        .await
        .map_err(query_failed)?;
    let new_version = known.is_none();
    let version = known.unwrap_or_else(|| {
        Arc::new(DagVersion {
            digest: manifest.digest,
            uuid: Uuid::now_v7(),
            number: highest.saturating_add(1),
            source: manifest.source,
            dag: manifest.dag,
            created_at: shared.clock.now(),
        })
    });
    let new_dag = shared
        .ask(|reply| {
            Message::Dag(DagOp::Deploy {
                version: Arc::clone(&version),
                paused: manifest.paused,
                by,
                reply,
                replace,
            })
        })
        .await?;
    Ok(Deployed {
        dag_id,
        version: version.uuid,
        version_number: version.number,
        digest: version.digest,
        new_dag,
        new_version,
        diagnostics: manifest.diagnostics,
    })
}

/// The parameters of a run that is given none.
fn defaults(dag: &Dag) -> serde_json::Value {
    let with_default = dag.params.iter();
    with_default
        .filter_map(|(name, param)| Some((name.clone(), param.default.clone()?)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
