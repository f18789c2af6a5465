//! The loop: it waits for work, decides a tick, commits it, and releases what follows. It alone changes runs.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::{DagId, DagRunKey, TiKey, Timestamp};
use ports::control::ControlError;
use ports::executor::{Executor, ExecutorEvent, TryId, TryReport};
use ports::intent::Intent;
use tokio::sync::{Semaphore, mpsc};

use crate::between::Between;
use crate::callback;
use crate::dags::Dags;
use crate::error::Stopped;
use crate::failed_runs::Recent;
use crate::inbox::{DagOp, Item, Message};
use crate::intent;
use crate::marks::Mark;
use crate::metrics::Metrics;
use crate::past::Waiting;
use crate::queue::WorkQueue;
use crate::run::Run;
use crate::shared::Shared;
use crate::slots::Slots;
use crate::timers::Timers;

/// Timers follow the wall clock, which can jump; it is looked at again at least this often while one is set.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// How many ended runs are read at a time.
const LOADS: usize = 8;

/// Why commits fail, and since when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failing {
    pub(crate) since: Timestamp,
    pub(crate) attempts: u32,
}

/// The state of the loop.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) inbox: mpsc::UnboundedReceiver<Message>,
    pub(crate) queue: WorkQueue,
    pub(crate) dag_ops: VecDeque<DagOp>,
    /// The active runs, as they are committed.
    pub(crate) runs: HashMap<DagRunKey, Run>,
    /// Ended runs that are being read, with the work that waits for them. Nobody else changes them meanwhile.
    pub(crate) loading: HashMap<DagRunKey, VecDeque<Item>>,
    pub(crate) dags: Dags,
    pub(crate) slots: Slots,
    pub(crate) timers: Timers,
    /// Runs that look back at the run before.
    pub(crate) waiting: Waiting,
    /// The latest runs of DAGs that are paused after too many failed ones.
    pub(crate) recent: HashMap<DagId, Recent>,
    /// When to look at the start marks of what was dispatched, unless the loop is awake before.
    marks_due: Option<Timestamp>,
    /// When to look whether the executors of what is out were heard of.
    pub(crate) watch_due: Option<Timestamp>,
    /// Runs with rows that are still to be written.
    pub(crate) lazy: BTreeSet<DagRunKey>,
    /// Runs with something left to do, see `large`.
    pub(crate) going: BTreeSet<DagRunKey>,
    /// The one of them that had the last turn.
    pub(crate) went: DagRunKey,
    /// The number of task instances the runs in memory have.
    pub(crate) instances: usize,
    /// What runs have to do with other runs.
    pub(crate) between: Between,
    /// Bounds how many runs are read at a time.
    pub(crate) loads: Arc<Semaphore>,
    /// Intents of the last process.
    pub(crate) stored_intents: Vec<Intent>,
    pub(crate) failing: Option<Failing>,
    /// Whether slots were kept for somebody in the last tick.
    pub(crate) keeps: bool,
    /// How many ticks in a row found the slots taken that they were to take.
    pub(crate) recounts: u32,
    pub(crate) stopping: bool,
    pub(crate) executor_stopped: bool,
    pub(crate) fenced: bool,
}

impl Core {
    pub(crate) fn new(
        shared: Arc<Shared>,
        executor: Arc<dyn Executor>,
        inbox: mpsc::UnboundedReceiver<Message>,
        slots: Slots,
    ) -> Self {
        shared.room().parallelism = Some(slots.parallelism());
        Self {
            shared,
            executor,
            inbox,
            queue: WorkQueue::default(),
            dag_ops: VecDeque::new(),
            runs: HashMap::new(),
            loading: HashMap::new(),
            dags: Dags::default(),
            slots,
            timers: Timers::default(),
            waiting: Waiting::default(),
            recent: HashMap::new(),
            marks_due: None,
            watch_due: None,
            lazy: BTreeSet::new(),
            going: BTreeSet::new(),
            went: DagRunKey(0),
            instances: 0,
            between: Between::default(),
            loads: Arc::new(Semaphore::new(LOADS)),
            stored_intents: Vec::new(),
            failing: None,
            keeps: false,
            recounts: 0,
            stopping: false,
            executor_stopped: false,
            fenced: false,
        }
    }

