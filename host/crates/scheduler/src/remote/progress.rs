//! What running task instances said last of their progress, out of the events that tell of it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use model::{DagId, MapIndex, RunId, TaskId};
use ports::control::RunEvent;

/// How many runs are kept.
const RUNS: usize = 1_000;

type OfRun = HashMap<(TaskId, MapIndex), (Option<f64>, String)>;

/// By run.
#[derive(Default)]
pub(super) struct Progress(Mutex<HashMap<(DagId, RunId), OfRun>>);

impl Progress {
    pub(super) fn note(&self, event: &RunEvent) {
        match event {
            RunEvent::Progress {
                dag_id,
                run_id,
                task_id,
                map_index,
                fraction,
                note,
            } => {
                let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let run = (dag_id.clone(), run_id.clone());
                if runs.len() >= RUNS && !runs.contains_key(&run) {
                    runs.clear();
                }
                let said = (*fraction, note.clone());
                runs.entry(run).or_default().insert((task_id.clone(), *map_index), said);
            }
            RunEvent::TaskInstance {
                dag_id,
                run_id,
                task_id,
                map_index,
                state,
                ..
            } if !state.is_dispatched() => {
                let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(run) = runs.get_mut(&(dag_id.clone(), run_id.clone())) {
                    run.remove(&(task_id.clone(), *map_index));
                }
            }
            RunEvent::DagRun {
                dag_id, run_id, state, ..
            } if state.is_finished() => {
                let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                runs.remove(&(dag_id.clone(), run_id.clone()));
            }
            _ => {}
        }
    }

    pub(super) fn of(&self, dag_id: &DagId, run_id: &RunId) -> Vec<(TaskId, MapIndex, Option<f64>, String)> {
        let runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said = runs.get(&(dag_id.clone(), run_id.clone())).into_iter().flatten();
        let mut said: Vec<_> = said
            .map(|((task_id, map_index), (fraction, note))| (task_id.clone(), *map_index, *fraction, note.clone()))
            .collect();
        said.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        said
    }
}
