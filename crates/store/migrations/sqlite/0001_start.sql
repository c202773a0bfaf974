-- Times are microseconds since 1970 UTC. JSON is text. What may be left open is NULL.

CREATE TABLE workflows (
    id          TEXT PRIMARY KEY,
    path        TEXT NOT NULL,
    version     TEXT NOT NULL,
    description TEXT NOT NULL,
    schedule    TEXT,
    is_paused   INTEGER NOT NULL CHECK (is_paused IN (0, 1)),
    active      INTEGER NOT NULL CHECK (active IN (0, 1)),
    next_run    INTEGER
) STRICT;

CREATE TABLE workflow_tags (
    workflow TEXT NOT NULL,
    tag      TEXT NOT NULL,
    PRIMARY KEY (workflow, tag)
) STRICT, WITHOUT ROWID;

-- Every definition that a run may still need.
CREATE TABLE versions (
    workflow TEXT NOT NULL,
    hash     TEXT NOT NULL,
    source   TEXT NOT NULL,
    created  INTEGER NOT NULL,
    PRIMARY KEY (workflow, hash)
) STRICT;

CREATE TABLE file_errors (
    path    TEXT PRIMARY KEY,
    message TEXT NOT NULL,
    at      INTEGER NOT NULL
) STRICT;

-- AUTOINCREMENT: a key is never used again, also not after retention removed its run.
CREATE TABLE runs (
    key            INTEGER PRIMARY KEY AUTOINCREMENT,
    workflow       TEXT NOT NULL,
    run_id         TEXT NOT NULL,
    run_type       TEXT NOT NULL CHECK (run_type IN ('manual', 'scheduled', 'backfill')),
    version        TEXT NOT NULL,
    params         TEXT NOT NULL,
    conf           TEXT NOT NULL,
    logical_date   INTEGER,
    interval_start INTEGER,
    interval_end   INTEGER,
    run_after      INTEGER NOT NULL,
    queued_at      INTEGER NOT NULL,
    triggered_by   TEXT NOT NULL,
    state          TEXT NOT NULL CHECK (state IN ('queued', 'running', 'success', 'failed', 'cancelled')),
    started        INTEGER,
    ended          INTEGER,
    stop           TEXT,
    note           TEXT NOT NULL,
    -- The process that alone may write this run and its rows.
    owner          TEXT,
    -- Counts how often it left a final state.
    reopened       INTEGER NOT NULL DEFAULT 0,
    UNIQUE (workflow, run_id),
    CHECK ((interval_start IS NULL) = (interval_end IS NULL))
) STRICT;

CREATE UNIQUE INDEX runs_logical_date ON runs (workflow, logical_date) WHERE logical_date IS NOT NULL;
CREATE INDEX runs_workflow ON runs (workflow, key);
CREATE INDEX runs_workflow_state ON runs (workflow, state, key);
CREATE INDEX runs_state ON runs (state, key);
CREATE INDEX runs_started ON runs (started);
CREATE INDEX runs_ended ON runs (ended);
CREATE INDEX runs_version ON runs (workflow, version);

CREATE TRIGGER runs_final BEFORE UPDATE OF state ON runs
WHEN OLD.state IN ('success', 'failed', 'cancelled') AND NEW.state <> OLD.state AND NEW.reopened = OLD.reopened
BEGIN
    SELECT RAISE(ABORT, 'a run leaves a final state only by being reopened');
END;

CREATE TABLE instances (
    run         INTEGER NOT NULL,
    task        TEXT NOT NULL,
    map_index   INTEGER NOT NULL CHECK (map_index >= -1),
    state       TEXT NOT NULL CHECK (state IN ('none', 'scheduled', 'queued', 'running', 'success', 'failed',
                    'skipped', 'upstream_failed', 'up_for_retry', 'up_for_reschedule', 'deferred', 'recovering',
                    'removed')),
    wake_at     INTEGER,
    attempt     INTEGER NOT NULL CHECK (attempt >= 0),
    max_attempt INTEGER NOT NULL,
    lost        INTEGER NOT NULL,
    queued_at   INTEGER,
    started     INTEGER,
    ended       INTEGER,
    exit        TEXT,
    message     TEXT NOT NULL,
    outputs     TEXT,
    item        TEXT,
    followed    TEXT,
    stop        TEXT,
    PRIMARY KEY (run, task, map_index),
    CHECK ((state IN ('up_for_retry', 'up_for_reschedule')) = (wake_at IS NOT NULL))
) STRICT;

CREATE INDEX instances_state ON instances (run, state, task, map_index);

CREATE TABLE attempts (
    run       INTEGER NOT NULL,
    task      TEXT NOT NULL,
    map_index INTEGER NOT NULL,
    number    INTEGER NOT NULL CHECK (number >= 1),
    backend   TEXT NOT NULL,
    handle    TEXT NOT NULL,
    queued_at INTEGER NOT NULL,
    started   INTEGER,
    ended     INTEGER,
    exit      TEXT,
    message   TEXT NOT NULL,
    gpus      TEXT,
    usage     TEXT,
    PRIMARY KEY (run, task, map_index, number)
) STRICT, WITHOUT ROWID;

-- At most one attempt of a task instance is live.
CREATE UNIQUE INDEX attempts_live ON attempts (run, task, map_index) WHERE exit IS NULL;

CREATE TABLE variables (
    key         TEXT PRIMARY KEY,
    value       TEXT NOT NULL,
    description TEXT NOT NULL
) STRICT;

CREATE TABLE pools (
    name        TEXT PRIMARY KEY,
    slots       INTEGER NOT NULL CHECK (slots >= 0),
    description TEXT NOT NULL
) STRICT;

INSERT INTO pools (name, slots, description) VALUES ('default_pool', 128, '');

CREATE TABLE audit (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    who      TEXT NOT NULL,
    event    TEXT NOT NULL,
    workflow TEXT,
    run      TEXT,
    task     TEXT,
    detail   TEXT
) STRICT;

CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_workflow ON audit (workflow, id);
CREATE INDEX audit_run ON audit (run, id);
CREATE INDEX audit_event ON audit (event, id);

CREATE TABLE settings (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- Runs whose row retention has deleted, until everything else of them is deleted as well.
CREATE TABLE removed_runs (
    key      INTEGER PRIMARY KEY,
    workflow TEXT NOT NULL,
    run_id   TEXT NOT NULL
) STRICT;
