-- The first schema, as on SQLite. Text compares by bytes (`COLLATE "C"`), so that orders agree. Times are
-- microseconds since the Unix epoch, digests are `sha256:<hex>`, flags are 0 or 1.

-- Facts about the database itself.
CREATE TABLE meta (
    key TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);
INSERT INTO meta (key, value) VALUES ('application', 'airtight');

-- Who may schedule: always exactly one row. `epoch` rises with each holder and is checked under lock by every tick;
-- `tick_id` is the last tick that was committed, read back after an unknown outcome. A tick of a scheduler that no longer holds
-- the lease tries to set the epoch to -1, so that `scheduler_lease_held` ends its transaction in the same round trip.
CREATE TABLE scheduler_lease (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    scheduler_id TEXT COLLATE "C",
    epoch BIGINT NOT NULL CONSTRAINT scheduler_lease_held CHECK (epoch >= 0),
    acquired_at BIGINT NOT NULL,
    renewed_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    tick_id TEXT COLLATE "C"
);
INSERT INTO scheduler_lease (id, scheduler_id, epoch, acquired_at, renewed_at, expires_at) VALUES (1, NULL, 0, 0, 0, 0);

-- The next key of a dag run that nobody has reserved: always exactly one row.
CREATE TABLE run_key_counter (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    next_key BIGINT NOT NULL
);
INSERT INTO run_key_counter (id, next_key) VALUES (1, 1);

-- A DAG that is being deleted is listed nowhere, and neither is what belongs to it; an intent removes that over many ticks.
CREATE TABLE dag (
    dag_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    paused BIGINT NOT NULL CHECK (paused IN (0, 1)),
    -- Why, where the scheduler paused it.
    paused_reason TEXT COLLATE "C",
    current_version TEXT COLLATE "C" NOT NULL,
    owner TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleting BIGINT NOT NULL DEFAULT 0 CHECK (deleting IN (0, 1))
);

CREATE INDEX dag_deleting ON dag (dag_id) WHERE deleting = 1;

-- `dag` is the compiled version as JSON; `source` is the manifest as it was deployed.
CREATE TABLE dag_version (
    uuid TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    dag_id TEXT COLLATE "C" NOT NULL REFERENCES dag (dag_id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    dag TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (dag_id, number),
    UNIQUE (dag_id, digest)
);

ALTER TABLE dag ADD CONSTRAINT dag_current_version FOREIGN KEY (current_version) REFERENCES dag_version (uuid)
    DEFERRABLE INITIALLY DEFERRED;

-- What queries need of the tasks of a version without parsing it.
CREATE TABLE dag_version_task (
    version TEXT COLLATE "C" NOT NULL REFERENCES dag_version (uuid) ON DELETE CASCADE,
    task_index BIGINT NOT NULL,
    task_id TEXT COLLATE "C" NOT NULL,
    -- Both are missing where the task is a built-in step.
    component TEXT COLLATE "C",
    component_digest TEXT COLLATE "C",
    pool TEXT COLLATE "C" NOT NULL,
    pool_slots BIGINT NOT NULL,
    PRIMARY KEY (version, task_index)
);
CREATE INDEX dag_version_task_component ON dag_version_task (component_digest);

-- The tags of a DAG's current version.
CREATE TABLE dag_tag (
    dag_id TEXT COLLATE "C" NOT NULL REFERENCES dag (dag_id) ON DELETE CASCADE,
    name TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (dag_id, name)
);
CREATE INDEX dag_tag_name ON dag_tag (name);

CREATE TABLE dag_run (
    id BIGINT NOT NULL PRIMARY KEY,
    uuid TEXT COLLATE "C" NOT NULL,
    dag_id TEXT COLLATE "C" NOT NULL,
    run_id TEXT COLLATE "C" NOT NULL,
    version TEXT COLLATE "C" NOT NULL REFERENCES dag_version (uuid),
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('queued', 'running', 'success', 'failed')),
    run_type TEXT COLLATE "C" NOT NULL CHECK (run_type IN ('manual', 'scheduled', 'backfill', 'asset_triggered')),
    logical_date BIGINT,
    data_interval_start BIGINT,
    data_interval_end BIGINT,
    run_after BIGINT NOT NULL,
    queued_at BIGINT NOT NULL,
    start_date BIGINT,
    end_date BIGINT,
    conf TEXT COLLATE "C" NOT NULL,
    params TEXT COLLATE "C" NOT NULL,
    note TEXT COLLATE "C",
    triggering_user TEXT COLLATE "C",
    set_aside TEXT COLLATE "C",
    -- A JSON list of what the success of the run hides; null is nothing.
    hidden_failures TEXT COLLATE "C",
    -- The task instance that triggered the run. Its names stay when its run is deleted.
    parent_run BIGINT,
    parent_dag_id TEXT COLLATE "C",
    parent_run_id TEXT COLLATE "C",
    parent_task BIGINT,
    parent_task_id TEXT COLLATE "C",
    parent_map_index BIGINT,
    parent_dispatch BIGINT,
    depth BIGINT,
    updated_at BIGINT NOT NULL,
    UNIQUE (dag_id, run_id)
);
CREATE UNIQUE INDEX dag_run_logical_date ON dag_run (dag_id, logical_date) WHERE logical_date IS NOT NULL;
CREATE INDEX dag_run_run_after ON dag_run (dag_id, run_after);
CREATE INDEX dag_run_active ON dag_run (id) WHERE state IN ('queued', 'running');
CREATE INDEX dag_run_parent ON dag_run (parent_run) WHERE parent_run IS NOT NULL;
CREATE INDEX dag_run_version ON dag_run (version);

