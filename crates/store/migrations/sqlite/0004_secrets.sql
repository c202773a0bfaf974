-- Secrets under names. The value is sealed by those who write it.
CREATE TABLE secrets (
    name     TEXT PRIMARY KEY,
    value    TEXT NOT NULL,
    revision INTEGER NOT NULL CHECK (revision >= 1),
    updated  INTEGER NOT NULL
) STRICT;

-- Runs may also come from an event of another service. A check says nothing about the rows that are there, so only its
-- text changes: to make the table anew would delete what refers to it.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql, '(''manual'', ''scheduled'', ''backfill'')',
                                            '(''manual'', ''scheduled'', ''backfill'', ''event'')')
    WHERE type = 'table' AND name = 'runs';
PRAGMA writable_schema = RESET;
