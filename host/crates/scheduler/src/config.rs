//! What can be set about a scheduler. Every value has a default that suits one process on one database.

use std::time::Duration;

use uuid::Uuid;

/// The settings of a scheduler.
#[derive(Clone, Debug)]
pub struct Config {
    /// Names this scheduler in the lease; a process that starts again may keep its id and takes its own lease at once.
    pub scheduler_id: Uuid,
    /// How long a lease holds without being renewed. It is renewed three times in that time.
    pub lease_ttl: Duration,
    /// How many task instances may be dispatched at a time. None: as many as the executor has slots.
    pub parallelism: Option<u32>,
    /// How long `running` marks and start times wait for a tick to ride on before they get a write of their own.
    pub run_mark_delay: Duration,
    /// After this many transitions a tick takes no further work.
    pub max_transitions_per_tick: usize,
    /// After about this many transitions of one run a step ends, and what is left of it goes on in later ticks. A run with more task
    /// instances is ended, cleared and marked in several steps.
    pub max_transitions_per_event: usize,
    /// The number of transitions each of the steps that follow makes; a tick takes one of them, of the runs in turn.
    pub max_transitions_per_step: usize,
    /// The number of task instances a run may have.
    pub max_task_instances_per_run: u32,
    /// The number of task instances all active runs may have together.
    pub max_task_instances: u32,
    /// How many rows of each table a tick removes at the most for an intent that deletes.
    pub purge_rows: u32,
    /// How long the answer to a request that became an intent waits for it to be carried out. It is promised either way.
    pub intent_patience: Duration,
    /// How many run keys are reserved at a time.
    pub run_key_block: u32,
    /// How long commits may fail for passing reasons before waiting requests are answered "unavailable".
    pub unavailable_after: Duration,
    /// The first pause after a commit that failed for a passing reason; it doubles up to `backoff_max`.
    pub backoff: Duration,
    /// The longest pause between two attempts.
    pub backoff_max: Duration,
    /// How many callbacks may be out at a time.
    pub callback_slots: usize,
    /// The wait after the first failed attempt of a callback; it doubles with each.
    pub callback_retry_delay: Duration,
    /// How deep runs may trigger runs.
    pub max_trigger_depth: u32,
    /// How long an answer in the inbox waits for whoever asked.
    pub keep_answers: Duration,
    /// How long executors may be silent about a dispatch before it is lost. None: they have no heartbeat, and nothing is lost that way.
    pub heartbeat_timeout: Option<Duration>,
    /// How many events a slow subscriber may lag behind.
    pub event_buffer: usize,
}

impl Config {
    /// The defaults, for a scheduler with this id.
    pub fn new(scheduler_id: Uuid) -> Self {
        Self {
            scheduler_id,
            lease_ttl: Duration::from_secs(15),
            parallelism: None,
            run_mark_delay: Duration::from_millis(500),
            max_transitions_per_tick: 5_000,
            max_transitions_per_event: 2_000,
            max_transitions_per_step: 500,
            max_task_instances_per_run: model::run::DEFAULT_TASK_INSTANCES,
            max_task_instances: 1_000_000,
            purge_rows: 2_000,
            intent_patience: Duration::from_secs(2),
            run_key_block: 1_000,
            unavailable_after: Duration::from_secs(1),
            backoff: Duration::from_millis(20),
            backoff_max: Duration::from_secs(2),
            callback_slots: ports::executor::CALLBACK_SLOTS as usize,
            callback_retry_delay: Duration::from_secs(10),
            max_trigger_depth: model::between::MAX_TRIGGER_DEPTH,
            keep_answers: Duration::from_secs(3_600),
            heartbeat_timeout: Some(Duration::from_secs(60)),
            event_buffer: 4_096,
        }
    }
}
