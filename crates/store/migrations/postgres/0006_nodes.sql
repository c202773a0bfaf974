-- What people did to nodes, and what was last seen of them. What a node should have is configuration.
CREATE TABLE nodes (
    name     TEXT COLLATE "C" PRIMARY KEY,
    cordoned BOOLEAN NOT NULL,
    -- By key; null takes away one of the configuration.
    labels   TEXT COLLATE "C" NOT NULL,
    -- By key and effect, such as `gpu:NoSchedule`; null takes away one of the configuration.
    taints   TEXT COLLATE "C" NOT NULL,
    seen     TEXT COLLATE "C",
    seen_at  BIGINT
);

-- The use of a node's devices over some minutes each; old ones go when one is written.
CREATE TABLE node_samples (
    node   TEXT COLLATE "C" NOT NULL,
    at     BIGINT NOT NULL,
    sample TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (node, at)
);
