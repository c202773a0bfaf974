-- What recovery knows of the fleet, of nodes and of jobs; rows that are replaced as a whole.
CREATE TABLE recovery (
    -- `fleet`, `node` or `job`
    kind TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    body TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (kind, name)
);

-- Every trouble of a node, from its first signal to its end; those that are over are history.
CREATE TABLE incidents (
    id     BIGINT PRIMARY KEY,
    node   TEXT COLLATE "C" NOT NULL,
    opened BIGINT NOT NULL,
    closed BIGINT,
    body   TEXT COLLATE "C" NOT NULL
);
CREATE INDEX incidents_of_node ON incidents (node, id);
CREATE INDEX incidents_open ON incidents (id) WHERE closed IS NULL;