-- The tables below belong to a run and are deleted with it, explicitly: a foreign key would cost a look-up for each row of a tick.
CREATE TABLE task_instance (
    dag_run BIGINT NOT NULL,
    task_index BIGINT NOT NULL,
    map_index BIGINT NOT NULL,
    task_id TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('no_status', 'scheduled', 'queued', 'running', 'success', 'failed', 'up_for_retry',
        'up_for_reschedule', 'upstream_failed', 'skipped', 'deferred', 'awaiting_input', 'restarting', 'removed')),
    try_number BIGINT NOT NULL,
    max_tries BIGINT NOT NULL,
    dispatch BIGINT NOT NULL,
    infra_losses BIGINT NOT NULL,
    acknowledged BIGINT NOT NULL,
    cause TEXT COLLATE "C",
    message TEXT COLLATE "C",
    code TEXT COLLATE "C",
    details TEXT COLLATE "C",
    scheduled_at BIGINT,
    queued_at BIGINT,
    start_date BIGINT,
    end_date BIGINT,
    next_at BIGINT,
    retry_rule BIGINT,
    raised_memory_kib BIGINT,
    cpu_us BIGINT,
    peak_memory_bytes BIGINT,
    log_bytes BIGINT,
    facts TEXT COLLATE "C",
    rendered_map_index TEXT,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (dag_run, task_index, map_index)
) WITH (fillfactor = 70);

-- The tries that ended, as they were when they ended.
CREATE TABLE task_instance_try (
    dag_run BIGINT NOT NULL,
    task_index BIGINT NOT NULL,
    map_index BIGINT NOT NULL,
    try_number BIGINT NOT NULL,
    task_id TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    max_tries BIGINT NOT NULL,
    dispatch BIGINT NOT NULL,
    infra_losses BIGINT NOT NULL,
    acknowledged BIGINT NOT NULL,
    cause TEXT COLLATE "C",
    message TEXT COLLATE "C",
    code TEXT COLLATE "C",
    details TEXT COLLATE "C",
    scheduled_at BIGINT,
    queued_at BIGINT,
    start_date BIGINT,
    end_date BIGINT,
    next_at BIGINT,
    retry_rule BIGINT,
    raised_memory_kib BIGINT,
    cpu_us BIGINT,
    peak_memory_bytes BIGINT,
    log_bytes BIGINT,
    facts TEXT COLLATE "C",
    rendered_map_index TEXT,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (dag_run, task_index, map_index, try_number)
);

-- Questions to people, one for each try that asked. What can be answered is in the DAG version.
CREATE TABLE hitl_detail (
    dag_run BIGINT NOT NULL,
    task_index BIGINT NOT NULL,
    map_index BIGINT NOT NULL,
    try_number BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    subject TEXT NOT NULL,
    body TEXT,
    responded_at BIGINT,
    responded_by TEXT COLLATE "C",
    chosen_options TEXT,
    params_input TEXT,
    PRIMARY KEY (dag_run, task_index, map_index, try_number)
);

CREATE TABLE callback (
    id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    dag_run BIGINT NOT NULL,
    task_index BIGINT,
    task_id TEXT COLLATE "C",
    map_index BIGINT NOT NULL,
    try_number BIGINT,
    ordinal BIGINT NOT NULL,
    event TEXT COLLATE "C" NOT NULL CHECK (event IN ('on_success', 'on_failure', 'on_retry', 'on_skipped')),
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('task', 'notification')),
    name TEXT NOT NULL,
    level TEXT COLLATE "C" CHECK (level IN ('info', 'warning', 'error')),
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('queued', 'running', 'success', 'failed')),
    attempt BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    next_at BIGINT,
    started_at BIGINT,
    ended_at BIGINT,
    cause TEXT,
    code TEXT,
    message TEXT,
    text TEXT,
    facts TEXT NOT NULL,
    standing TEXT
);
CREATE INDEX callback_run ON callback (dag_run, id);
CREATE INDEX callback_left ON callback (id) WHERE state IN ('queued', 'running');
CREATE INDEX callback_notification ON callback (id) WHERE kind = 'notification';
-- What people noted about task instances; the last note stays.
CREATE TABLE task_instance_note (
    dag_run BIGINT NOT NULL,
    task_index BIGINT NOT NULL,
    map_index BIGINT NOT NULL,
    content TEXT NOT NULL,
    user_name TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (dag_run, task_index, map_index)
);

