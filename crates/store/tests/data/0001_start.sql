-- What the first schema may hold, for both databases: every table, and the columns that may be empty both ways.

INSERT INTO workflows (id, path, version, description, schedule, is_paused, active, next_run) VALUES
    ('etl', '/flows/etl.yaml', 'h2', 'Loads', '0 2 * * *', FALSE, TRUE, 1700000000000000),
    ('by-hand', '/flows/hand.yaml', 'h1', '', NULL, TRUE, FALSE, NULL);
INSERT INTO workflow_tags (workflow, tag) VALUES ('etl', 'gpu'), ('etl', 'ci');
INSERT INTO versions (workflow, hash, source, created) VALUES
    ('etl', 'h1', 'workflow: etl', 1690000000000000),
    ('etl', 'h2', 'workflow: etl # 2', 1700000000000000);
INSERT INTO file_errors (path, message, at) VALUES ('/flows/bad.yaml', 'no tasks', 1700000000000000);

INSERT INTO runs (workflow, run_id, run_type, version, params, conf, logical_date, interval_start, interval_end,
    run_after, queued_at, triggered_by, state, started, ended, stop, note, owner) VALUES
    ('etl', 'scheduled__2023-11-14T22:13:20+00:00', 'scheduled', 'h1', '{"n":1}', '{}', 1700000000000000,
        1699990000000000, 1700000000000000, 1700000000000000, 1700000000000001, 'schedule', 'failed',
        1700000000000002, 1700000000000003, '{"kind":"fail_fast","task":"load"}', 'flaky', NULL),
    ('etl', 'manual__1', 'manual', 'h2', '{}', '{"a":[1]}', NULL, NULL, NULL, 1700000000000000,
        1700000000000001, 'ada', 'running', 1700000000000002, NULL, NULL, '',
        '0190a6a0-0000-7000-8000-000000000000');

INSERT INTO instances (run, task, map_index, state, wake_at, attempt, max_attempt, lost, queued_at, started, ended,
    exit, message, outputs, item, followed, stop) VALUES
    (2, 'load', -1, 'up_for_retry', 1700000000000009, 1, 3, 1, 1700000000000004, 1700000000000005,
        1700000000000006, '{"kind":"code","code":3}', 'boom', NULL, NULL, NULL, NULL),
    (2, 'map', 0, 'running', NULL, 1, 1, 0, 1700000000000004, NULL, NULL, NULL, '', '{"rows":7}',
        '{"server":"a"}', '["next"]', '"cancelled"');
INSERT INTO attempts (run, task, map_index, number, backend, handle, queued_at, started, ended, exit, message, gpus,
    usage) VALUES
    (2, 'load', -1, 1, 'local', '{"pid":7}', 1700000000000004, 1700000000000005, 1700000000000006,
        '{"kind":"code","code":3}', 'boom', NULL, NULL),
    (2, 'map', 0, 1, 'local', 'null', 1700000000000004, NULL, NULL, NULL, '', '["GPU-1"]', '{"cpu_seconds":0.5}');

INSERT INTO variables (key, value, description) VALUES ('region', 'eu', 'where');
INSERT INTO pools (name, slots, description) VALUES ('gpu', 4, 'cards');
INSERT INTO audit (at, who, event, workflow, run, task, detail) VALUES
    (1700000000000000, 'ada', 'run.trigger', 'etl', 'manual__1', NULL, '{"conf":{"a":[1]}}'),
    (1700000000000001, 'ada', 'login', NULL, NULL, NULL, NULL);
INSERT INTO settings (key, value) VALUES ('secret', 'x');
INSERT INTO removed_runs (key, workflow, run_id) VALUES (99, 'gone', 'manual__0');
