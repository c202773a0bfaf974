INSERT INTO workers (id, name, credential, about, drain, enrolled, revoked)
    VALUES ('w1', 's21', 'abc', '{"slots":4}', FALSE, 1700000000000000, NULL),
    ('w0', 's21', 'abd', '{}', TRUE, 1600000000000000, 1650000000000000);
INSERT INTO worker_tokens (id, hash, queues, made_by, created, expires, uses)
    VALUES ('t1', 'def', '["s21"]', 'ada', 1700000000000000, NULL, 3);
