-- What ended on each worker since it enrolled, by its id. Apart from `workers`, which is read often and changes seldom.
CREATE TABLE worker_ends (
    worker TEXT COLLATE "C" PRIMARY KEY,
    ended  BIGINT NOT NULL CHECK (ended >= 0),
    failed BIGINT NOT NULL CHECK (failed >= 0)
);

-- What ended on a node lately.
CREATE INDEX attempts_ended_on ON attempts (node, ended) WHERE node IS NOT NULL AND ended IS NOT NULL;