CREATE TABLE xcom (
    dag_run BIGINT NOT NULL,
    task_index BIGINT NOT NULL,
    map_index BIGINT NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    blob_count BIGINT NOT NULL,
    -- Of the value, so that nobody has to read it to know.
    bytes BIGINT NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (dag_run, task_index, map_index, key)
);

-- One row for each reference to a blob in an XCom, so that no sweep ever parses JSON.
CREATE TABLE blob_ref (
    dag_run BIGINT NOT NULL,
    task_index BIGINT NOT NULL,
    map_index BIGINT NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    ordinal BIGINT NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    size BIGINT NOT NULL,
    media_type TEXT COLLATE "C",
    PRIMARY KEY (dag_run, task_index, map_index, key, ordinal)
);
CREATE INDEX blob_ref_digest ON blob_ref (digest);

CREATE TABLE checkpoint (
    dag_run BIGINT NOT NULL,
    task_index BIGINT NOT NULL,
    map_index BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    bytes BYTEA NOT NULL,
    PRIMARY KEY (dag_run, task_index, map_index)
);

-- One row for each blob that a checkpoint refers to. A new try deletes the XComs and keeps the checkpoint, so these are apart.
CREATE TABLE checkpoint_blob_ref (
    dag_run BIGINT NOT NULL,
    task_index BIGINT NOT NULL,
    map_index BIGINT NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (dag_run, task_index, map_index, digest)
);
CREATE INDEX checkpoint_blob_ref_digest ON checkpoint_blob_ref (digest);

-- What was promised and takes more than one tick. The payload says what to do, as JSON.
CREATE TABLE intent (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    dag_id TEXT COLLATE "C" NOT NULL,
    user_name TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('clear', 'set_state', 'delete_runs', 'delete_dag')),
    payload TEXT COLLATE "C" NOT NULL
);

-- How far it is: the runs that it has still to deal with. Each leaves in the transaction that deals with it.
CREATE TABLE intent_run (
    dag_run BIGINT NOT NULL,
    intent TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (dag_run, intent)
);

CREATE TABLE component (
    digest TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    size BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('compiling', 'ready', 'refused')),
    refusal_code TEXT COLLATE "C",
    refusal_message TEXT COLLATE "C",
    capabilities TEXT COLLATE "C" NOT NULL,
    imports TEXT COLLATE "C" NOT NULL,
    descriptor TEXT COLLATE "C",
    created_at BIGINT NOT NULL
);
CREATE INDEX component_created_at ON component (created_at);
CREATE INDEX component_compiling ON component (digest) WHERE state = 'compiling';

-- Tags are immutable: a deleted tag stays as a row with `deleted = 1` and keeps naming its content.
CREATE TABLE component_tag (
    name TEXT COLLATE "C" NOT NULL,
    version TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    deleted BIGINT NOT NULL CHECK (deleted IN (0, 1)),
    PRIMARY KEY (name, version)
);
CREATE INDEX component_tag_digest ON component_tag (digest);

-- `used` is what the dispatched task instances hold, kept by the ticks and counted anew by each scheduler that takes over. A tick
-- that would take more than there is tries to set it to -1, so that `slot_pool_used` ends its transaction.
CREATE TABLE slot_pool (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    slots BIGINT NOT NULL,
    description TEXT COLLATE "C",
    include_deferred BIGINT NOT NULL CHECK (include_deferred IN (0, 1)),
    used BIGINT NOT NULL CONSTRAINT slot_pool_used CHECK (used >= 0)
);
INSERT INTO slot_pool (name, slots, description, include_deferred, used) VALUES ('default_pool', 128, 'Default pool', 0, 0);

CREATE TABLE audit_log (
    id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    at BIGINT NOT NULL,
    event TEXT COLLATE "C" NOT NULL,
    user_name TEXT COLLATE "C" NOT NULL,
    dag_id TEXT COLLATE "C",
    run_id TEXT COLLATE "C",
    task_id TEXT COLLATE "C",
    extra TEXT COLLATE "C"
);
CREATE INDEX audit_log_dag ON audit_log (dag_id, id);
