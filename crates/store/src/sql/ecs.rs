//! Jobs, tasks and nodes of Amazon ECS: read from the views, which derive them, and what was imported for those.

use jiff::Timestamp;
use pitcrew_core::RunKey;
use sqlx::AssertSqlSafe;

use super::db::{Row, args};
use super::lists::Where;
use super::rows::json;
use super::{Sql, commit};
use crate::error::Result;
use crate::types::*;

const JOB: &str = "job_id, num_nodes, assigned_nodes, submitted_container_inst_ids, submitted_ecs_task_ids, retry, \
     job_status, origin, source, job, run, task, began, ended";
const TASK: &str = "ecs_task_id, node_name, node_index_in_job, job_id, job_num_nodes, task_def_arn, container_inst_id, \
     container_instance_arn, retry, task_status, origin, source, ecs_task_arn, job, run, task, map_index, attempt, began, ended";
const NODE: &str = "node_name, container_instance_id, container_instance_arn, node_status, ip, ibdev, origin, source, \
     node, cluster, incident";

fn job(row: &Row) -> Result<EcsJob> {
    let mut row = row.fields();
    Ok(EcsJob {
        job_id: row.take()?,
        num_nodes: row.int()?,
        assigned_nodes: row.json()?,
        submitted_container_inst_ids: row.json()?,
        submitted_ecs_task_ids: row.json()?,
        retry: row.int()?,
        job_status: row.parse()?,
        origin: row.parse()?,
        source: row.take()?,
        job: row.take()?,
        run: row.take::<Option<i64>>()?.map(RunKey),
        task: row.take()?,
        began: row.time_optional()?,
        ended: row.time_optional()?,
    })
}

fn task(row: &Row) -> Result<EcsTask> {
    let mut row = row.fields();
    Ok(EcsTask {
        ecs_task_id: row.take()?,
        node_name: row.take()?,
        node_index_in_job: row.int_optional()?,
        job_id: row.take()?,
        job_num_nodes: row.int_optional()?,
        task_def_arn: row.take()?,
        container_inst_id: row.take()?,
        container_instance_arn: row.take()?,
        retry: row.int()?,
        task_status: row.parse()?,
        origin: row.parse()?,
        source: row.take()?,
        ecs_task_arn: row.take()?,
        job: row.take()?,
        run: row.take::<Option<i64>>()?.map(RunKey),
        task: row.take()?,
        map_index: row.int_optional()?,
        attempt: row.int_optional()?,
        began: row.time_optional()?,
        ended: row.time_optional()?,
    })
}

fn node(row: &Row) -> Result<EcsNode> {
    let mut row = row.fields();
    Ok(EcsNode {
        node_name: row.take()?,
        container_instance_id: row.take()?,
        container_instance_arn: row.take()?,
        node_status: row.parse()?,
        ip: row.take()?,
        ibdev: row.take()?,
        origin: row.parse()?,
        source: row.take()?,
        node: row.take()?,
        cluster: row.take()?,
        incident: row.int_optional()?,
    })
}

fn imported(row: &Row) -> Result<EcsImport> {
    let mut row = row.fields();
    Ok(EcsImport { kind: row.parse()?, key: row.take()?, source: row.take()?, body: row.json()?, node: row.take()? })
}

/// What a filter says of a view, by the names of its columns.
fn kept<'a>(filter: &'a EcsFilter, status: &str) -> Where<'a> {
    let mut kept = Where::default();
    if let Some(wanted) = &filter.status {
        kept.and(&format!("{status} = ?"), wanted);
    }
    if let Some(origin) = filter.origin {
        kept.and("origin = ?", origin.name());
    }
    kept
}

fn of_job<'a>(mut kept: Where<'a>, filter: &'a EcsFilter) -> Where<'a> {
    if let Some(job) = &filter.job_id {
        kept.and("job_id = ?", job);
    }
    if let Some(run) = filter.run {
        kept.and("run = ?", run.0);
    }
    kept
}

impl Sql {
    /// A page out of everything: only the newest runs are looked at, as many as the page can reach, and what was imported.
    /// `each`: what gives one row of our own each, to be counted.
    async fn ecs_newest<T>(
        &self,
        (view, columns, order): (&str, &str, &str),
        each: &str,
        origin: Option<EcsOrigin>,
        paging: Paging,
        read: impl Fn(&Row) -> Result<T>,
    ) -> Result<Page<T>> {
        let (mut rows, mut ours) = (Vec::new(), 0);
        if origin != Some(EcsOrigin::Imported) {
            let reach = i64::try_from(paging.offset.saturating_add(u64::from(paging.limit))).unwrap_or(i64::MAX);
            // As a value of its own: a condition with a question in it does not reach into the view.
            let sql = format!(
                "SELECT COALESCE(MIN(run), 0) FROM (SELECT DISTINCT run FROM {each} ORDER BY run DESC LIMIT $1) AS newest"
            );
            let oldest: i64 =
                self.db.read_one(AssertSqlSafe(sql), args![reach]).await?.map_or(Ok(0), |row| row.get(0))?;
            let sql = format!(
                "SELECT {columns} FROM {view} WHERE origin = 'pitcrew' AND run >= $1 ORDER BY {order} LIMIT $2 OFFSET $3"
            );
            let offset = i64::try_from(paging.offset).unwrap_or(i64::MAX);
            rows = self.all(sql, args![oldest, paging.limit, offset], &read).await?;
            // What follows our own has its place by how many those are.
            let most = if rows.is_empty() { i64::MAX } else { i64::try_from(TOTAL_CAP).unwrap_or(i64::MAX - 1) + 1 };
            let sql = format!(
                "SELECT COUNT(*) FROM (SELECT {each_columns} FROM {each} LIMIT $1) AS counted",
                each_columns = if view == "ecs_job" { "DISTINCT run, task, job" } else { "run" }
            );
            ours = match paging.total_after(rows.len()) {
                Some(total) => total,
                None => self.count(sql, args![most]).await?,
            };
        }
        let mut total = ours;
        if origin != Some(EcsOrigin::Pitcrew) {
            let imported = format!("FROM {view} WHERE origin = 'imported'");
            let left = paging.limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
            if left > 0 {
                let offset = i64::try_from(paging.offset.saturating_sub(ours)).unwrap_or(i64::MAX);
                let sql = format!("SELECT {columns} {imported} ORDER BY {order} LIMIT $1 OFFSET $2");
                rows.extend(self.all(sql, args![left, offset], &read).await?);
            }
            total += self.count(format!("SELECT COUNT(*) {imported}"), args![]).await?;
        }
        Ok(Page::capped(rows, total, paging))
    }

