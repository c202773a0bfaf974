-- What an attempt is called elsewhere: its job and, once its backend has told, its task.
ALTER TABLE attempts ADD COLUMN names TEXT;
CREATE INDEX attempts_ecs ON attempts (run, task, map_index, number) WHERE backend = 'ecs';

-- What was taken over from the tables of the system before, by kind and key, in its own fields.
CREATE TABLE ecs_imported (
    kind     TEXT NOT NULL CHECK (kind IN ('job', 'task', 'node')),
    key      TEXT NOT NULL,
    -- The table that it stood in.
    source   TEXT NOT NULL,
    body     TEXT NOT NULL,
    -- Of a node: what it is called here, if that is known.
    node     TEXT,
    imported INTEGER NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX ecs_imported_node ON ecs_imported (node) WHERE node IS NOT NULL;

-- Every attempt on ECS with what it is called there; what the three views are made from.
CREATE VIEW ecs_attempt AS
SELECT a.run, a.task, a.map_index, a.number, a.queued_at, a.started, a.ended, a.exit, a.node,
    COALESCE(json_extract(a.names, '$.job'),
        a.run || '/' || a.task || CASE WHEN a.map_index >= 0 THEN '[' || a.map_index || ']' ELSE '' END) AS job,
    COALESCE(json_extract(a.names, '$.job_id'),
        a.run || '-' || a.task || CASE WHEN a.map_index >= 0 THEN '-' || a.map_index ELSE '' END) AS job_id,
    COALESCE(json_extract(a.names, '$.size'), 1) AS size,
    COALESCE((SELECT MIN(m.key) FROM ecs_imported m WHERE m.kind = 'node' AND m.node = a.node), a.node) AS node_name,
    json_extract(a.names, '$.task') AS task_arn,
    substr(json_extract(a.names, '$.task'), length(rtrim(json_extract(a.names, '$.task'),
        replace(json_extract(a.names, '$.task'), '/', ''))) + 1) AS ecs_task,
    json_extract(a.names, '$.definition') AS definition,
    json_extract(a.names, '$.instance') AS instance,
    substr(json_extract(a.names, '$.instance'), length(rtrim(json_extract(a.names, '$.instance'),
        replace(json_extract(a.names, '$.instance'), '/', ''))) + 1) AS instance_id
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
        WHEN json_extract(a.exit, '$.code') = 0 THEN 'COMPLETE'
        WHEN json_extract(a.exit, '$.code') = 1 AND i.state = 'failed' AND i.attempt = a.number THEN 'FAILED'
        ELSE 'TERMINATED'
    END AS task_status,
    'pitcrew' AS origin, NULL AS source, a.task_arn AS ecs_task_arn, a.job, a.run, a.task, a.map_index,
    a.number AS attempt, a.queued_at AS began, a.ended
FROM ecs_attempt a
LEFT JOIN instances i ON i.run = a.run AND i.task = a.task AND i.map_index = a.map_index
WHERE a.ecs_task IS NOT NULL
UNION ALL
SELECT m.key, json_extract(m.body, '$.node_name'), json_extract(m.body, '$.node_index_in_job'),
    json_extract(m.body, '$.job_id'), json_extract(m.body, '$.job_num_nodes'), json_extract(m.body, '$.task_def_arn'),
    json_extract(m.body, '$.container_inst_id'), json_extract(m.body, '$.container_instance_arn'),
    json_extract(m.body, '$.retry'), json_extract(m.body, '$.task_status'),
    'imported', m.source, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM ecs_imported m
WHERE m.kind = 'task';

-- One row per job: a task, or all members of a gang. A job is what the least of its members is, in this order:
-- 1 PENDING_HEALTHCHECK, 2 PENDING_RESTART, 3 RESTARTING, 4 IN_PROGRESS, 5 FAILED, 6 FAILED_OTHERS, 7 USER_STOPPED, 8 COMPLETE.
CREATE VIEW ecs_job AS
SELECT j.job_id, j.size AS num_nodes,
    (SELECT json_group_array(o.node_name) FROM (SELECT m.node_name FROM ecs_attempt m WHERE m.run = j.run AND m.task = j.task
        AND m.job = j.job AND m.number = j.number AND m.node_name IS NOT NULL ORDER BY m.map_index) o) AS assigned_nodes,
    (SELECT json_group_array(o.instance_id) FROM (SELECT m.instance_id FROM ecs_attempt m WHERE m.run = j.run AND m.task = j.task
        AND m.job = j.job AND m.number = j.number AND m.instance_id IS NOT NULL ORDER BY m.map_index) o) AS submitted_container_inst_ids,
    (SELECT json_group_array(o.ecs_task) FROM (SELECT m.ecs_task FROM ecs_attempt m WHERE m.run = j.run AND m.task = j.task
        AND m.job = j.job AND m.number = j.number AND m.ecs_task IS NOT NULL ORDER BY m.map_index) o) AS submitted_ecs_task_ids,
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
                WHEN json_extract(i.exit, '$.kind') = 'cancelled' THEN
                    CASE WHEN COALESCE(json_extract(r.stop, '$.kind'), '') IN ('fail_fast', 'timed_out') THEN 6 ELSE 7 END
                WHEN json_extract(i.exit, '$.code') = 1 THEN 5
                ELSE 6 END
            WHEN json_extract(k.body, '$.state') IN ('stopping', 'awaiting_verdict') THEN 1
            WHEN json_extract(k.body, '$.state') = 'restarting' THEN 2
            WHEN json_extract(k.body, '$.state') = 'starting' AND i.attempt > 1 THEN 3
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
SELECT m.key, json_extract(m.body, '$.num_nodes'), json_extract(m.body, '$.assigned_nodes'),
    json_extract(m.body, '$.submitted_container_inst_ids'), json_extract(m.body, '$.submitted_ecs_task_ids'),
    json_extract(m.body, '$.retry'), json_extract(m.body, '$.job_status'), 'imported', m.source, NULL, NULL, NULL, NULL,
    NULL
FROM ecs_imported m
WHERE m.kind = 'job';

-- One row per machine of ECS, and those that were imported and are none here.
CREATE VIEW ecs_node AS
SELECT COALESCE((SELECT MIN(m.key) FROM ecs_imported m WHERE m.kind = 'node' AND m.node = n.name), n.name) AS node_name,
    substr(json_extract(n.seen, '$.ecs.at.instance'), length(rtrim(json_extract(n.seen, '$.ecs.at.instance'),
        replace(json_extract(n.seen, '$.ecs.at.instance'), '/', ''))) + 1) AS container_instance_id,
    json_extract(n.seen, '$.ecs.at.instance') AS container_instance_arn,
    CASE
        WHEN json_extract(k.body, '$.state.state') IN ('fenced', 'awaiting_approval', 'queued', 'draining') THEN 'PENDING'
        WHEN json_extract(k.body, '$.state.state') = 'checking' THEN 'PENDING_HEALTHCHECK'
        WHEN json_extract(k.body, '$.state.state') IN ('remediating', 'verifying') THEN 'REBOOTING'
        WHEN json_extract(k.body, '$.state.state') = 'out_of_service' THEN 'FAILED'
        WHEN json_extract(k.body, '$.state.state') = 'suspected' THEN 'UNKNOWN'
        WHEN n.cordoned AND json_extract(n.labels, '$."pitcrew/imported-status"') IS NOT NULL
            THEN json_extract(n.labels, '$."pitcrew/imported-status"')
        WHEN json_extract(n.seen, '$.down') IS NOT NULL THEN 'UNKNOWN'
        WHEN EXISTS (SELECT 1 FROM attempts a WHERE a.node = n.name AND a.exit IS NULL) THEN 'IN_PROGRESS'
        ELSE 'AVAILABLE'
    END AS node_status,
    (SELECT json_extract(m.body, '$.ip') FROM ecs_imported m WHERE m.kind = 'node' AND m.node = n.name
        ORDER BY m.key LIMIT 1) AS ip,
    (SELECT json_extract(m.body, '$.ibdev') FROM ecs_imported m WHERE m.kind = 'node' AND m.node = n.name
        ORDER BY m.key LIMIT 1) AS ibdev,
    'pitcrew' AS origin,
    (SELECT m.source FROM ecs_imported m WHERE m.kind = 'node' AND m.node = n.name ORDER BY m.key LIMIT 1) AS source,
    n.name AS node, json_extract(n.seen, '$.ecs.at.cluster') AS cluster,
    (SELECT MAX(c.id) FROM incidents c WHERE c.node = n.name AND c.closed IS NULL) AS incident
FROM nodes n
LEFT JOIN recovery k ON k.kind = 'node' AND k.name = n.name
WHERE json_extract(n.seen, '$.ecs') IS NOT NULL AND COALESCE(json_extract(n.seen, '$.ecs.is_gone'), 0) = 0
UNION ALL
SELECT m.key, json_extract(m.body, '$.container_instance_id'), json_extract(m.body, '$.container_instance_arn'),
    json_extract(m.body, '$.node_status'), json_extract(m.body, '$.ip'), json_extract(m.body, '$.ibdev'), 'imported',
    m.source, m.node, NULL, NULL
FROM ecs_imported m
WHERE m.kind = 'node' AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.name = m.node
    AND json_extract(n.seen, '$.ecs') IS NOT NULL AND COALESCE(json_extract(n.seen, '$.ecs.is_gone'), 0) = 0);
