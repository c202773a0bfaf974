-- What people did to nodes, and what was last seen of them. What a node should have is configuration.
CREATE TABLE nodes (
    name     TEXT PRIMARY KEY,
    cordoned INTEGER NOT NULL CHECK (cordoned IN (0, 1)),
    -- By key; null takes away one of the configuration.
    labels   TEXT NOT NULL,
    -- By key and effect, such as `gpu:NoSchedule`; null takes away one of the configuration.
    taints   TEXT NOT NULL,
    seen     TEXT,
    seen_at  INTEGER
) STRICT;

-- The use of a node's devices over some minutes each; old ones go when one is written.
CREATE TABLE node_samples (
    node   TEXT NOT NULL,
    at     INTEGER NOT NULL,
    sample TEXT NOT NULL,
    PRIMARY KEY (node, at)
) STRICT, WITHOUT ROWID;
