-- Machines that come for their work. One that was revoked stays, so that its name means nobody else in what is past.
CREATE TABLE workers (
    id         TEXT COLLATE "C" PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL,
    -- The digest of what it proves itself by.
    credential TEXT COLLATE "C" NOT NULL UNIQUE,
    -- What it told of itself.
    about      TEXT COLLATE "C" NOT NULL,
    drain      BOOLEAN NOT NULL,
    enrolled   BIGINT NOT NULL,
    revoked    BIGINT
);

CREATE UNIQUE INDEX workers_by_name ON workers (name) WHERE revoked IS NULL;

-- What a machine enrols with.
CREATE TABLE worker_tokens (
    id      TEXT COLLATE "C" PRIMARY KEY,
    hash    TEXT COLLATE "C" NOT NULL UNIQUE,
    -- The queues that its workers may serve; an empty list: any.
    queues  TEXT COLLATE "C" NOT NULL,
    made_by TEXT COLLATE "C" NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT,
    -- How many more workers may enrol with it; null: any number.
    uses    BIGINT CHECK (uses >= 0)
);
