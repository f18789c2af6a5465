-- When the executor of a dispatch was heard of last. A try that ends before its first heartbeat has no row.
CREATE TABLE task_instance_heartbeat (
    dag_run BIGINT NOT NULL,
    task_index BIGINT NOT NULL,
    map_index BIGINT NOT NULL,
    dispatch BIGINT NOT NULL,
    heartbeat_at BIGINT NOT NULL,
    PRIMARY KEY (dag_run, task_index, map_index)
);
