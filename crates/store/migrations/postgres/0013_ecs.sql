-- What an attempt is called elsewhere: its job and, once its backend has told, its task.
ALTER TABLE attempts ADD COLUMN names TEXT COLLATE "C";
CREATE INDEX attempts_ecs ON attempts (run, task, map_index, number) WHERE backend = 'ecs';

-- What was taken over from the tables of the system before, by kind and key, in its own fields.
CREATE TABLE ecs_imported (
    kind     TEXT COLLATE "C" NOT NULL CHECK (kind IN ('job', 'task', 'node')),
    key      TEXT COLLATE "C" NOT NULL,
    -- The table that it stood in.
    source   TEXT COLLATE "C" NOT NULL,
    body     TEXT COLLATE "C" NOT NULL,
    -- Of a node: what it is called here, if that is known.
    node     TEXT COLLATE "C",
    imported BIGINT NOT NULL,
    PRIMARY KEY (kind, key)
);
CREATE INDEX ecs_imported_node ON ecs_imported (node) WHERE node IS NOT NULL;

-- Every attempt on ECS with what it is called there; what the three views are made from.
CREATE VIEW ecs_attempt AS
SELECT a.run, a.task, a.map_index, a.number, a.queued_at, a.started, a.ended, a.exit, a.node,
    COALESCE((a.names::json->>'job') COLLATE "C",
        a.run || '/' || a.task || CASE WHEN a.map_index >= 0 THEN '[' || a.map_index || ']' ELSE '' END) AS job,
    COALESCE((a.names::json->>'job_id') COLLATE "C",
        a.run || '-' || a.task || CASE WHEN a.map_index >= 0 THEN '-' || a.map_index ELSE '' END) AS job_id,
    COALESCE((a.names::json->>'size')::bigint, 1) AS size,
    COALESCE((SELECT MIN(m.key) FROM ecs_imported m WHERE m.kind = 'node' AND m.node = a.node), a.node) AS node_name,
    (a.names::json->>'task') AS task_arn,
    substr((a.names::json->>'task'), length(rtrim((a.names::json->>'task'),
        replace((a.names::json->>'task'), '/', ''))) + 1) COLLATE "C" AS ecs_task,
    (a.names::json->>'definition') AS definition,
    (a.names::json->>'instance') AS instance,
    substr((a.names::json->>'instance'), length(rtrim((a.names::json->>'instance'),
        replace((a.names::json->>'instance'), '/', ''))) + 1) AS instance_id
FROM attempts a
WHERE a.backend = 'ecs';

-- One row per task that ECS was given.
CREATE VIEW ecs_task AS
SELECT a.ecs_task AS ecs_task_id, a.node_name,
    CASE WHEN a.size > 1 THEN a.map_index ELSE 0 END AS node_index_in_job,
    a.job_id, a.size AS job_num_nodes, a.definition AS task_def_arn, a.instance_id AS container_inst_id,
    a.instance AS container_instance_arn, a.number - 1 AS retry,
    CASE
        WHEN a.exit IS NULL THEN 'IN_PROGRESS'
        WHEN (a.exit::json->>'code') = '0' THEN 'COMPLETE'
        WHEN (a.exit::json->>'code') = '1' AND i.state = 'failed' AND i.attempt = a.number THEN 'FAILED'
        ELSE 'TERMINATED'
    END AS task_status,
    'pitcrew' AS origin, NULL AS source, a.task_arn AS ecs_task_arn, a.job, a.run, a.task, a.map_index,
    a.number AS attempt, a.queued_at AS began, a.ended
FROM ecs_attempt a
LEFT JOIN instances i ON i.run = a.run AND i.task = a.task AND i.map_index = a.map_index
WHERE a.ecs_task IS NOT NULL
UNION ALL
SELECT m.key, (m.body::json->>'node_name') COLLATE "C", (m.body::json->>'node_index_in_job')::bigint,
    (m.body::json->>'job_id') COLLATE "C", (m.body::json->>'job_num_nodes')::bigint, (m.body::json->>'task_def_arn'),
    (m.body::json->>'container_inst_id'), (m.body::json->>'container_instance_arn'),
    (m.body::json->>'retry')::bigint, (m.body::json->>'task_status'),
    'imported', m.source, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM ecs_imported m
