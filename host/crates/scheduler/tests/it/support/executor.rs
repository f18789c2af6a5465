//! An executor under the control of a test: it answers at once, when it is told to, or as a script says.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use model::{Cause, Clock, Timestamp};
use ports::executor::{
    Executor, ExecutorEvent, ExecutorEvents, TryFailure, TryId, TryOutcome, TryReport, TryRequest, TryUsage, XcomPush,
};
use tokio::sync::{mpsc, watch};

/// What the executor does with a dispatch.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// It starts and ends at once.
    End(TryOutcome, Vec<XcomPush>),
    /// It starts and goes on until the test ends it.
    Start,
    /// It is not even acknowledged.
    Nothing,
}

impl Reply {
    pub(crate) fn done() -> Self {
        Self::End(TryOutcome::Done { falsy: false }, Vec::new())
    }

    pub(crate) fn failed(fatal: bool) -> Self {
        Self::End(failure(Cause::Failed, fatal), Vec::new())
    }
}

pub(crate) fn failure(cause: Cause, fatal: bool) -> TryOutcome {
    TryOutcome::Failed(TryFailure {
        cause,
        message: "it did not work".to_owned(),
        fatal,
        code: Some("broken".to_owned()),
        details: None,
    })
}

type Script = dyn Fn(&TryRequest) -> Reply + Send + Sync;

pub(crate) struct TestExecutor {
    events: OnceLock<(Arc<dyn ExecutorEvents>, Arc<dyn Clock>)>,
    script: Box<Script>,
    slots: u32,
    /// Every dispatch, in order.
    pub(crate) dispatched: Mutex<Vec<TryRequest>>,
    pub(crate) cancelled: Mutex<Vec<TryId>>,
    running: Mutex<Vec<TryId>>,
    seen: watch::Sender<usize>,
    arrivals: mpsc::UnboundedSender<TryRequest>,
    waiting: tokio::sync::Mutex<mpsc::UnboundedReceiver<TryRequest>>,
}

impl TestExecutor {
    pub(crate) fn new(slots: u32, script: impl Fn(&TryRequest) -> Reply + Send + Sync + 'static) -> Arc<Self> {
        let (arrivals, waiting) = mpsc::unbounded_channel();
        Arc::new(Self {
            events: OnceLock::new(),
            script: Box::new(script),
            slots,
            dispatched: Mutex::default(),
            cancelled: Mutex::default(),
            running: Mutex::default(),
            seen: watch::Sender::new(0),
            arrivals,
            waiting: tokio::sync::Mutex::new(waiting),
        })
    }

    pub(crate) fn attach(&self, events: Arc<dyn ExecutorEvents>, clock: Arc<dyn Clock>) {
        assert!(self.events.set((events, clock)).is_ok(), "attached twice");
    }

    fn now(&self) -> Timestamp {
        self.events.get().expect("attached").1.now()
    }

    pub(crate) fn send(&self, event: ExecutorEvent) {
        self.events.get().expect("attached").0.send(event);
    }

    /// The next dispatch; waits for it.
    pub(crate) async fn next(&self) -> TryRequest {
        self.waiting.lock().await.recv().await.expect("the executor lives")
    }

    /// How many dispatches there were, once there are at least `n`.
    pub(crate) async fn seen(&self, n: usize) -> usize {
        *self.seen.subscribe().wait_for(|seen| *seen >= n).await.unwrap()
    }

    pub(crate) fn count(&self) -> usize {
        *self.seen.borrow()
    }

    pub(crate) fn start(&self, id: TryId) {
        self.running.lock().unwrap().push(id);
        self.send(ExecutorEvent::Started { id, at: self.now() });
    }

    pub(crate) fn end(&self, id: TryId, outcome: TryOutcome) {
        self.end_with(id, outcome, Vec::new());
    }

    pub(crate) fn end_with(&self, id: TryId, outcome: TryOutcome, xcoms: Vec<XcomPush>) {
        self.running.lock().unwrap().retain(|running| *running != id);
        self.send(ExecutorEvent::Finished(Box::new(TryReport {
            id,
            outcome,
            xcoms,
            measured: Vec::new(),
            rendered_map_index: None,
            started_at: self.now(),
            ended_at: self.now(),
            usage: TryUsage::default(),
        })));
    }

    pub(crate) fn done(&self, id: TryId) {
        self.end(id, TryOutcome::Done { falsy: false });
    }

    /// The ids of tasks in the order of their dispatches.
    pub(crate) fn tasks(&self) -> Vec<String> {
        let dispatched = self.dispatched.lock().unwrap();
        dispatched
            .iter()
            .map(|request| request.task.task_id.to_string())
            .collect()
    }
}

#[async_trait]
impl Executor for TestExecutor {
    fn dispatch(&self, request: TryRequest) {
        let id = request.id;
        self.dispatched.lock().unwrap().push(request.clone());
        match (self.script)(&request) {
            Reply::End(outcome, xcoms) => {
                self.send(ExecutorEvent::Started { id, at: self.now() });
                self.end_with(id, outcome, xcoms);
            }
            Reply::Start => self.start(id),
            Reply::Nothing => {}
        }
        let _ = self.arrivals.send(request);
        self.seen.send_modify(|seen| *seen += 1);
    }

    fn cancel(&self, id: TryId) {
        self.cancelled.lock().unwrap().push(id);
        let was_running = self.running.lock().unwrap().contains(&id);
        if was_running {
            self.end(id, failure(Cause::Cancelled, false));
        }
    }

    fn slots(&self) -> u32 {
        self.slots
    }

    async fn shutdown(&self, _grace: Duration) {
        for id in std::mem::take(&mut *self.running.lock().unwrap()) {
            self.send(ExecutorEvent::HandedBack { id });
        }
    }
}
