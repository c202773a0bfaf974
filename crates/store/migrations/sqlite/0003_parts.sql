-- What is looked for by a part of its id is read from this, the newest first, without the rows themselves.
CREATE INDEX runs_id ON runs (key, run_id);
