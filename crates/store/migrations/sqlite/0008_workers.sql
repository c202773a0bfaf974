-- Machines that come for their work. One that was revoked stays, so that its name means nobody else in what is past.
CREATE TABLE workers (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    -- The digest of what it proves itself by.
    credential TEXT NOT NULL UNIQUE,
    -- What it told of itself.
    about      TEXT NOT NULL,
    drain      INTEGER NOT NULL CHECK (drain IN (0, 1)),
    enrolled   INTEGER NOT NULL,
    revoked    INTEGER
) STRICT;

CREATE UNIQUE INDEX workers_by_name ON workers (name) WHERE revoked IS NULL;

-- What a machine enrols with.
CREATE TABLE worker_tokens (
    id      TEXT PRIMARY KEY,
    hash    TEXT NOT NULL UNIQUE,
    -- The queues that its workers may serve; an empty list: any.
    queues  TEXT NOT NULL,
    made_by TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER,
    -- How many more workers may enrol with it; null: any number.
    uses    INTEGER CHECK (uses >= 0)
) STRICT;
