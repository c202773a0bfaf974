INSERT INTO secrets (name, value, revision, updated) VALUES ('gpu/ssh', 'v1:sealed', 2, 1700000000000000);
UPDATE runs SET run_type = 'event' WHERE key = 2;
