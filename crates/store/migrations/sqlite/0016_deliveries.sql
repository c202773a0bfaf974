-- What was posted to listeners, and what became of it. Headers and bodies are sealed by those who write them: they hold
-- tokens and what people wrote.
CREATE TABLE deliveries (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    event        TEXT NOT NULL,
    namespace    TEXT NOT NULL,
    listener     TEXT NOT NULL,
    received     INTEGER NOT NULL,
    source       TEXT NOT NULL,
    about        TEXT NOT NULL,
    bytes        INTEGER NOT NULL CHECK (bytes >= 0),
    sealed       TEXT,
    state        TEXT NOT NULL CHECK (state IN ('waiting', 'done', 'refused', 'duplicate')),
    outcome      TEXT NOT NULL,
    again_of     INTEGER,
    duplicate_of INTEGER,
    settled      INTEGER
) STRICT;
CREATE INDEX deliveries_waiting ON deliveries (id) WHERE state = 'waiting';
CREATE INDEX deliveries_of ON deliveries (namespace, listener, id);
CREATE INDEX deliveries_received ON deliveries (received);

-- By what a delivery that comes twice is known, for as long as it is.
CREATE TABLE replays (
    digest   TEXT PRIMARY KEY,
    delivery INTEGER NOT NULL,
    event    TEXT NOT NULL,
    until    INTEGER NOT NULL
) STRICT;
CREATE INDEX replays_until ON replays (until);