WHERE m.kind = 'task';

-- One row per job: a task, or all members of a gang. A job is what the least of its members is, in this order:
-- 1 PENDING_HEALTHCHECK, 2 PENDING_RESTART, 3 RESTARTING, 4 IN_PROGRESS, 5 FAILED, 6 FAILED_OTHERS, 7 USER_STOPPED, 8 COMPLETE.
CREATE VIEW ecs_job AS
SELECT j.job_id, j.size AS num_nodes,
    (SELECT COALESCE(json_agg(m.node_name ORDER BY m.map_index), '[]')::text FROM ecs_attempt m WHERE m.run = j.run AND m.task = j.task
        AND m.job = j.job AND m.number = j.number AND m.node_name IS NOT NULL) AS assigned_nodes,
    (SELECT COALESCE(json_agg(m.instance_id ORDER BY m.map_index), '[]')::text FROM ecs_attempt m WHERE m.run = j.run AND m.task = j.task
        AND m.job = j.job AND m.number = j.number AND m.instance_id IS NOT NULL) AS submitted_container_inst_ids,
    (SELECT COALESCE(json_agg(m.ecs_task ORDER BY m.map_index), '[]')::text FROM ecs_attempt m WHERE m.run = j.run AND m.task = j.task
        AND m.job = j.job AND m.number = j.number AND m.ecs_task IS NOT NULL) AS submitted_ecs_task_ids,
    j.number - 1 AS retry,
    CASE j.standing WHEN 1 THEN 'PENDING_HEALTHCHECK' WHEN 2 THEN 'PENDING_RESTART' WHEN 3 THEN 'RESTARTING'
        WHEN 4 THEN 'IN_PROGRESS' WHEN 5 THEN 'FAILED' WHEN 6 THEN 'FAILED_OTHERS' WHEN 7 THEN 'USER_STOPPED'
        ELSE 'COMPLETE' END AS job_status,
    'pitcrew' AS origin, NULL AS source, j.job, j.run, j.task, j.began,
    CASE WHEN j.standing >= 5 THEN j.ended END AS ended
FROM (
    SELECT a.run, a.task, a.job, MAX(a.job_id) AS job_id, MAX(a.size) AS size, MAX(a.number) AS number,
        MIN(a.queued_at) AS began, MAX(i.ended) AS ended,
        MIN(CASE
            WHEN i.state IN ('success', 'skipped') THEN 8
            WHEN i.state IN ('failed', 'upstream_failed', 'removed') THEN CASE
                WHEN (i.exit::json->>'kind') = 'cancelled' THEN
                    CASE WHEN COALESCE((r.stop::json->>'kind'), '') IN ('fail_fast', 'timed_out') THEN 6 ELSE 7 END
                WHEN (i.exit::json->>'code') = '1' THEN 5
                ELSE 6 END
            WHEN (k.body::json->>'state') IN ('stopping', 'awaiting_verdict') THEN 1
            WHEN (k.body::json->>'state') = 'restarting' THEN 2
            WHEN (k.body::json->>'state') = 'starting' AND i.attempt > 1 THEN 3
            WHEN i.state = 'recovering' THEN 1
            WHEN i.state IN ('none', 'up_for_retry', 'up_for_reschedule') THEN 2
            WHEN i.state IN ('scheduled', 'queued') AND i.attempt > 1 THEN 3
            ELSE 4 END) AS standing
    FROM ecs_attempt a
    JOIN instances i ON i.run = a.run AND i.task = a.task AND i.map_index = a.map_index
    JOIN runs r ON r.key = a.run
    LEFT JOIN recovery k ON k.kind = 'job' AND k.name = a.job
    GROUP BY a.run, a.task, a.job
) j
UNION ALL
SELECT m.key, (m.body::json->>'num_nodes')::bigint, (m.body::json->>'assigned_nodes'),
    (m.body::json->>'submitted_container_inst_ids'), (m.body::json->>'submitted_ecs_task_ids'),
    (m.body::json->>'retry')::bigint, (m.body::json->>'job_status'), 'imported', m.source, NULL, NULL, NULL, NULL,
    NULL
