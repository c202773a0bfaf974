INSERT INTO objects (kind, namespace, name, uid, generation, doc, sealed, run, created, changed) VALUES
    ('Task', 'default', 'hello', '0b0e8d1c-0000-4000-8000-000000000001', 3, '{"kind":"Task"}', NULL, NULL, 1700000000000000, 1700000001000000),
    ('PipelineRun', 'ci', 'build-x7k2p', '0b0e8d1c-0000-4000-8000-000000000002', 1, 'null', NULL, 1, 1700000000000000, 1700000000000000);
