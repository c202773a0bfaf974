-- What each namespace may hold of the nodes.
CREATE TABLE quotas (
    namespace TEXT PRIMARY KEY,
    -- Quotas of one cohort lend each other what they do not use.
    cohort    TEXT,
    weight    INTEGER NOT NULL CHECK (weight > 0),
    -- Amounts by resource: what is its own, and how much beyond that may be borrowed.
    limits    TEXT NOT NULL,
    borrow    TEXT NOT NULL
) STRICT;
