-- Users, their tokens, connections, the outbox, backfills, and indices for questions over many runs.

CREATE TABLE users (
    name       TEXT PRIMARY KEY,
    role       TEXT NOT NULL CHECK (role IN ('viewer', 'user', 'op', 'admin')),
    password   TEXT,
    full_name  TEXT NOT NULL,
    email      TEXT NOT NULL,
    active     INTEGER NOT NULL CHECK (active IN (0, 1)),
    subject    TEXT UNIQUE,
    epoch      INTEGER NOT NULL,
    created    INTEGER NOT NULL,
    last_login INTEGER
) STRICT;

-- Only the hash of a token is known.
CREATE TABLE tokens (
    id        TEXT PRIMARY KEY,
    user_name TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    name      TEXT NOT NULL,
    hash      TEXT NOT NULL UNIQUE,
    role      TEXT NOT NULL CHECK (role IN ('viewer', 'user', 'op', 'admin')),
    workflows TEXT NOT NULL,
    created   INTEGER NOT NULL,
    expires   INTEGER,
    last_used INTEGER
) STRICT;

CREATE INDEX tokens_user ON tokens (user_name, id);

-- password and extra are sealed by those who write them.
CREATE TABLE connections (
    id          TEXT PRIMARY KEY,
    conn_type   TEXT NOT NULL,
    description TEXT NOT NULL,
    host        TEXT NOT NULL,
    db_schema   TEXT NOT NULL,
    login       TEXT NOT NULL,
    port        INTEGER CHECK (port BETWEEN 0 AND 65535),
    password    TEXT,
    extra       TEXT
) STRICT;

-- The outbox.
CREATE TABLE notices (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    dedupe      TEXT NOT NULL UNIQUE,
    channel     TEXT NOT NULL,
    event       TEXT NOT NULL,
    workflow    TEXT,
    run         INTEGER,
    body        TEXT NOT NULL,
    created     INTEGER NOT NULL,
    state       TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'failed', 'merged')),
    due         INTEGER NOT NULL,
    tries       INTEGER NOT NULL DEFAULT 0,
    error       TEXT NOT NULL DEFAULT '',
    sent        INTEGER,
    merged_into INTEGER
) STRICT;

CREATE INDEX notices_due ON notices (due, id) WHERE state = 'waiting';
CREATE INDEX notices_state ON notices (state, id);
CREATE INDEX notices_channel ON notices (channel, id);
CREATE INDEX notices_workflow ON notices (workflow, id);
CREATE INDEX notices_created ON notices (created);

CREATE TABLE backfills (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    workflow        TEXT NOT NULL,
    from_date       INTEGER NOT NULL,
    to_date         INTEGER NOT NULL,
    reprocess       TEXT NOT NULL CHECK (reprocess IN ('none', 'failed', 'completed')),
    reversed        INTEGER NOT NULL CHECK (reversed IN (0, 1)),
    max_active_runs INTEGER NOT NULL CHECK (max_active_runs >= 1),
    conf            TEXT NOT NULL,
    made_by         TEXT NOT NULL,
    created         INTEGER NOT NULL,
    is_paused       INTEGER NOT NULL DEFAULT FALSE CHECK (is_paused IN (0, 1)),
    planned         INTEGER NOT NULL DEFAULT FALSE CHECK (planned IN (0, 1)),
    cancelled       INTEGER NOT NULL DEFAULT FALSE CHECK (cancelled IN (0, 1)),
    completed       INTEGER,
    updated         INTEGER NOT NULL,
    CHECK (from_date <= to_date)
) STRICT;

-- A workflow has one backfill at a time that makes or begins runs.
CREATE UNIQUE INDEX backfills_open ON backfills (workflow) WHERE completed IS NULL AND NOT cancelled;
CREATE INDEX backfills_workflow ON backfills (workflow, id);
CREATE INDEX backfills_completed ON backfills (completed, id);

ALTER TABLE runs ADD COLUMN backfill INTEGER;
CREATE INDEX runs_backfill ON runs (backfill, state, key) WHERE backfill IS NOT NULL;
CREATE INDEX runs_type ON runs (run_type, key);
CREATE INDEX runs_after ON runs (run_after, state);
CREATE INDEX runs_workflow_after ON runs (workflow, run_after, state);
CREATE INDEX runs_date ON runs (logical_date, key);
CREATE INDEX runs_state_started ON runs (state, started);
CREATE INDEX runs_state_ended ON runs (state, ended);
CREATE INDEX instances_of_state ON instances (state, run, task, map_index);
CREATE INDEX instances_started ON instances (state, started);
CREATE INDEX instances_ended ON instances (state, ended);
CREATE INDEX attempts_gpus ON attempts (ended) WHERE gpus IS NOT NULL;
CREATE INDEX audit_who ON audit (who, id);
