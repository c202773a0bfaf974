-- Users, their tokens, connections, the outbox, backfills, and indices for questions over many runs.

CREATE TABLE users (
    name       TEXT COLLATE "C" PRIMARY KEY,
    role       TEXT COLLATE "C" NOT NULL CHECK (role IN ('viewer', 'user', 'op', 'admin')),
    password   TEXT COLLATE "C",
    full_name  TEXT COLLATE "C" NOT NULL,
    email      TEXT COLLATE "C" NOT NULL,
    active     BOOLEAN NOT NULL,
    subject    TEXT COLLATE "C" UNIQUE,
    epoch      BIGINT NOT NULL,
    created    BIGINT NOT NULL,
    last_login BIGINT
);

-- Only the hash of a token is known.
CREATE TABLE tokens (
    id        TEXT COLLATE "C" PRIMARY KEY,
    user_name TEXT COLLATE "C" NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    name      TEXT COLLATE "C" NOT NULL,
    hash      TEXT COLLATE "C" NOT NULL UNIQUE,
    role      TEXT COLLATE "C" NOT NULL CHECK (role IN ('viewer', 'user', 'op', 'admin')),
    workflows TEXT COLLATE "C" NOT NULL,
    created   BIGINT NOT NULL,
    expires   BIGINT,
    last_used BIGINT
);

CREATE INDEX tokens_user ON tokens (user_name, id);

-- password and extra are sealed by those who write them.
CREATE TABLE connections (
    id          TEXT COLLATE "C" PRIMARY KEY,
    conn_type   TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C" NOT NULL,
    host        TEXT COLLATE "C" NOT NULL,
    db_schema   TEXT COLLATE "C" NOT NULL,
    login       TEXT COLLATE "C" NOT NULL,
    port        BIGINT CHECK (port BETWEEN 0 AND 65535),
    password    TEXT COLLATE "C",
    extra       TEXT COLLATE "C"
);

-- The outbox.
CREATE TABLE notices (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dedupe      TEXT COLLATE "C" NOT NULL UNIQUE,
    channel     TEXT COLLATE "C" NOT NULL,
    event       TEXT COLLATE "C" NOT NULL,
    workflow    TEXT COLLATE "C",
    run         BIGINT,
    body        TEXT COLLATE "C" NOT NULL,
    created     BIGINT NOT NULL,
    state       TEXT COLLATE "C" NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'failed', 'merged')),
    due         BIGINT NOT NULL,
    tries       BIGINT NOT NULL DEFAULT 0,
    error       TEXT COLLATE "C" NOT NULL DEFAULT '',
    sent        BIGINT,
    merged_into BIGINT
);

CREATE INDEX notices_due ON notices (due, id) WHERE state = 'waiting';
CREATE INDEX notices_state ON notices (state, id);
CREATE INDEX notices_channel ON notices (channel, id);
CREATE INDEX notices_workflow ON notices (workflow, id);
CREATE INDEX notices_created ON notices (created);

CREATE TABLE backfills (
    id              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workflow        TEXT COLLATE "C" NOT NULL,
    from_date       BIGINT NOT NULL,
    to_date         BIGINT NOT NULL,
    reprocess       TEXT COLLATE "C" NOT NULL CHECK (reprocess IN ('none', 'failed', 'completed')),
    reversed        BOOLEAN NOT NULL,
    max_active_runs BIGINT NOT NULL CHECK (max_active_runs >= 1),
    conf            TEXT COLLATE "C" NOT NULL,
    made_by         TEXT COLLATE "C" NOT NULL,
    created         BIGINT NOT NULL,
    is_paused       BOOLEAN NOT NULL DEFAULT FALSE,
    planned         BOOLEAN NOT NULL DEFAULT FALSE,
    cancelled       BOOLEAN NOT NULL DEFAULT FALSE,
    completed       BIGINT,
    updated         BIGINT NOT NULL,
    CHECK (from_date <= to_date)
);

-- A workflow has one backfill at a time that makes or begins runs.
CREATE UNIQUE INDEX backfills_open ON backfills (workflow) WHERE completed IS NULL AND NOT cancelled;
CREATE INDEX backfills_workflow ON backfills (workflow, id);
CREATE INDEX backfills_completed ON backfills (completed, id);

ALTER TABLE runs ADD COLUMN backfill BIGINT;
CREATE INDEX runs_backfill ON runs (backfill, state, key) WHERE backfill IS NOT NULL;
CREATE INDEX runs_type ON runs (run_type, key);
CREATE INDEX runs_after ON runs (run_after, state);
CREATE INDEX runs_workflow_after ON runs (workflow, run_after, state);
CREATE INDEX runs_date ON runs (logical_date, key);
CREATE INDEX runs_state_started ON runs (state, started DESC NULLS LAST);
CREATE INDEX runs_state_ended ON runs (state, ended DESC NULLS LAST);
CREATE INDEX instances_of_state ON instances (state, run, task, map_index);
CREATE INDEX instances_started ON instances (state, started DESC NULLS LAST);
CREATE INDEX instances_ended ON instances (state, ended DESC NULLS LAST);
CREATE INDEX attempts_gpus ON attempts (ended) WHERE gpus IS NOT NULL;
CREATE INDEX audit_who ON audit (who, id);
