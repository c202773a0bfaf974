-- Objects as Kubernetes has them: what was applied, and the runs that have a name there. What is secret of one is sealed
-- by those who write it.
CREATE TABLE objects (
    kind       TEXT NOT NULL,
    namespace  TEXT NOT NULL,
    name       TEXT NOT NULL,
    uid        TEXT NOT NULL,
    generation INTEGER NOT NULL CHECK (generation >= 1),
    doc        TEXT NOT NULL,
    sealed     TEXT,
    run        INTEGER,
    created    INTEGER NOT NULL,
    changed    INTEGER NOT NULL,
    PRIMARY KEY (kind, namespace, name)
) STRICT;
CREATE INDEX objects_by_run ON objects (run) WHERE run IS NOT NULL;
