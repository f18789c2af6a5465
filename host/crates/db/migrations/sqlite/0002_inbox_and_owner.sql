-- What processes without the lease ask of the scheduler that has it. `settled` is set by the tick that does what a request asks for, so that
-- it is done once; the answer follows. Whoever asked removes the row with the answer, else the scheduler does after a while.
CREATE TABLE inbox (
    id TEXT NOT NULL PRIMARY KEY,
    asked_at INTEGER NOT NULL,
    request TEXT NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0 CHECK (settled IN (0, 1)),
    answered_at INTEGER,
    answer TEXT
) STRICT;
CREATE INDEX inbox_left ON inbox (id) WHERE answered_at IS NULL;
CREATE INDEX inbox_answered ON inbox (answered_at) WHERE answered_at IS NOT NULL;

-- The epoch of the scheduler that owns the run, or that owned it when it ended. Whoever takes the lease takes over the active runs.
ALTER TABLE dag_run ADD COLUMN owner_epoch INTEGER NOT NULL DEFAULT 0;
