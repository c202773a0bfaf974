//! What people set while runs go on: variables, pools, which workflows are paused, backfills.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use pitcrew_store::{BackfillFilter, Paging};

use super::core_loop::Core;

/// The variables as they were last read or set.
#[derive(Clone, Default)]
pub(super) struct Variables(Arc<RwLock<BTreeMap<String, String>>>);

impl Variables {
    pub fn get(&self, name: &str) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The values of the variables whose names are chosen, the longest first, without those that stand in any text.
    pub fn values_of(&self, choose: impl Fn(&str) -> bool) -> Vec<String> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let chosen = map.iter().filter(|(name, value)| choose(name) && value.len() >= 4);
        let mut values: Vec<String> = chosen.map(|(_, value)| value.clone()).collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values
    }

    fn replace(&self, map: BTreeMap<String, String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = map;
    }

    pub fn set(&self, name: String, value: String) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, value);
    }
}

impl Core {
    /// Reads variables, pools and open backfills anew.
    pub async fn refresh_settings(&mut self) {
        match self.parts.store.variables(Paging::ALL).await {
            Ok(page) => {
                let map: BTreeMap<String, String> = page.rows.into_iter().map(|v| (v.key, v.value)).collect();
                self.variables.replace(map);
            }
            Err(error) => tracing::warn!(%error, "cannot read the variables"),
        }
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
    }
}
