-- What was posted to listeners, and what became of it. Headers and bodies are sealed by those who write them: they hold
-- tokens and what people wrote.
CREATE TABLE deliveries (
    id           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event        TEXT COLLATE "C" NOT NULL,
    namespace    TEXT COLLATE "C" NOT NULL,
    listener     TEXT COLLATE "C" NOT NULL,
    received     BIGINT NOT NULL,
    source       TEXT COLLATE "C" NOT NULL,
    about        TEXT COLLATE "C" NOT NULL,
    bytes        BIGINT NOT NULL CHECK (bytes >= 0),
    sealed       TEXT COLLATE "C",
    state        TEXT COLLATE "C" NOT NULL CHECK (state IN ('waiting', 'done', 'refused', 'duplicate')),
    outcome      TEXT COLLATE "C" NOT NULL,
    again_of     BIGINT,
    duplicate_of BIGINT,
    settled      BIGINT
);
CREATE INDEX deliveries_waiting ON deliveries (id) WHERE state = 'waiting';
CREATE INDEX deliveries_of ON deliveries (namespace, listener, id);
CREATE INDEX deliveries_received ON deliveries (received);

-- By what a delivery that comes twice is known, for as long as it is.
CREATE TABLE replays (
    digest   TEXT COLLATE "C" PRIMARY KEY,
    delivery BIGINT NOT NULL,
    event    TEXT COLLATE "C" NOT NULL,
    until    BIGINT NOT NULL
);
CREATE INDEX replays_until ON replays (until);
