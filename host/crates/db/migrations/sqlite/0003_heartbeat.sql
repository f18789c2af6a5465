-- When the executor of a dispatch was heard of last. A try that ends before its first heartbeat has no row.
CREATE TABLE task_instance_heartbeat (
    dag_run INTEGER NOT NULL,
    task_index INTEGER NOT NULL,
    map_index INTEGER NOT NULL,
    dispatch INTEGER NOT NULL,
    heartbeat_at INTEGER NOT NULL,
    PRIMARY KEY (dag_run, task_index, map_index)
) STRICT, WITHOUT ROWID;