    /// Runs until a shutdown or until another scheduler takes over.
    pub(crate) async fn run(mut self) -> Result<(), Stopped> {
        for stored in std::mem::take(&mut self.stored_intents) {
            intent::carry(&self.shared, Arc::new(stored));
        }
        loop {
            while let Ok(message) = self.inbox.try_recv() {
                self.accept(message);
            }
            if self.fenced {
                return self.give_up();
            }
            if self.is_hopeless() {
                tracing::error!("stopping without having committed the last results");
                return Ok(());
            }
            let now = self.shared.clock.now();
            self.take_marks(now);
            self.watch_tries(now);
            self.fall_due(now);
            if self.has_work(now) {
                self.tick().await;
                if !self.going.is_empty() {
                    // A tick that has nothing to write waits for nothing.
                    tokio::task::yield_now().await;
                }
                continue;
            }
            if self.failing.is_some() && !self.stopping {
                self.probe().await;
                continue;
            }
            if self.executor_stopped && self.loading.is_empty() && self.queue.is_empty() && self.between.is_idle() {
                self.finish().await;
                return Ok(());
            }
            self.wait(now).await;
        }
    }

    fn has_work(&self, now: Timestamp) -> bool {
        self.queue.has_hard()
            || !self.dag_ops.is_empty()
            || !self.lazy.is_empty()
            || (!self.stopping && !self.going.is_empty())
            || (!self.queue.is_empty() && self.executor_stopped)
            || self.soft_deadline().is_some_and(|deadline| deadline <= now)
            || (!self.stopping && self.slots.gate.next_timer().is_some_and(|due| due <= now))
            || (!self.stopping && !self.that_give_way(now).is_empty())
    }

    fn soft_deadline(&self) -> Option<Timestamp> {
        Some(self.queue.soft_since()?.plus(self.shared.config.run_mark_delay))
    }

    /// Tries were dispatched: their start marks are looked at when there is a tick, or after a while.
    pub(crate) fn expect_marks(&mut self, now: Timestamp) {
        if self.marks_due.is_none() {
            self.marks_due = Some(now.plus(self.shared.config.run_mark_delay));
            self.shared.marks.expect();
        }
        self.begin_watch(now);
    }

    /// Takes in the start marks that there are. They come before the ends of their tries, which are messages.
    fn take_marks(&mut self, now: Timestamp) {
        if self.marks_due.is_some_and(|due| due <= now) {
            self.marks_due = None;
        }
        for mark in self.shared.marks.take(self.marks_due.is_some()) {
            let (Mark::Started(id, at) | Mark::Heard(id, at)) = mark;
            let (task, map_index, dispatch) = (id.ti.task, id.ti.map_index, id.dispatch);
            let item = match mark {
                Mark::Started(..) => Item::Started {
                    task,
                    map_index,
                    dispatch,
                    at,
                },
                Mark::Heard(..) => Item::Heard {
                    task,
                    map_index,
                    dispatch,
                    at,
                },
            };
            self.queue.push(id.ti.run, item, at);
        }
    }

    fn fall_due(&mut self, now: Timestamp) {
        while !self.stopping
            && let Some(key) = self.timers.pop_due(now)
        {
            self.queue.push(key, Item::Timer, now);
        }
    }

    /// Sleeps until a message comes or something is due.
    async fn wait(&mut self, now: Timestamp) {
        let timer = if self.stopping { None } else { self.timers.next() };
        let gate = if self.stopping {
            None
        } else {
            let due = self.slots.gate.next_timer().into_iter();
            due.chain(self.next_to_give_way_to(now)).min()
        };
        let marks = self
            .soft_deadline()
            .into_iter()
            .chain(self.marks_due)
            .chain(self.watch_due);
        let deadline = timer.into_iter().chain(gate).chain(marks).min();
        let message = match deadline {
            None => self.inbox.recv().await,
            Some(deadline) => {
                let sleep = tokio::time::sleep(deadline.since(now).min(LONGEST_SLEEP));
                tokio::select! {
                    message = self.inbox.recv() => message,
                    () = sleep => return,
                }
            }
        };
        if let Some(message) = message {
            self.accept(message);
        }
    }

