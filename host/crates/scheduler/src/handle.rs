//! The handle of a scheduler: cheap to clone, usable from anywhere. What it implements of `ports` lies in `control`,
//! `xcom`, `checkpoint` and here (`ExecutorEvents`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ports::control::RunEvent;
use ports::executor::{ExecutorEvent, ExecutorEvents, TryId};

use crate::inbox::Message;
use crate::live::LiveRun;
use crate::marks::Mark;
use crate::metrics::{Metrics, MetricsSnapshot};
use crate::shared::Shared;

/// A scheduler, from outside.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    /// Stops gracefully: takes no further work, lets running tries end for up to `grace`, commits what came of it, hands
    /// the rest back and releases the lease. Returns when that is done.
    pub async fn shutdown(&self, grace: Duration) {
        let mut ended = self.shared.ended.subscribe();
        if self.shared.inbox.send(Message::Shutdown { grace }).is_ok() {
            // An error means that the loop is gone already.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    /// When the try started that has been running longest. What it wrote since then may not be referred to yet: it publishes at its end.
    pub fn oldest_start(&self) -> Option<model::Timestamp> {
        let tries = self.shared.active().oldest_start();
        tries.into_iter().chain(self.shared.flights.oldest_start()).min()
    }

    /// The inbox may have something new: without this it is looked at once a second.
    pub fn ring(&self) {
        self.shared.drain.ring();
    }

    /// Whether a run of this UUID is active.
    pub fn is_active(&self, run: model::RunUuid) -> bool {
        self.shared.active().has_uuid(run)
    }

    /// The counters.
    pub fn metrics(&self) -> MetricsSnapshot {
        self.shared.metrics.snapshot()
    }

    /// The run of a dispatch, if the dispatch is the current one of its task instance.
    pub(crate) fn current(&self, id: &TryId) -> Option<Arc<LiveRun>> {
        if let Some(callback) = id.callback {
            return self.shared.flights.run_of(callback, id.dispatch);
        }
        let run = self.shared.active().get(id.ti.run).cloned()?;
        (run.context.uuid == id.run_uuid && run.is_current(id.ti.task, id.ti.map_index, id.dispatch)).then_some(run)
    }

    fn note_started(&self, id: &TryId, at: model::Timestamp) {
        let Some(run) = self.shared.active().get(id.ti.run).cloned() else {
            return;
        };
        {
            let mut tries = run.tries();
            match tries.get_mut(&(id.ti.task, id.ti.map_index)) {
                Some(live) if live.dispatch == id.dispatch && live.started_at.is_none() => live.started_at = Some(at),
                _ => return,
            }
        }
        self.announce(|| {
            let task = run.version.dag().task(id.ti.task)?;
            Some(RunEvent::TaskInstance {
                dag_id: run.context.dag_id.clone(),
                run_id: run.context.run_id.clone(),
                task_id: task.id.clone(),
                map_index: id.ti.map_index,
                try_number: id.try_number.0,
                state: model::TaskInstanceState::Running,
                cause: None,
                at,
            })
        });
    }

    fn mark(&self, marks: impl IntoIterator<Item = Mark>) {
        if self.shared.marks.push(marks) {
            let _ = self.shared.inbox.send(Message::Marks);
        }
    }

    /// An executor has dispatches. Of callbacks it is not stored when.
    fn note_heartbeat(&self, ids: &[TryId], at: model::Timestamp) {
        let mut heard = Vec::with_capacity(ids.len());
        for id in ids {
            let run = match id.callback {
                Some(callback) => self.shared.flights.run_of(callback, id.dispatch),
                None => self.shared.active().get(id.ti.run).cloned(),
            };
            let run = run.filter(|run| run.context.uuid == id.run_uuid);
            match run.and_then(|run| run.hear(id, at)) {
                Some(true) if id.callback.is_none() => heard.push(Mark::Heard(*id, at)),
                Some(_) => {}
                None => Metrics::count(&self.shared.metrics.stale_events),
            }
        }
        if !heard.is_empty() {
            self.mark(heard);
        }
    }

    fn note_progress(&self, id: &TryId, fraction: Option<f64>, note: String) {
        if id.callback.is_some() {
            return;
        }
        let Some(run) = self.current(id) else { return };
        if let Some(live) = run.tries().get_mut(&(id.ti.task, id.ti.map_index)) {
            live.progress = Some((fraction, note.clone()));
        }
        self.announce(|| {
            let task = run.version.dag().task(id.ti.task)?;
            Some(RunEvent::Progress {
                dag_id: run.context.dag_id.clone(),
                run_id: run.context.run_id.clone(),
                task_id: task.id.clone(),
                map_index: id.ti.map_index,
                fraction,
                note,
            })
        });
    }

    /// Broadcasts an event, made only if somebody listens.
    fn announce(&self, event: impl FnOnce() -> Option<RunEvent>) {
        if self.shared.events.receiver_count() > 0
            && let Some(event) = event()
        {
            let _ = self.shared.events.send(event);
        }
    }
}

impl ExecutorEvents for Handle {
    fn send(&self, event: ExecutorEvent) {
        match event {
            ExecutorEvent::Progress { id, fraction, note } => self.note_progress(&id, fraction, note),
            ExecutorEvent::Started { id, at } if id.callback.is_some() => self.shared.flights.started(&id, at),
            ExecutorEvent::Started { id, at } => {
                // The mark is shown at once and written with the next tick.
                self.note_started(&id, at);
                self.mark([Mark::Started(id, at)]);
            }
            ExecutorEvent::Heartbeat { ids, at } => self.note_heartbeat(&ids, at),
            event @ (ExecutorEvent::Finished(_) | ExecutorEvent::HandedBack { .. }) => {
                let _ = self.shared.inbox.send(Message::Executor(event));
            }
        }
    }
}
