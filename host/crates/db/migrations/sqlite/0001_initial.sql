-- The first schema. Times are microseconds since the Unix epoch, digests are `sha256:<hex>`, flags are 0 or 1.

-- Facts about the database itself.
CREATE TABLE meta (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta (key, value) VALUES ('application', 'airtight');

-- Who may schedule: always exactly one row. `epoch` rises with each holder and is checked under lock by every tick;
-- `tick_id` is the last tick that was committed, read back after an unknown outcome. A tick of a scheduler that no longer holds
-- the lease tries to set the epoch to -1, so that `scheduler_lease_held` ends its transaction in the same round trip.
CREATE TABLE scheduler_lease (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    scheduler_id TEXT,
    epoch INTEGER NOT NULL CONSTRAINT scheduler_lease_held CHECK (epoch >= 0),
    acquired_at INTEGER NOT NULL,
    renewed_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    tick_id TEXT
) STRICT;
INSERT INTO scheduler_lease (id, scheduler_id, epoch, acquired_at, renewed_at, expires_at) VALUES (1, NULL, 0, 0, 0, 0);

-- The next key of a dag run that nobody has reserved: always exactly one row.
CREATE TABLE run_key_counter (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    next_key INTEGER NOT NULL
) STRICT;
INSERT INTO run_key_counter (id, next_key) VALUES (1, 1);

-- A DAG that is being deleted is listed nowhere, and neither is what belongs to it; an intent removes that over many ticks.
CREATE TABLE dag (
    dag_id TEXT NOT NULL PRIMARY KEY,
    paused INTEGER NOT NULL CHECK (paused IN (0, 1)),
    -- Why, where the scheduler paused it.
    paused_reason TEXT,
    current_version TEXT NOT NULL REFERENCES dag_version (uuid) DEFERRABLE INITIALLY DEFERRED,
    owner TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleting INTEGER NOT NULL DEFAULT 0 CHECK (deleting IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE INDEX dag_deleting ON dag (dag_id) WHERE deleting = 1;

-- `dag` is the compiled version as JSON; `source` is the manifest as it was deployed.
CREATE TABLE dag_version (
    uuid TEXT NOT NULL PRIMARY KEY,
    dag_id TEXT NOT NULL REFERENCES dag (dag_id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    digest TEXT NOT NULL,
    source TEXT NOT NULL,
    dag TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (dag_id, number),
    UNIQUE (dag_id, digest)
) STRICT;

-- What queries need of the tasks of a version without parsing it.
CREATE TABLE dag_version_task (
    version TEXT NOT NULL REFERENCES dag_version (uuid) ON DELETE CASCADE,
    task_index INTEGER NOT NULL,
    task_id TEXT NOT NULL,
    -- Both are missing where the task is a built-in step.
    component TEXT,
    component_digest TEXT,
    pool TEXT NOT NULL,
    pool_slots INTEGER NOT NULL,
    PRIMARY KEY (version, task_index)
) STRICT, WITHOUT ROWID;
CREATE INDEX dag_version_task_component ON dag_version_task (component_digest);

-- The tags of a DAG's current version.
CREATE TABLE dag_tag (
    dag_id TEXT NOT NULL REFERENCES dag (dag_id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    PRIMARY KEY (dag_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX dag_tag_name ON dag_tag (name);

CREATE TABLE dag_run (
    id INTEGER NOT NULL PRIMARY KEY,
    uuid TEXT NOT NULL,
    dag_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    version TEXT NOT NULL REFERENCES dag_version (uuid),
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'success', 'failed')),
    run_type TEXT NOT NULL CHECK (run_type IN ('manual', 'scheduled', 'backfill', 'asset_triggered')),
    logical_date INTEGER,
    data_interval_start INTEGER,
    data_interval_end INTEGER,
    run_after INTEGER NOT NULL,
    queued_at INTEGER NOT NULL,
    start_date INTEGER,
    end_date INTEGER,
    conf TEXT NOT NULL,
    params TEXT NOT NULL,
    note TEXT,
    triggering_user TEXT,
    set_aside TEXT,
    -- A JSON list of what the success of the run hides; null is nothing.
    hidden_failures TEXT,
    -- The task instance that triggered the run. Its names stay when its run is deleted.
    parent_run INTEGER,
    parent_dag_id TEXT,
    parent_run_id TEXT,
    parent_task INTEGER,
    parent_task_id TEXT,
    parent_map_index INTEGER,
    parent_dispatch INTEGER,
    depth INTEGER,
    updated_at INTEGER NOT NULL,
    UNIQUE (dag_id, run_id)
) STRICT;
CREATE UNIQUE INDEX dag_run_logical_date ON dag_run (dag_id, logical_date) WHERE logical_date IS NOT NULL;
CREATE INDEX dag_run_run_after ON dag_run (dag_id, run_after);
CREATE INDEX dag_run_active ON dag_run (id) WHERE state IN ('queued', 'running');
CREATE INDEX dag_run_parent ON dag_run (parent_run) WHERE parent_run IS NOT NULL;
CREATE INDEX dag_run_version ON dag_run (version);

-- The tables below belong to a run and are deleted with it, explicitly: a foreign key would cost a look-up for each row of a tick.
CREATE TABLE task_instance (
    dag_run INTEGER NOT NULL,
    task_index INTEGER NOT NULL,
    map_index INTEGER NOT NULL,
    task_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('no_status', 'scheduled', 'queued', 'running', 'success', 'failed', 'up_for_retry',
        'up_for_reschedule', 'upstream_failed', 'skipped', 'deferred', 'awaiting_input', 'restarting', 'removed')),
    try_number INTEGER NOT NULL,
    max_tries INTEGER NOT NULL,
    dispatch INTEGER NOT NULL,
    infra_losses INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL,
    cause TEXT,
    message TEXT,
    code TEXT,
    details TEXT,
    scheduled_at INTEGER,
    queued_at INTEGER,
    start_date INTEGER,
    end_date INTEGER,
    next_at INTEGER,
    retry_rule INTEGER,
    raised_memory_kib INTEGER,
    cpu_us INTEGER,
    peak_memory_bytes INTEGER,
    log_bytes INTEGER,
    facts TEXT,
    rendered_map_index TEXT,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (dag_run, task_index, map_index)
) STRICT, WITHOUT ROWID;

-- The tries that ended, as they were when they ended.
CREATE TABLE task_instance_try (
    dag_run INTEGER NOT NULL,
    task_index INTEGER NOT NULL,
    map_index INTEGER NOT NULL,
    try_number INTEGER NOT NULL,
    task_id TEXT NOT NULL,
    state TEXT NOT NULL,
    max_tries INTEGER NOT NULL,
    dispatch INTEGER NOT NULL,
    infra_losses INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL,
    cause TEXT,
    message TEXT,
    code TEXT,
    details TEXT,
    scheduled_at INTEGER,
    queued_at INTEGER,
    start_date INTEGER,
    end_date INTEGER,
    next_at INTEGER,
    retry_rule INTEGER,
    raised_memory_kib INTEGER,
    cpu_us INTEGER,
    peak_memory_bytes INTEGER,
    log_bytes INTEGER,
    facts TEXT,
    rendered_map_index TEXT,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (dag_run, task_index, map_index, try_number)
) STRICT, WITHOUT ROWID;

-- Questions to people, one for each try that asked. What can be answered is in the DAG version.
CREATE TABLE hitl_detail (
    dag_run INTEGER NOT NULL,
    task_index INTEGER NOT NULL,
    map_index INTEGER NOT NULL,
    try_number INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    subject TEXT NOT NULL,
    body TEXT,
    responded_at INTEGER,
    responded_by TEXT,
    chosen_options TEXT,
    params_input TEXT,
    PRIMARY KEY (dag_run, task_index, map_index, try_number)
) STRICT, WITHOUT ROWID;

CREATE TABLE callback (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    dag_run INTEGER NOT NULL,
    task_index INTEGER,
    task_id TEXT,
    map_index INTEGER NOT NULL,
    try_number INTEGER,
    ordinal INTEGER NOT NULL,
    event TEXT NOT NULL CHECK (event IN ('on_success', 'on_failure', 'on_retry', 'on_skipped')),
    kind TEXT NOT NULL CHECK (kind IN ('task', 'notification')),
    name TEXT NOT NULL,
    level TEXT CHECK (level IN ('info', 'warning', 'error')),
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'success', 'failed')),
    attempt INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    next_at INTEGER,
    started_at INTEGER,
    ended_at INTEGER,
    cause TEXT,
    code TEXT,
    message TEXT,
    text TEXT,
    facts TEXT NOT NULL,
    standing TEXT
) STRICT;
CREATE INDEX callback_run ON callback (dag_run, id);
CREATE INDEX callback_left ON callback (id) WHERE state IN ('queued', 'running');
CREATE INDEX callback_notification ON callback (id) WHERE kind = 'notification';
-- What people noted about task instances; the last note stays.
CREATE TABLE task_instance_note (
    dag_run INTEGER NOT NULL,
    task_index INTEGER NOT NULL,
    map_index INTEGER NOT NULL,
    content TEXT NOT NULL,
    user_name TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (dag_run, task_index, map_index)
) STRICT, WITHOUT ROWID;

CREATE TABLE xcom (
    dag_run INTEGER NOT NULL,
    task_index INTEGER NOT NULL,
    map_index INTEGER NOT NULL,
    key TEXT NOT NULL,
    at INTEGER NOT NULL,
    blob_count INTEGER NOT NULL,
    -- Of the value, so that nobody has to read it to know.
    bytes INTEGER NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (dag_run, task_index, map_index, key)
) STRICT, WITHOUT ROWID;

-- One row for each reference to a blob in an XCom, so that no sweep ever parses JSON.
CREATE TABLE blob_ref (
    dag_run INTEGER NOT NULL,
    task_index INTEGER NOT NULL,
    map_index INTEGER NOT NULL,
    key TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    media_type TEXT,
    PRIMARY KEY (dag_run, task_index, map_index, key, ordinal)
) STRICT, WITHOUT ROWID;
CREATE INDEX blob_ref_digest ON blob_ref (digest);

CREATE TABLE checkpoint (
    dag_run INTEGER NOT NULL,
    task_index INTEGER NOT NULL,
    map_index INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (dag_run, task_index, map_index)
) STRICT, WITHOUT ROWID;

-- One row for each blob that a checkpoint refers to. A new try deletes the XComs and keeps the checkpoint, so these are apart.
CREATE TABLE checkpoint_blob_ref (
    dag_run INTEGER NOT NULL,
    task_index INTEGER NOT NULL,
    map_index INTEGER NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (dag_run, task_index, map_index, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX checkpoint_blob_ref_digest ON checkpoint_blob_ref (digest);

-- What was promised and takes more than one tick. The payload says what to do, as JSON.
CREATE TABLE intent (
    id TEXT NOT NULL PRIMARY KEY,
    dag_id TEXT NOT NULL,
    user_name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('clear', 'set_state', 'delete_runs', 'delete_dag')),
    payload TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- How far it is: the runs that it has still to deal with. Each leaves in the transaction that deals with it.
CREATE TABLE intent_run (
    dag_run INTEGER NOT NULL,
    intent TEXT NOT NULL,
    PRIMARY KEY (dag_run, intent)
) STRICT, WITHOUT ROWID;

CREATE TABLE component (
    digest TEXT NOT NULL PRIMARY KEY,
    size INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('compiling', 'ready', 'refused')),
    refusal_code TEXT,
    refusal_message TEXT,
    capabilities TEXT NOT NULL,
    imports TEXT NOT NULL,
    descriptor TEXT,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX component_created_at ON component (created_at);
CREATE INDEX component_compiling ON component (digest) WHERE state = 'compiling';

-- Tags are immutable: a deleted tag stays as a row with `deleted = 1` and keeps naming its content.
CREATE TABLE component_tag (
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    deleted INTEGER NOT NULL CHECK (deleted IN (0, 1)),
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX component_tag_digest ON component_tag (digest);

-- `used` is what the dispatched task instances hold, kept by the ticks and counted anew by each scheduler that takes over. A tick
-- that would take more than there is tries to set it to -1, so that `slot_pool_used` ends its transaction.
CREATE TABLE slot_pool (
    name TEXT NOT NULL PRIMARY KEY,
    slots INTEGER NOT NULL,
    description TEXT,
    include_deferred INTEGER NOT NULL CHECK (include_deferred IN (0, 1)),
    used INTEGER NOT NULL CONSTRAINT slot_pool_used CHECK (used >= 0)
) STRICT, WITHOUT ROWID;
INSERT INTO slot_pool (name, slots, description, include_deferred, used) VALUES ('default_pool', 128, 'Default pool', 0, 0);

CREATE TABLE audit_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    user_name TEXT NOT NULL,
    dag_id TEXT,
    run_id TEXT,
    task_id TEXT,
    extra TEXT
) STRICT;
CREATE INDEX audit_log_dag ON audit_log (dag_id, id);
