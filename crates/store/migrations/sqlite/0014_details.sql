-- What languages beside the native one ask for: when the `finally` tasks of a run began, why an instance was skipped, and
-- what became of each container of an attempt.
ALTER TABLE runs ADD COLUMN finally_start INTEGER;
ALTER TABLE instances ADD COLUMN skip TEXT;
ALTER TABLE attempts ADD COLUMN detail TEXT;
