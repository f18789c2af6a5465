//! Dispatch, cancel and shutdown of tries that run in this process.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use model::{Cause, Clock, OnLogLimit, Timestamp};
use ports::component::ComponentCompiler;
use ports::executor::{
    CALLBACK_SLOTS, Executor, ExecutorEvent, ExecutorEvents, TryFailure, TryId, TryOutcome, TryReport, TryRequest,
    TryUsage,
};
use ports::log::{LogLevel, LogSink};
use ports::payload::{BlobStore, CheckpointBackend, XcomBackend};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use super::attempt::{Attempt, Ended};
use super::backends::OnControlPlane;
use super::compute::{Compute, ComputePool};
use super::guest::Guest;
use super::slots::{Held, Hold, NotTaken};
use crate::cache::ComponentCache;
use crate::capacity::{Admitted, Spare};
use crate::code::CodeCache;
use crate::engine::TaskEngine;
use crate::gate::Stop;
use crate::limits::Account;
use crate::meter::{CpuClock, GivenUp, Metered};
use crate::outcome::{Death, classify};
use crate::try_log::TryLog;

/// How long stopped tries get to unwind at shutdown.
const UNWIND: Duration = Duration::from_secs(5);

/// What tries reach outside of themselves.
pub struct Services {
    /// Committed XComs.
    pub xcoms: Arc<dyn XcomBackend>,
    /// Checkpoints.
    pub checkpoints: Arc<dyn CheckpointBackend>,
    /// Blobs; components lie there too.
    pub blobs: Arc<dyn BlobStore>,
    /// Logs of tries.
    pub logs: Arc<dyn LogSink>,
    /// What the executor says.
    pub events: Arc<dyn ExecutorEvents>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// How tries are run.
#[derive(Clone, Debug)]
pub struct ExecutorConfig {
    /// Threads that run guests; none takes one a core.
    pub threads: Option<usize>,
    /// How often it says which dispatches it has.
    pub heartbeat: Duration,
    /// The number of blobs a try may have open for writing. Each of them costs a descriptor of the process.
    pub open_writers: u32,
}

impl Default for ExecutorConfig {
    fn default() -> Self {
        Self {
            threads: None,
            heartbeat: Duration::from_secs(5),
            open_writers: 16,
        }
    }
}

/// Runs tries in this process, on threads of their own, so that a busy guest never delays the control plane.
pub struct LocalExecutor {
    inner: Arc<Inner>,
    /// Taken when the executor is dropped.
    runtime: Option<Runtime>,
}

struct Inner {
    engine: Arc<TaskEngine>,
    components: Arc<ComponentCache>,
    services: Arc<Services>,
    slots: Semaphore,
    /// Of callbacks: they never wait for tasks, nor tasks for them.
    callback_slots: Semaphore,
    /// Where what the host computes for tries is done when it takes long.
    pool: Arc<ComputePool>,
    /// What the engine has for components that need more than the share of a slot.
    spare: Spare,
    callback_spare: Spare,
    open_writers: u32,
    held: Arc<Held>,
}

/// The niceness of the threads that guests run on. A guest may keep its thread busy for as long as it likes; what the control plane does takes
/// microseconds, and must not wait for the end of a guest's time slice.
const GUEST_NICENESS: i32 = 10;

fn yield_to_others() {
    // On Linux this is about the calling thread alone; elsewhere it would slow down the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, GUEST_NICENESS) {
        tracing::warn!(%error, "guests run at the priority of the server");
    }
}

impl LocalExecutor {
    /// Starts the threads. Call it on the control plane's tokio runtime: calls of `xcoms` and `checkpoints` are made there.
    pub fn new(
        engine: Arc<TaskEngine>,
        code: Arc<CodeCache>,
        compiler: Arc<dyn ComponentCompiler>,
        services: Services,
        config: &ExecutorConfig,
    ) -> io::Result<Self> {
        let control = Handle::try_current().map_err(io::Error::other)?;
        let threads = config
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("airtight-guest")
            .on_thread_start(yield_to_others)
            // A busy guest is polled for a whole epoch tick; timers, IO and new dispatches must not wait for dozens of those.
            .event_interval(1)
            .global_queue_interval(1)
            .enable_all()
            .build()?;
        let components = ComponentCache::new(Arc::clone(&engine), code, compiler, Arc::clone(&services.blobs));
        let services = Services {
            xcoms: Arc::new(OnControlPlane {
                backend: services.xcoms,
                control: control.clone(),
            }),
            checkpoints: Arc::new(OnControlPlane {
                backend: services.checkpoints,
                control,
            }),
            ..services
        };
        let spare_for = engine.slots();
        let slots = usize::try_from(spare_for).unwrap_or(Semaphore::MAX_PERMITS);
        let held: Arc<Held> = Arc::default();
        runtime.spawn(beat(
            Arc::clone(&held),
            Arc::clone(&services.events),
            Arc::clone(&services.clock),
            config.heartbeat,
        ));
        Ok(Self {
            inner: Arc::new(Inner {
                engine,
                components: Arc::new(components),
                services: Arc::new(services),
                slots: Semaphore::new(slots.min(Semaphore::MAX_PERMITS)),
                callback_slots: Semaphore::new(CALLBACK_SLOTS as usize),
                pool: Arc::new(ComputePool::new(threads)),
                spare: Spare::for_slots(spare_for),
                callback_spare: Spare::for_slots(CALLBACK_SLOTS),
                open_writers: config.open_writers.max(1),
                held,
            }),
            runtime: Some(runtime),
        })
    }

