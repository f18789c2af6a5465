//! The scheduler: one inbox, one tick, one commit. It decides with `model`, writes with a `SchedulerStore`, and releases
//! effects (dispatches, answers, events) only after the commit is known to have succeeded.
//!
//! ```text
//! let scheduler = Scheduler::new(Config::new(id), store, clock);
//! let handle = scheduler.handle();                       // Control, ExecutorEvents, XcomBackend, CheckpointBackend
//! let executor = make_executor(Arc::new(handle.clone()));
//! let running = scheduler.start(executor).await?;        // lease, recovery, loop
//! handle.shutdown(grace).await;
//! running.await?;
//! ```

mod asker;
mod audit;
mod between;
mod callback;
mod checked;
mod checkpoint;
mod commit;
mod config;
mod control;
mod core;
mod create;
mod dags;
mod drain;
mod error;
mod failed_runs;
mod handle;
mod human;
mod inbox;
mod intent;
mod keys;
mod large;
mod lease;
mod ledger;
mod live;
mod mark;
mod marks;
mod memory;
mod metrics;
mod names;
mod ops;
mod outcome;
mod past;
mod pool_ops;
mod pools;
mod queue;
mod recover;
mod release;
mod remote;
mod repeats;
mod rows;
mod run;
mod saves;
mod selection;
mod service;
mod shared;
mod slots;
mod tick;
mod timers;
mod transitions;
mod version;
mod watch;
mod write;
mod xcom;
mod xcom_cache;
mod xcom_lists;

pub use config::Config;
pub use error::{StartError, Stopped};
pub use handle::Handle;
pub use memory::MemoryStore;
pub use metrics::{Metrics, MetricsSnapshot};
pub use remote::{Remote, RemoteConfig, RemoteService};
pub use service::{Running, Scheduler};
