-- Secrets under names. The value is sealed by those who write it.
CREATE TABLE secrets (
    name     TEXT COLLATE "C" PRIMARY KEY,
    value    TEXT COLLATE "C" NOT NULL,
    revision BIGINT NOT NULL CHECK (revision >= 1),
    updated  BIGINT NOT NULL
);

-- Runs may also come from an event of another service.
ALTER TABLE runs DROP CONSTRAINT runs_run_type_check;
ALTER TABLE runs ADD CONSTRAINT runs_run_type_check CHECK (run_type IN ('manual', 'scheduled', 'backfill', 'event'));
