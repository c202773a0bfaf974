INSERT INTO nodes (name, cordoned, labels, taints, seen, seen_at)
    VALUES ('s21', TRUE, '{"rack":"a"}', '{"gpu:NoSchedule":null}', '{}', 1700000000000000);
INSERT INTO node_samples (node, at, sample) VALUES ('s21', 1700000000000000, '{}');
