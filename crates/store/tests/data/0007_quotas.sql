INSERT INTO quotas (namespace, cohort, weight, limits, borrow)
    VALUES ('ml', 'research', 2, '{"gpus":8,"memory_mib":262144}', '{"gpus":0.5}');
