//! Jobs, tasks and nodes of Amazon ECS as the system before knew them.

use jiff::Timestamp;

use super::ask;
use crate::error::Result;
use crate::types::*;
use crate::{Kind, Store, normalise};

impl Store {
    /// Our own first, the newest before the others; then those that were imported.
    pub async fn ecs_jobs(&self, filter: &EcsFilter, paging: Paging) -> Result<Page<EcsJob>> {
        ask!(self, ecs_jobs(filter, paging))
    }

    /// In the order of their jobs, and of one job the newest attempt first.
    pub async fn ecs_tasks(&self, filter: &EcsFilter, paging: Paging) -> Result<Page<EcsTask>> {
        ask!(self, ecs_tasks(filter, paging))
    }

    /// By name.
    pub async fn ecs_nodes(&self, filter: &EcsFilter, paging: Paging) -> Result<Page<EcsNode>> {
        ask!(self, ecs_nodes(filter, paging))
    }

    /// Runs with something on ECS that are not over, or were not at that time.
    pub async fn ecs_runs(&self, mut since: Timestamp) -> Result<Vec<pitcrew_core::RunKey>> {
        normalise::time(&mut since);
        ask!(self, ecs_runs(since))
    }

    /// Takes over what the tables of the system before held, all or none; says of each, in the same order, what that changed.
    pub async fn import_ecs(
        &self,
        items: &[EcsImport],
        mut at: Timestamp,
        mut audit: AuditEntry,
    ) -> Result<Vec<EcsImported>> {
        for item in items {
            normalise::name("key", &item.key)?;
        }
        normalise::time(&mut at);
        normalise::audit(&mut audit);
        ask!(self, import_ecs(items, at, audit))
    }

    /// What was imported of a key.
    pub async fn ecs_imported(&self, kind: EcsKind, key: &str) -> Result<Option<EcsImport>> {
        ask!(self, ecs_imported(kind, key))
    }
}