FROM ecs_imported m
WHERE m.kind = 'job';

-- One row per machine of ECS, and those that were imported and are none here.
CREATE VIEW ecs_node AS
SELECT COALESCE((SELECT MIN(m.key) FROM ecs_imported m WHERE m.kind = 'node' AND m.node = n.name), n.name) AS node_name,
    substr((n.seen::json#>>'{ecs,at,instance}'), length(rtrim((n.seen::json#>>'{ecs,at,instance}'),
        replace((n.seen::json#>>'{ecs,at,instance}'), '/', ''))) + 1) AS container_instance_id,
    (n.seen::json#>>'{ecs,at,instance}') AS container_instance_arn,
    CASE
        WHEN (k.body::json#>>'{state,state}') IN ('fenced', 'awaiting_approval', 'queued', 'draining') THEN 'PENDING'
        WHEN (k.body::json#>>'{state,state}') = 'checking' THEN 'PENDING_HEALTHCHECK'
        WHEN (k.body::json#>>'{state,state}') IN ('remediating', 'verifying') THEN 'REBOOTING'
        WHEN (k.body::json#>>'{state,state}') = 'out_of_service' THEN 'FAILED'
        WHEN (k.body::json#>>'{state,state}') = 'suspected' THEN 'UNKNOWN'
        WHEN n.cordoned AND (n.labels::json->>'pitcrew/imported-status') IS NOT NULL
            THEN (n.labels::json->>'pitcrew/imported-status')
        WHEN (n.seen::json->>'down') IS NOT NULL THEN 'UNKNOWN'
        WHEN EXISTS (SELECT 1 FROM attempts a WHERE a.node = n.name AND a.exit IS NULL) THEN 'IN_PROGRESS'
        ELSE 'AVAILABLE'
    END AS node_status,
    (SELECT (m.body::json->>'ip') FROM ecs_imported m WHERE m.kind = 'node' AND m.node = n.name
        ORDER BY m.key LIMIT 1) AS ip,
    (SELECT (m.body::json->>'ibdev') FROM ecs_imported m WHERE m.kind = 'node' AND m.node = n.name
        ORDER BY m.key LIMIT 1) AS ibdev,
    'pitcrew' AS origin,
    (SELECT m.source FROM ecs_imported m WHERE m.kind = 'node' AND m.node = n.name ORDER BY m.key LIMIT 1) AS source,
    n.name AS node, (n.seen::json#>>'{ecs,at,cluster}') AS cluster,
    (SELECT MAX(c.id) FROM incidents c WHERE c.node = n.name AND c.closed IS NULL) AS incident
FROM nodes n
LEFT JOIN recovery k ON k.kind = 'node' AND k.name = n.name
WHERE (n.seen::json->>'ecs') IS NOT NULL AND COALESCE((n.seen::json#>>'{ecs,is_gone}'), 'false') = 'false'
UNION ALL
SELECT m.key, (m.body::json->>'container_instance_id'), (m.body::json->>'container_instance_arn'),
    (m.body::json->>'node_status'), (m.body::json->>'ip'), (m.body::json->>'ibdev'), 'imported',
    m.source, m.node, NULL, NULL
FROM ecs_imported m
WHERE m.kind = 'node' AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.name = m.node
    AND (n.seen::json->>'ecs') IS NOT NULL AND COALESCE((n.seen::json#>>'{ecs,is_gone}'), 'false') = 'false');
