//! Taking a run over from its stored rows.

use std::sync::Arc;

use super::state::RunState;
use super::ti::Ti;
use crate::dag::Dag;
use crate::id::{DagRunKey, MapIndex, TaskIndex};
use crate::state::DagRunState;
use crate::time::Timestamp;

/// A run as it was stored.
#[derive(Clone, Debug)]
pub struct RunSnapshot {
    /// See [`RunState::run_after`].
    pub run_after: Timestamp,
    /// Its state.
    pub state: DagRunState,
    /// When it was queued last.
    pub queued_at: Timestamp,
    /// When it started.
    pub start_date: Option<Timestamp>,
    /// When it ended.
    pub end_date: Option<Timestamp>,
    /// Its task instances. One that is missing is as in a new run; one of a task that the DAG version lacks is left out.
    pub task_instances: Vec<TiSnapshot>,
}

/// A task instance as it was stored.
#[derive(Clone, Debug)]
pub struct TiSnapshot {
    /// Its task.
    pub task: TaskIndex,
    /// Its map index.
    pub map_index: MapIndex,
    /// The rest.
    pub ti: Ti,
}

impl RunState {
    /// The run as it was when it was stored: every counter is made anew from the rows, and what the branches chose is applied.
    /// It goes on exactly as the stored one would have. Dispatches that were out are in [`Self::dispatched`], task instances that
    /// wait for capacity in [`Self::ready`].
    pub fn restore(key: DagRunKey, dag: Arc<Dag>, snapshot: RunSnapshot) -> Self {
        let mut run = Self::new(key, dag, snapshot.run_after, snapshot.queued_at);
        run.state = snapshot.state;
        run.start_date = snapshot.start_date;
        run.end_date = snapshot.end_date;
        for TiSnapshot { task, map_index, ti } in snapshot.task_instances {
            if let Some(at) = run.slot_of(task, map_index) {
                run.edit(at, |place| *place = ti);
            }
        }
        run
    }

    /// What `restore` takes.
    pub fn snapshot(&self) -> RunSnapshot {
        RunSnapshot {
            run_after: self.run_after,
            state: self.state,
            queued_at: self.queued_at,
            start_date: self.start_date,
            end_date: self.end_date,
            task_instances: self
                .tis()
                .map(|(task, map_index, ti)| TiSnapshot {
                    task,
                    map_index,
                    ti: ti.clone(),
                })
                .collect(),
        }
    }
}