    /// Runs one try and answers its report, for tools that have no scheduler. None where the executor shuts down, or has the
    /// same dispatch already.
    pub async fn run(&self, request: TryRequest) -> Option<TryReport> {
        let hold = self.inner.held.take(request.id).ok()?;
        let inner = Arc::clone(&self.inner);
        let handle = self.runtime.as_ref()?.handle();
        handle
            .spawn(async move { inner.run(Arc::new(request), &hold).await })
            .await
            .ok()?
    }
}

/// Says now and then which dispatches are held; ends with the runtime.
async fn beat(held: Arc<Held>, events: Arc<dyn ExecutorEvents>, clock: Arc<dyn Clock>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let ids = held.ids();
        if !ids.is_empty() {
            events.send(ExecutorEvent::Heartbeat { ids, at: clock.now() });
        }
    }
}

impl Drop for LocalExecutor {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            self.inner.held.close();
            self.inner.held.stop_all(Stop::HandedBack);
            runtime.shutdown_background();
        }
    }
}

#[async_trait]
impl Executor for LocalExecutor {
    fn dispatch(&self, request: TryRequest) {
        let id = request.id;
        let hold = match self.inner.held.take(id) {
            Ok(hold) => hold,
            Err(NotTaken::Known) => return,
            Err(NotTaken::Closed) => {
                self.inner.services.events.send(ExecutorEvent::HandedBack { id });
                return;
            }
        };
        let inner = Arc::clone(&self.inner);
        let Some(runtime) = &self.runtime else { return };
        runtime.spawn(async move {
            let run = AssertUnwindSafe(inner.run(Arc::new(request), &hold));
            let report = run.catch_unwind().await.unwrap_or_else(|_| Some(inner.lost(id)));
            // The dispatch is forgotten before anyone hears of its end.
            drop(hold);
            inner.services.events.send(match report {
                Some(report) => ExecutorEvent::Finished(Box::new(report)),
                None => ExecutorEvent::HandedBack { id },
            });
        });
    }

    fn cancel(&self, id: TryId) {
        self.inner.held.stop(id, Stop::Cancelled);
    }

    fn slots(&self) -> u32 {
        self.inner.engine.slots()
    }

    async fn shutdown(&self, grace: Duration) {
        let held = &self.inner.held;
        held.close();
        // Whoever waits for a slot is handed back at once.
        self.inner.slots.close();
        self.inner.callback_slots.close();
        self.inner.spare.close();
        self.inner.callback_spare.close();
        if tokio::time::timeout(grace, held.empty()).await.is_err() {
            held.stop_all(Stop::HandedBack);
            if tokio::time::timeout(UNWIND, held.empty()).await.is_err() {
                tracing::warn!("some tasks did not stop in time at shutdown");
            }
        }
    }
}

impl Inner {
    /// The report of a try whose executor code panicked outside of the guest's future.
    fn lost(&self, id: TryId) -> TryReport {
        let message = "the server failed while it served this try (a bug in Airtight)";
        let (logs, clock) = (Arc::clone(&self.services.logs), Arc::clone(&self.services.clock));
        // It may not have been opened yet.
        logs.open(id);
        let log = TryLog::new(id, logs, clock, 0, OnLogLimit::default());
        log.system(LogLevel::Error, &format!("{}: {message}", Cause::InfrastructureLost));
        log.close();
        failed_now(id, self.services.clock.now(), Cause::InfrastructureLost, message)
    }

    /// Waits for a slot, and before that for what the component needs beyond the share of one: who waits for the engine keeps no slot from others.
    async fn place(&self, request: &TryRequest) -> Result<(Option<Admitted<'_>>, SemaphorePermit<'_>), AcquireError> {
        let (slots, spare) = if request.id.callback.is_some() {
            (&self.callback_slots, &self.callback_spare)
        } else {
            (&self.slots, &self.spare)
        };
        let admitted = match request.task.work.component() {
            Some(component) => {
                let needs = self.components.needs(component.digest).await;
                Some(spare.admit(needs).await?)
            }
            None => None,
        };
        Ok((admitted, slots.acquire().await?))
    }