    pub(crate) fn accept(&mut self, message: Message) {
        let now = self.shared.clock.now();
        self.take_marks(now);
        match message {
            Message::Marks => {}
            Message::Executor(event) => self.accept_event(event, now),
            Message::Dag(op) => {
                if self.stopping && op.is_request() {
                    op.refuse(ControlError::Stopping);
                } else {
                    self.dag_ops.push_back(op);
                }
            }
            Message::New(op) => {
                let key = op.new.context.key;
                self.accept_request(key, Item::New(op), now);
            }
            Message::Run(key, op) => self.accept_request(key, Item::Op(op), now),
            Message::Loaded(key, result) => self.loaded(key, result, now),
            Message::Before {
                dag_id,
                key,
                asked,
                found,
            } => self.found_before(&dag_id, key, asked, found, now),
            Message::Recent { dag_id, asked, runs } => self.found_recent(&dag_id, asked, runs),
            Message::Between(message) => self.accept_between(*message, now),
            Message::Fenced => self.fenced = true,
            Message::Shutdown { grace } => self.begin_shutdown(grace),
            Message::ExecutorStopped => self.executor_stopped = true,
        }
    }

    fn accept_event(&mut self, event: ExecutorEvent, now: Timestamp) {
        match &event {
            ExecutorEvent::Finished(report) if report.id.callback.is_some() => {
                return self.accept_callback(report.id, Some(report), now);
            }
            ExecutorEvent::HandedBack { id } if id.callback.is_some() => return self.accept_callback(*id, None, now),
            _ => {}
        }
        let (id, item) = match event {
            ExecutorEvent::Finished(report) => {
                let Some(report) = self.begin_trigger(report) else {
                    return;
                };
                (report.id, Item::Finished(report))
            }
            ExecutorEvent::HandedBack { id } => {
                let item = Item::HandedBack {
                    task: id.ti.task,
                    map_index: id.ti.map_index,
                    dispatch: id.dispatch,
                };
                (id, item)
            }
            // Marks come another way, and progress is not durable.
            ExecutorEvent::Started { .. } | ExecutorEvent::Heartbeat { .. } | ExecutorEvent::Progress { .. } => return,
        };
        self.queue.push(id.ti.run, item, now);
    }

    /// An attempt of a callback is over. What belongs to any but the current one is dropped.
    pub(crate) fn accept_callback(&mut self, id: TryId, report: Option<&TryReport>, now: Timestamp) {
        let known = self.shared.flights.reported(&id);
        let change = known.and_then(|(started_at, about)| {
            let change = callback::ended(&self.shared.config, &id, about.kind, report, started_at, now)?;
            Some((change, about))
        });
        match change {
            Some((change, about)) => self.dag_ops.push_back(DagOp::Callback {
                change,
                about,
                reply: None,
            }),
            None => Metrics::count(&self.shared.metrics.stale_events),
        }
    }

    fn accept_request(&mut self, key: DagRunKey, item: Item, now: Timestamp) {
        if self.stopping {
            item.refuse(ControlError::Stopping);
        } else if let Some(waiting) = self.loading.get_mut(&key) {
            waiting.push_back(item);
        } else {
            self.queue.push(key, item, now);
        }
    }

    fn begin_shutdown(&mut self, grace: Duration) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        self.shared.stopping.store(true, Ordering::Release);
        tracing::info!("the scheduler is stopping");
        let (executor, inbox) = (Arc::clone(&self.executor), self.shared.inbox.clone());
        tokio::spawn(async move {
            executor.shutdown(grace).await;
            let _ = inbox.send(Message::ExecutorStopped);
        });
    }

    async fn finish(&self) {
        // Answers need the lease.
        self.shared.drain.settle().await;
        if let Some(lease) = self.shared.lease.get()
            && let Err(error) = self.shared.store.release_lease(lease).await
        {
            tracing::warn!(%error, "could not release the lease; the next scheduler has to wait for it to run out");
        }
        tracing::info!("the scheduler has stopped");
    }

    /// Another scheduler has the lease: the runs are its own now. Nothing is written, nothing is released.
    fn give_up(&mut self) -> Result<(), Stopped> {
        tracing::error!("another scheduler has taken over this database; this one stops");
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.condition().problem = Some(Stopped::Fenced.to_string());
        for run in self.runs.values() {
            self.cancel_all(run);
        }
        self.shared.active_mut().clear();
        Err(Stopped::Fenced)
    }

    /// Tells the executor to stop what it runs for a run that is not ours any more.
    pub(crate) fn cancel_all(&self, run: &Run) {
        // Not under the lock: an executor may report at once.
        let tries: Vec<_> = run.live.tries().drain().collect();
        for ((task, map_index), live) in tries {
            self.executor.cancel(TryId {
                ti: TiKey {
                    run: run.key(),
                    task,
                    map_index,
                },
                run_uuid: run.live.context.uuid,
                try_number: live.try_number,
                dispatch: live.dispatch,
                callback: None,
            });
        }
    }
}
