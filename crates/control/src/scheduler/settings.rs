//! What people set while runs go on: variables, connections, pools, quotas, which workflows are paused, backfills.

use pitcrew_store::{BackfillFilter, Paging};

use super::core_loop::Core;

impl Core {
    /// Reads variables, connections, pools, quotas and open backfills anew.
    pub async fn refresh_settings(&mut self) {
        if let Err(error) = self.known.refresh().await {
            tracing::warn!(%error, "cannot read the variables and connections");
        }
        self.take_connections().await;
        let paused = pitcrew_store::WorkflowFilter { paused: Some(true), ..Default::default() };
        match self.parts.store.workflows(&paused, Paging::ALL).await {
            Ok(page) => self.paused = page.rows.into_iter().map(|row| row.id).collect(),
            Err(error) => tracing::warn!(%error, "cannot read which workflows are paused"),
        }
        let open = BackfillFilter { open: Some(true), ..BackfillFilter::default() };
        match self.parts.store.backfills(&open, Paging::ALL).await {
            Ok(page) => self.backfills = page.rows.into_iter().map(|backfill| (backfill.id, backfill)).collect(),
            Err(error) => tracing::warn!(%error, "cannot read the backfills"),
        }
        match self.parts.store.pools().await {
            Ok(pools) => pools.iter().for_each(|pool| self.admission.set_pool(&pool.name, pool.slots)),
            Err(error) => tracing::warn!(%error, "cannot read the pools"),
        }
        match self.parts.store.quotas().await {
            Ok(quotas) => self.admission.set_quotas(quotas),
            Err(error) => tracing::warn!(%error, "cannot read the quotas"),
        }
    }
}
