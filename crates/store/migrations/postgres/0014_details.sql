-- What languages beside the native one ask for: when the `finally` tasks of a run began, why an instance was skipped, and
-- what became of each container of an attempt.
ALTER TABLE runs ADD COLUMN finally_start BIGINT;
ALTER TABLE instances ADD COLUMN skip TEXT COLLATE "C";
ALTER TABLE attempts ADD COLUMN detail TEXT COLLATE "C";
