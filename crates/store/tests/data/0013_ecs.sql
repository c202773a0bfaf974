INSERT INTO ecs_imported (kind, key, source, body, node, imported) VALUES
    ('job', 'llm-7', 'jobs', '{"num_nodes":1,"assigned_nodes":[],"submitted_container_inst_ids":[],"submitted_ecs_task_ids":["t1"],"retry":1,"job_status":"COMPLETE"}', NULL, 1700000000000000);
