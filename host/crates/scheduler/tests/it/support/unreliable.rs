//! An executor that delays, duplicates, reorders and loses messages.

use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use model::Clock as _;
use ports::executor::{
    Executor, ExecutorEvent, ExecutorEvents, TryId, TryOutcome, TryReport, TryRequest, TryUsage, XcomPush,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use scheduler::MemoryStore;

use super::TokioClock;

/// How a dispatch ends, and what is measured of what it published.
type Play = dyn Fn(&TryRequest, &mut StdRng) -> (TryOutcome, Vec<u32>) + Send + Sync;

/// Each try publishes the number of its dispatch under `dispatch`.
pub(crate) struct UnreliableExecutor {
    me: Weak<Self>,
    events: OnceLock<Arc<dyn ExecutorEvents>>,
    clock: Arc<TokioClock>,
    random: Mutex<StdRng>,
    play: Box<Play>,
    /// Whether messages may get lost for good; then only a restart helps, or that nobody speaks of the dispatch any more.
    lossy: bool,
    /// Reports of the past, to be sent again.
    past: Mutex<Vec<TryReport>>,
    /// Where a dispatch must be committed before it gets here.
    store: Arc<MemoryStore>,
}

impl UnreliableExecutor {
    pub(crate) fn new(
        seed: u64,
        clock: Arc<TokioClock>,
        store: Arc<MemoryStore>,
        lossy: bool,
        play: impl Fn(&TryRequest, &mut StdRng) -> (TryOutcome, Vec<u32>) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            events: OnceLock::new(),
            clock,
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            play: Box::new(play),
            lossy,
            past: Mutex::default(),
            store,
        })
    }

    pub(crate) fn attach(&self, events: Arc<dyn ExecutorEvents>) {
        assert!(self.events.set(events).is_ok(), "attached twice");
    }

    fn chance(&self, percent: u32) -> bool {
        self.random.lock().unwrap().random_range(0..100) < percent
    }

    async fn delay(&self) {
        let millis = self.random.lock().unwrap().random_range(0..40);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    fn send(&self, event: ExecutorEvent) {
        self.events.get().unwrap().send(event);
    }

    async fn run(self: Arc<Self>, request: TryRequest) {
        let id = request.id;
        let started_at = self.clock.now();
        if self.lossy && self.chance(3) {
            return;
        }
        let started = ExecutorEvent::Started { id, at: started_at };
        let late_start = self.chance(20);
        if !late_start && self.chance(90) {
            self.send(started.clone());
        }
        self.delay().await;
        if self.chance(20) {
            let ids = match self.past.lock().unwrap().last() {
                Some(past) => vec![id, past.id],
                None => vec![id],
            };
            self.send(ExecutorEvent::Heartbeat {
                ids,
                at: self.clock.now(),
            });
        }
        if self.lossy && self.chance(3) {
            return;
        }
        let (outcome, measured) = (self.play)(&request, &mut self.random.lock().unwrap());
        let report = TryReport {
            id,
            outcome,
            xcoms: vec![XcomPush {
                key: "dispatch".to_owned(),
                value: id.dispatch.0.to_string().into(),
                blobs: Vec::new(),
            }],
            measured,
            rendered_map_index: None,
            started_at,
            ended_at: self.clock.now(),
            usage: TryUsage::default(),
        };
        self.send(ExecutorEvent::Finished(Box::new(report.clone())));
        if self.chance(20) {
            self.send(ExecutorEvent::Finished(Box::new(report.clone())));
        }
        if late_start {
            self.send(started);
        }
        self.past.lock().unwrap().push(report);
        if self.chance(10) {
            let old = {
                let past = self.past.lock().unwrap();
                let at = self.random.lock().unwrap().random_range(0..past.len());
                past[at].clone()
            };
            self.send(ExecutorEvent::Finished(Box::new(old)));
        }
    }

    /// Effects come after the commit that contains them.
    fn check_is_committed(&self, id: TryId) {
        if id.callback.is_some() {
            let rows = self.store.callbacks_of(id.ti.run);
            let attempt = rows
                .iter()
                .find(|row| Some(row.id) == id.callback)
                .map(|row| row.attempt);
            assert!(
                attempt.is_none_or(|attempt| attempt >= id.dispatch.0),
                "{id:?} is sent, attempt {attempt:?} is committed"
            );
            return;
        }
        let committed = self.store.task_instance(id.ti).map(|ti| ti.dispatch);
        assert!(
            committed.is_some_and(|dispatch| dispatch >= id.dispatch),
            "{id:?} is sent, {committed:?} is committed"
        );
    }
}

#[async_trait]
impl Executor for UnreliableExecutor {
    fn dispatch(&self, request: TryRequest) {
        self.check_is_committed(request.id);
        let me = self.me.upgrade().expect("called on itself");
        tokio::spawn(me.run(request));
    }

    /// What runs goes on: its report comes all the same.
    fn cancel(&self, _id: TryId) {}

    fn slots(&self) -> u32 {
        8
    }

    async fn shutdown(&self, _grace: Duration) {}
}
