-- What ended on each worker since it enrolled, by its id. Apart from `workers`, which is read often and changes seldom.
CREATE TABLE worker_ends (
    worker TEXT PRIMARY KEY,
    ended  INTEGER NOT NULL CHECK (ended >= 0),
    failed INTEGER NOT NULL CHECK (failed >= 0)
) STRICT, WITHOUT ROWID;

-- What ended on a node lately.
CREATE INDEX attempts_ended_on ON attempts (node, ended) WHERE node IS NOT NULL AND ended IS NOT NULL;