    async fn ecs_page<T>(
        &self,
        (view, columns, order): (&str, &str, &str),
        kept: Where<'_>,
        paging: Paging,
        read: impl Fn(&Row) -> Result<T>,
    ) -> Result<Page<T>> {
        let (limit, values) = kept.paged(paging);
        let terms = kept.text();
        let rows =
            self.all(format!("SELECT {columns} FROM {view}{terms} ORDER BY {order}{limit}"), values, read).await?;
        let total = match paging.total_after(rows.len()) {
            Some(total) => total,
            None => self.count(format!("SELECT COUNT(*) FROM {view}{terms}"), kept.args()).await?,
        };
        Ok(Page { rows, total })
    }

    pub async fn ecs_jobs(&self, filter: &EcsFilter, paging: Paging) -> Result<Page<EcsJob>> {
        let view = ("ecs_job", JOB, "origin DESC, run DESC, task, job, job_id");
        if let EcsFilter { status: None, job_id: None, run: None, origin } = filter {
            return self.ecs_newest(view, "ecs_attempt", *origin, paging, job).await;
        }
        self.ecs_page(view, of_job(kept(filter, "job_status"), filter), paging, job).await
    }

    pub async fn ecs_tasks(&self, filter: &EcsFilter, paging: Paging) -> Result<Page<EcsTask>> {
        let view = ("ecs_task", TASK, "origin DESC, run DESC, task, job, attempt DESC, map_index, ecs_task_id");
        if let EcsFilter { status: None, job_id: None, run: None, origin } = filter {
            let each = "(SELECT run FROM ecs_attempt WHERE ecs_task IS NOT NULL) AS of_ecs";
            return self.ecs_newest(view, each, *origin, paging, task).await;
        }
        self.ecs_page(view, of_job(kept(filter, "task_status"), filter), paging, task).await
    }

    pub async fn ecs_nodes(&self, filter: &EcsFilter, paging: Paging) -> Result<Page<EcsNode>> {
        self.ecs_page(("ecs_node", NODE, "node_name, origin DESC"), kept(filter, "node_status"), paging, node).await
    }

    pub async fn ecs_runs(&self, since: Timestamp) -> Result<Vec<RunKey>> {
        let sql = "SELECT key FROM runs WHERE (state IN ('queued', 'running') OR ended >= $1) \
             AND EXISTS (SELECT 1 FROM attempts a WHERE a.run = runs.key AND a.backend = 'ecs') ORDER BY key";
        self.all(sql.to_owned(), args![since], |row| row.get(0).map(RunKey)).await
    }

    pub async fn import_ecs(&self, items: &[EcsImport], at: Timestamp, audit: AuditEntry) -> Result<Vec<EcsImported>> {
        let mut tx = self.db.begin().await?;
        let mut done = Vec::new();
        for item in items {
            let sql = "SELECT kind, key, source, body, node FROM ecs_imported WHERE kind = $1 AND key = $2";
            let before = tx.fetch_one(sql, args![item.kind.name(), &item.key]).await?;
            let before = before.as_ref().map(imported).transpose()?;
            let change = EcsImported::of(before.as_ref(), item);
            done.push(change);
            if change == EcsImported::Same {
                continue;
            }
            let sql = "INSERT INTO ecs_imported (kind, key, source, body, node, imported) \
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (kind, key) DO UPDATE SET source = excluded.source, \
                 body = excluded.body, node = excluded.node, imported = excluded.imported";
            let body = json(&item.body)?;
            tx.execute(sql, args![item.kind.name(), &item.key, &item.source, body, item.node.as_deref(), at]).await?;
        }
        if done.iter().any(|change| *change != EcsImported::Same) {
            commit::write_audit(&mut tx, [&audit]).await?;
        }
        tx.commit().await?;
        Ok(done)
    }

    pub async fn ecs_imported(&self, kind: EcsKind, key: &str) -> Result<Option<EcsImport>> {
        let sql = "SELECT kind, key, source, body, node FROM ecs_imported WHERE kind = $1 AND key = $2";
        self.one(sql.to_owned(), args![kind.name(), key], imported).await
    }
}
