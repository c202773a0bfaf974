-- Objects as Kubernetes has them: what was applied, and the runs that have a name there. What is secret of one is sealed
-- by those who write it.
CREATE TABLE objects (
    kind       TEXT COLLATE "C" NOT NULL,
    namespace  TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    uid        TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL CHECK (generation >= 1),
    doc        TEXT COLLATE "C" NOT NULL,
    sealed     TEXT COLLATE "C",
    run        BIGINT,
    created    BIGINT NOT NULL,
    changed    BIGINT NOT NULL,
    PRIMARY KEY (kind, namespace, name)
);
CREATE INDEX objects_by_run ON objects (run) WHERE run IS NOT NULL;
