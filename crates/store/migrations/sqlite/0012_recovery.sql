-- What recovery knows of the fleet, of nodes and of jobs; rows that are replaced as a whole.
CREATE TABLE recovery (
    -- `fleet`, `node` or `job`
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

-- Every trouble of a node, from its first signal to its end; those that are over are history.
CREATE TABLE incidents (
    id     INTEGER PRIMARY KEY,
    node   TEXT NOT NULL,
    opened INTEGER NOT NULL,
    closed INTEGER,
    body   TEXT NOT NULL
) STRICT;
CREATE INDEX incidents_of_node ON incidents (node, id);
CREATE INDEX incidents_open ON incidents (id) WHERE closed IS NULL;
