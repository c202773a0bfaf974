//! What is on Amazon ECS, here or on a server.

use pitcrew_store::{EcsFilter, EcsJob, EcsNode, EcsTask, Paging};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Target;

impl Target {
    /// So many of them, and how many there are.
    pub async fn ecs_jobs(&self, filter: &EcsFilter, limit: u32) -> anyhow::Result<(Vec<EcsJob>, u64)> {
        match self {
            Target::Here(context) => {
                let page = context.store.ecs_jobs(filter, Paging::first(limit)).await?;
                Ok((page.rows, page.total))
            }
            Target::There(_) => self.ecs_rows("jobs", filter, limit).await,
        }
    }

    pub async fn ecs_tasks(&self, filter: &EcsFilter, limit: u32) -> anyhow::Result<(Vec<EcsTask>, u64)> {
        match self {
            Target::Here(context) => {
                let page = context.store.ecs_tasks(filter, Paging::first(limit)).await?;
                Ok((page.rows, page.total))
            }
            Target::There(_) => self.ecs_rows("tasks", filter, limit).await,
        }
    }

    pub async fn ecs_nodes(&self, filter: &EcsFilter, limit: u32) -> anyhow::Result<(Vec<EcsNode>, u64)> {
        match self {
            Target::Here(context) => {
                let page = context.store.ecs_nodes(filter, Paging::first(limit)).await?;
                Ok((page.rows, page.total))
            }
            Target::There(_) => self.ecs_rows("nodes", filter, limit).await,
        }
    }

    async fn ecs_rows<T: DeserializeOwned>(
        &self,
        kind: &str,
        filter: &EcsFilter,
        limit: u32,
    ) -> anyhow::Result<(Vec<T>, u64)> {
        let Target::There(remote) = self else { return Ok((Vec::new(), 0)) };
        let origin = filter.origin.map(|origin| origin.name().to_owned());
        let given = [("status", filter.status.clone()), ("origin", origin), ("job_id", filter.job_id.clone())];
        let given: Vec<(&str, String)> = given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let (mut rows, mut total) = (Vec::new(), 0);
        // A server gives a page at a time, as long as it thinks fit.
        while (rows.len() as u64) < u64::from(limit) {
            let left = u64::from(limit) - rows.len() as u64;
            let page = [("limit", left.min(1000).to_string()), ("offset", rows.len().to_string())];
            let query: Vec<(&str, String)> = given.iter().cloned().chain(page).collect();
            let mut answer: Value = remote.get(&["api", "pitcrew", "v1", "ecs", kind], &query).await?;
            total = answer["total_entries"].as_u64().unwrap_or_default();
            let part: Vec<T> = serde_json::from_value(answer[kind].take())?;
            if part.is_empty() {
                break;
            }
            rows.extend(part);
        }
        Ok((rows, total))
    }
}
