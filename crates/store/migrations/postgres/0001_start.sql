-- Times are microseconds since 1970 UTC. JSON is text. Texts sort by
-- their bytes, as they do in SQLite and in memory. What may be left open is NULL.

CREATE TABLE workflows (
    id          TEXT COLLATE "C" PRIMARY KEY,
    path        TEXT COLLATE "C" NOT NULL,
    version     TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C" NOT NULL,
    schedule    TEXT COLLATE "C",
    is_paused   BOOLEAN NOT NULL,
    active      BOOLEAN NOT NULL,
    next_run    BIGINT
);

CREATE TABLE workflow_tags (
    workflow TEXT COLLATE "C" NOT NULL,
    tag      TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (workflow, tag)
);

-- Every definition that a run may still need.
CREATE TABLE versions (
    workflow TEXT COLLATE "C" NOT NULL,
    hash     TEXT COLLATE "C" NOT NULL,
    source   TEXT COLLATE "C" NOT NULL,
    created  BIGINT NOT NULL,
    PRIMARY KEY (workflow, hash)
);

CREATE TABLE file_errors (
    path    TEXT COLLATE "C" PRIMARY KEY,
    message TEXT COLLATE "C" NOT NULL,
    at      BIGINT NOT NULL
);

-- A key is never used again, also not after retention removed its run.
CREATE TABLE runs (
    key            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workflow       TEXT COLLATE "C" NOT NULL,
    run_id         TEXT COLLATE "C" NOT NULL,
    run_type       TEXT COLLATE "C" NOT NULL CHECK (run_type IN ('manual', 'scheduled', 'backfill')),
    version        TEXT COLLATE "C" NOT NULL,
    params         TEXT COLLATE "C" NOT NULL,
    conf           TEXT COLLATE "C" NOT NULL,
    logical_date   BIGINT,
    interval_start BIGINT,
    interval_end   BIGINT,
    run_after      BIGINT NOT NULL,
    queued_at      BIGINT NOT NULL,
    triggered_by   TEXT COLLATE "C" NOT NULL,
    state          TEXT COLLATE "C" NOT NULL CHECK (state IN ('queued', 'running', 'success', 'failed', 'cancelled')),
    started        BIGINT,
    ended          BIGINT,
    stop           TEXT COLLATE "C",
    note           TEXT COLLATE "C" NOT NULL,
    -- The process that alone may write this run and its rows.
    owner          TEXT COLLATE "C",
    -- Counts how often it left a final state.
    reopened       BIGINT NOT NULL DEFAULT 0,
    UNIQUE (workflow, run_id),
    CHECK ((interval_start IS NULL) = (interval_end IS NULL))
);

CREATE UNIQUE INDEX runs_logical_date ON runs (workflow, logical_date) WHERE logical_date IS NOT NULL;
CREATE INDEX runs_workflow ON runs (workflow, key);
CREATE INDEX runs_workflow_state ON runs (workflow, state, key);
CREATE INDEX runs_state ON runs (state, key);
CREATE INDEX runs_started ON runs (started);
CREATE INDEX runs_ended ON runs (ended);
CREATE INDEX runs_version ON runs (workflow, version);

CREATE FUNCTION runs_stay_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a run leaves a final state only by being reopened' USING ERRCODE = 'PC001';
END
$$;

CREATE TRIGGER runs_final BEFORE UPDATE OF state ON runs FOR EACH ROW
WHEN (OLD.state IN ('success', 'failed', 'cancelled') AND NEW.state <> OLD.state AND NEW.reopened = OLD.reopened)
EXECUTE FUNCTION runs_stay_final();

CREATE TABLE instances (
    run         BIGINT NOT NULL,
    task        TEXT COLLATE "C" NOT NULL,
    map_index   BIGINT NOT NULL CHECK (map_index >= -1),
    state       TEXT COLLATE "C" NOT NULL CHECK (state IN ('none', 'scheduled', 'queued', 'running', 'success', 'failed',
                    'skipped', 'upstream_failed', 'up_for_retry', 'up_for_reschedule', 'deferred', 'recovering',
                    'removed')),
    wake_at     BIGINT,
    attempt     BIGINT NOT NULL CHECK (attempt >= 0),
    max_attempt BIGINT NOT NULL,
    lost        BIGINT NOT NULL,
    queued_at   BIGINT,
    started     BIGINT,
    ended       BIGINT,
    exit        TEXT COLLATE "C",
    message     TEXT COLLATE "C" NOT NULL,
    outputs     TEXT COLLATE "C",
    item        TEXT COLLATE "C",
    followed    TEXT COLLATE "C",
    stop        TEXT COLLATE "C",
    PRIMARY KEY (run, task, map_index),
    CHECK ((state IN ('up_for_retry', 'up_for_reschedule')) = (wake_at IS NOT NULL))
);

CREATE INDEX instances_state ON instances (run, state, task, map_index);

CREATE TABLE attempts (
    run       BIGINT NOT NULL,
    task      TEXT COLLATE "C" NOT NULL,
    map_index BIGINT NOT NULL,
    number    BIGINT NOT NULL CHECK (number >= 1),
    backend   TEXT COLLATE "C" NOT NULL,
    handle    TEXT COLLATE "C" NOT NULL,
    queued_at BIGINT NOT NULL,
    started   BIGINT,
    ended     BIGINT,
    exit      TEXT COLLATE "C",
    message   TEXT COLLATE "C" NOT NULL,
    gpus      TEXT COLLATE "C",
    usage     TEXT COLLATE "C",
    PRIMARY KEY (run, task, map_index, number)
);

-- At most one attempt of a task instance is live.
CREATE UNIQUE INDEX attempts_live ON attempts (run, task, map_index) WHERE exit IS NULL;

CREATE TABLE variables (
    key         TEXT COLLATE "C" PRIMARY KEY,
    value       TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C" NOT NULL
);

CREATE TABLE pools (
    name        TEXT COLLATE "C" PRIMARY KEY,
    slots       BIGINT NOT NULL CHECK (slots >= 0),
    description TEXT COLLATE "C" NOT NULL
);

INSERT INTO pools (name, slots, description) VALUES ('default_pool', 128, '');

CREATE TABLE audit (
    id       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       BIGINT NOT NULL,
    who      TEXT COLLATE "C" NOT NULL,
    event    TEXT COLLATE "C" NOT NULL,
    workflow TEXT COLLATE "C",
    run      TEXT COLLATE "C",
    task     TEXT COLLATE "C",
    detail   TEXT COLLATE "C"
);

CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_workflow ON audit (workflow, id);
CREATE INDEX audit_run ON audit (run, id);
CREATE INDEX audit_event ON audit (event, id);

CREATE TABLE settings (
    key   TEXT COLLATE "C" PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);

-- Runs whose row retention has deleted, until everything else of them is deleted as well.
CREATE TABLE removed_runs (
    key      BIGINT PRIMARY KEY,
    workflow TEXT COLLATE "C" NOT NULL,
    run_id   TEXT COLLATE "C" NOT NULL
);
