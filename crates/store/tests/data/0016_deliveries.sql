INSERT INTO deliveries (event, namespace, listener, received, source, about, bytes, sealed, state, outcome, again_of, duplicate_of, settled) VALUES
    ('0b0e8d1c-0000-4000-8000-00000000000a', 'ci', 'forge', 1700000000000000, '192.0.2.7', 'push', 10240, 'v1:x', 'done', '[{"trigger":"push"}]', NULL, NULL, 1700000001000000),
    ('0b0e8d1c-0000-4000-8000-00000000000b', 'ci', 'forge', 1700000002000000, '192.0.2.7', 'push', 10240, NULL, 'duplicate', '[]', NULL, 1, 1700000002000000);
INSERT INTO replays (digest, delivery, event, until) VALUES
    ('00ff', 1, '0b0e8d1c-0000-4000-8000-00000000000a', 1700086400000000);
