-- What the second schema may hold beside the first.

INSERT INTO users (name, role, password, full_name, email, active, subject, epoch, created, last_login) VALUES
    ('ada', 'admin', '$argon2id$v=19$m=1,t=1,p=1$c2FsdA$aGFzaA', 'Ada L.', 'ada@example.com', TRUE, NULL, 3,
        1700000000000000, 1700000000000001),
    ('bot', 'viewer', NULL, '', '', FALSE, 'https://id.example.com bot', 0, 1700000000000000, NULL);
INSERT INTO tokens (id, user_name, name, hash, role, workflows, created, expires, last_used) VALUES
    ('t1', 'ada', 'ci', 'abc', 'user', '["etl"]', 1700000000000000, 1800000000000000, NULL);
INSERT INTO connections (id, conn_type, description, host, db_schema, login, port, password, extra) VALUES
    ('warehouse', 'postgres', '', 'db', 'public', 'loader', 5432, 'sealed', NULL);
INSERT INTO notices (dedupe, channel, event, workflow, run, body, created, due) VALUES
    ('run.failed 1 slack', 'slack', 'run.failed', 'etl', 1, '{"text":"boom"}', 1700000000000000, 1700000000000005);
INSERT INTO backfills (workflow, from_date, to_date, reprocess, reversed, max_active_runs, conf, made_by, created,
    updated) VALUES ('etl', 1690000000000000, 1700000000000000, 'failed', FALSE, 2, '{}', 'ada', 1700000000000000,
    1700000000000000);
UPDATE runs SET backfill = 1 WHERE key = 1;