    /// Waits for its place and runs the try. None where it was handed back.
    async fn run(&self, request: Arc<TryRequest>, hold: &Hold) -> Option<TryReport> {
        let id = request.id;
        let clock = &self.services.clock;
        let gate = &hold.gate;
        let place = tokio::select! {
            biased;
            () = gate.stopped() => None,
            place = self.place(&request) => Some(place.ok()?),
        };
        if place.is_none() {
            let message = "the try was cancelled before it started";
            return match gate.stop_reason() {
                Some(Stop::HandedBack) => None,
                Some(Stop::Cancelled) | None => Some(failed_now(id, clock.now(), Cause::Cancelled, message)),
            };
        }
        let started_at = clock.now();
        self.services.logs.open(id);
        self.services.events.send(ExecutorEvent::Started { id, at: started_at });
        let limits = &request.task.limits;
        let log = Arc::new(TryLog::new(
            id,
            Arc::clone(&self.services.logs),
            Arc::clone(clock),
            limits.log_bytes,
            limits.on_log_limit,
        ));
        let cpu = Arc::new(CpuClock::default());
        let account = Arc::new(Account::new(Arc::clone(self.engine.machine()), limits.memory_bytes));
        let attempt = Arc::new(Attempt {
            engine: Arc::clone(&self.engine),
            components: Arc::clone(&self.components),
            services: Arc::clone(&self.services),
            gate: Arc::clone(gate),
            compute: Compute {
                pool: Arc::clone(&self.pool),
                account: Arc::clone(&account),
                cpu: Arc::clone(&cpu),
                cpu_limit: limits.cpu_time,
            },
            account,
            log: Arc::clone(&log),
            open_writers: self.open_writers,
            request: Arc::clone(&request),
            name: std::sync::OnceLock::new(),
        });
        let Some(ended) = self.watch(&attempt, &cpu).await else {
            log.close();
            return None;
        };
        let ended = ended.unwrap_or_else(|death| Ended {
            outcome: TryOutcome::Failed(classify(death, &attempt.evidence())),
            xcoms: Vec::new(),
            measured: Vec::new(),
        });
        let Ended {
            outcome,
            xcoms,
            measured,
        } = ended;
        log.guest_ended();
        if let TryOutcome::Failed(failure) = &outcome {
            log.system(LogLevel::Error, &format!("{}: {}", failure.cause, failure.message));
        }
        log.close();
        Some(TryReport {
            id,
            outcome,
            xcoms,
            measured,
            started_at,
            ended_at: clock.now(),
            usage: TryUsage {
                cpu: cpu.used(),
                peak_memory_bytes: attempt.account.peak(),
                log_bytes: log.used(),
            },
            rendered_map_index: attempt.name.get().cloned(),
        })
    }

    /// Runs the try until it answers, dies or is stopped; its store is gone when this returns. None where it is handed back.
    async fn watch(&self, attempt: &Arc<Attempt>, cpu: &Arc<CpuClock>) -> Option<Result<Ended, Death>> {
        let limits = &attempt.request.task.limits;
        let gate = &attempt.gate;
        let run = {
            let attempt = Arc::clone(attempt);
            async move { attempt.run().await }
        };
        let mut guest = Guest::start(Metered::new(
            run,
            Arc::clone(&self.engine),
            Arc::clone(cpu),
            limits.cpu_time,
        ));
        let ended = tokio::select! {
            biased;
            () = gate.stopped() => None,
            ended = tokio::time::timeout(limits.timeout, guest.ended()) => Some(ended),
            never = attempt.log.show_unfinished() => match never {},
        };
        // A stop that arrived while the guest was being polled may have unwound it by a refused host call.
        let stopped = gate.stop_reason();
        gate.close();
        guest.give_up().await;
        match (stopped, ended) {
            (Some(Stop::HandedBack), _) => None,
            (Some(Stop::Cancelled), _) | (None, None) => Some(Err(Death::Cancelled)),
            (None, Some(Err(_elapsed))) => Some(Err(Death::TimedOut)),
            (None, Some(Ok(Ok(Ok(ended))))) => Some(ended),
            (None, Some(Ok(Ok(Err(given_up))))) => Some(Err(Death::GivenUp(given_up))),
            (None, Some(Ok(Err(aborted)))) => Some(Err(Death::GivenUp(GivenUp::Panicked(aborted.to_string())))),
        }
    }
}

fn failed_now(id: TryId, now: Timestamp, cause: Cause, message: &str) -> TryReport {
    let failure = TryFailure {
        cause,
        message: message.to_owned(),
        fatal: false,
        code: None,
        details: None,
    };
    TryReport {
        id,
        outcome: TryOutcome::Failed(failure),
        xcoms: Vec::new(),
        measured: Vec::new(),
        started_at: now,
        ended_at: now,
        usage: TryUsage::default(),
        rendered_map_index: None,
    }
}
