-- What each namespace may hold of the nodes.
CREATE TABLE quotas (
    namespace TEXT COLLATE "C" PRIMARY KEY,
    -- Quotas of one cohort lend each other what they do not use.
    cohort    TEXT COLLATE "C",
    weight    BIGINT NOT NULL CHECK (weight > 0),
    -- Amounts by resource: what is its own, and how much beyond that may be borrowed.
    limits    TEXT COLLATE "C" NOT NULL,
    borrow    TEXT COLLATE "C" NOT NULL
);
