//! Pausing a DAG after too many failed runs in a row (`max_consecutive_failed_dag_runs`). The loop knows the latest runs of each DAG that
//! wants this, so that the tick that ends a run can pause its DAG without reading anything. They are read once, at the start or
//! when a deploy asks for it, and followed from there.

use std::collections::HashSet;
use std::sync::Arc;

use model::recent_runs::RecentRuns;
use model::{DagId, DagRunKey, DagRunState, Timestamp};
use ports::query::QueryError;

use crate::asker::Asker;
use crate::audit;
use crate::core::Core;
use crate::inbox::Message;
use crate::run::Draft;
use crate::tick::Tick;

/// The latest runs of one DAG.
#[derive(Default)]
pub(crate) struct Recent {
    runs: RecentRuns,
    /// The number of the last look-up.
    asked: u64,
    /// While a look-up is out: runs that were deleted since it began.
    gone: Option<HashSet<DagRunKey>>,
}

/// A run, when it is due, and its state.
type RunOf = (DagRunKey, Timestamp, DagRunState);

impl Core {
    /// How many failed runs in a row pause a DAG; 0 is never.
    fn max_failed(&self, dag_id: &DagId) -> u32 {
        let dag = self.dags.get(dag_id);
        dag.map_or(0, |dag| dag.version.dag().max_consecutive_failed_dag_runs)
    }

    /// At the start: the latest runs of every DAG that wants it.
    pub(crate) async fn recover_recent(&mut self) -> Result<(), QueryError> {
        let wanted: Vec<(DagId, u32)> = self
            .dags
            .iter()
            .map(|dag| dag.version.dag())
            .filter(|dag| dag.max_consecutive_failed_dag_runs > 0)
            .map(|dag| (dag.id.clone(), dag.max_consecutive_failed_dag_runs))
            .collect();
        for (dag_id, most) in wanted {
            let mut recent = Recent::default();
            for (key, run_after, state) in self.shared.store.latest_runs(&dag_id, most).await? {
                recent.runs.note(run_after, key, state, most);
            }
            self.recent.insert(dag_id, recent);
        }
        Ok(())
    }

    /// A DAG is deployed or gone.
    pub(crate) fn recent_of_dag_changed(&mut self, dag_id: &DagId) {
        match self.max_failed(dag_id) {
            0 => drop(self.recent.remove(dag_id)),
            most => self.ask_recent(dag_id, most),
        }
    }

    fn ask_recent(&mut self, dag_id: &DagId, most: u32) {
        let recent = self.recent.entry(dag_id.clone()).or_default();
        recent.asked += 1;
        recent.gone = Some(HashSet::new());
        let (shared, dag_id, asked) = (Arc::clone(&self.shared), dag_id.clone(), recent.asked);
        tokio::spawn(async move {
            match shared.store.latest_runs(&dag_id, most).await {
                Ok(runs) => drop(shared.inbox.send(Message::Recent { dag_id, asked, runs })),
                // What happens from now on is followed all the same.
                Err(error) => tracing::warn!(%error, dag.id = %dag_id, "cannot read the latest runs of a DAG"),
            }
        });
    }

    /// What a look-up found. What happened since it began is known better.
    pub(crate) fn found_recent(&mut self, dag_id: &DagId, asked: u64, runs: Vec<RunOf>) {
        let most = self.max_failed(dag_id);
        let Some(recent) = self.recent.get_mut(dag_id).filter(|recent| recent.asked == asked) else {
            return;
        };
        let gone = recent.gone.take().unwrap_or_default();
        for (key, run_after, state) in runs {
            if !gone.contains(&key) && !recent.runs.knows(run_after, key) {
                recent.runs.note(run_after, key, state, most);
            }
        }
    }

    /// What is committed of a run.
    pub(crate) fn recent_changed(&mut self, draft: &Draft) {
        let context = &draft.live.context;
        let most = self.max_failed(&context.dag_id);
        let Some(recent) = self.recent.get_mut(&context.dag_id) else {
            return;
        };
        if !draft.deleted {
            return recent
                .runs
                .note(context.run_after, context.key, draft.state.state(), most);
        }
        recent.runs.remove(context.run_after, context.key);
        match &mut recent.gone {
            Some(gone) => drop(gone.insert(context.key)),
            // An older run takes its place.
            None => self.ask_recent(&context.dag_id.clone(), most),
        }
    }

    /// Runs failed in this tick: pauses their DAGs where these were too many in a row. It is part of what the tick writes for the run.
    pub(crate) fn pause_failing(&mut self, tick: &mut Tick) {
        for key in std::mem::take(&mut tick.failed) {
            let Some(dag_id) = tick.drafts.get(&key).map(|draft| draft.live.context.dag_id.clone()) else {
                continue;
            };
            let most = self.max_failed(&dag_id);
            let (Some(recent), Some(dag)) = (self.recent.get(&dag_id), self.dags.get(&dag_id)) else {
                continue;
            };
            if most == 0 || dag.paused || tick.drafts.values().any(|draft| draft.pauses_dag(&dag_id)) {
                continue;
            }
            let mut runs = recent.runs.clone();
            for draft in tick.drafts.values() {
                let context = &draft.live.context;
                if context.dag_id != dag_id {
                    continue;
                }
                match draft.deleted {
                    true => runs.remove(context.run_after, context.key),
                    false => runs.note(context.run_after, context.key, draft.state.state(), most),
                }
            }
            if !runs.have_failed(most) {
                continue;
            }
            let reason = match most {
                1 => "its last run failed (`max_consecutive_failed_dag_runs`)".to_owned(),
                most => format!("its last {most} runs failed (`max_consecutive_failed_dag_runs`)"),
            };
            tracing::warn!(dag.id = %dag_id, reason, "pausing a DAG");
            // Nothing else of the DAG starts in this tick; where it is not committed, the slots are made anew.
            self.slots.set_dag(&dag.version, true);
            if let Some(draft) = tick.drafts.get_mut(&key) {
                let extra = serde_json::json!({"is_paused": true, "reason": reason}).to_string();
                draft
                    .audit
                    .push(audit::dag("paused", &Asker::here("scheduler"), &dag_id, Some(extra)));
                draft.pause = Some(reason);
            }
        }
    }
}
