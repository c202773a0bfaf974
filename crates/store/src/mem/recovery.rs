//! Recovery in memory.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pitcrew_core::RunKey;
use pitcrew_core::recovery::{Incident, IncidentId, Key, Record};

use super::Mem;
use crate::error::{Result, StoreError};
use crate::types::*;

/// As many incidents of a run are found.
const MOST: usize = 100;

impl Mem {
    pub fn recovery_records(&self) -> Result<Vec<Record>> {
        let state = self.lock();
        let mut newest: BTreeMap<&str, IncidentId> = BTreeMap::new();
        for record in state.recovery.values() {
            if let Record::Incident(incident) = record {
                let of = newest.entry(&incident.node).or_insert(incident.id);
                *of = incident.id.max(*of);
            }
        }
        let is_needed = |record: &&Record| match record {
            Record::Incident(incident) => incident.is_open() || newest.get(&*incident.node) == Some(&incident.id),
            Record::Fleet(_) | Record::Node(_) | Record::Job(_) => true,
        };
        Ok(state.recovery.values().filter(is_needed).cloned().collect())
    }

    pub fn take_recovery(&self) -> Result<u64> {
        let mut state = self.lock();
        state.recovery_term += 1;
        Ok(state.recovery_term)
    }

    pub fn write_recovery(&self, term: u64, put: &[Record], removed: &[Key]) -> Result<()> {
        let mut state = self.lock();
        if state.recovery_term != term {
            return Err(StoreError::superseded());
        }
        state.recovery.extend(put.iter().map(|record| (record.key(), record.clone())));
        for key in removed {
            state.recovery.remove(key);
        }
        Ok(())
    }

    pub fn incidents(&self, filter: &IncidentFilter, paging: Paging) -> Result<Page<Incident>> {
        let state = self.lock();
        let all = state.recovery.values().rev().filter_map(|record| match record {
            Record::Incident(incident) => Some(incident),
            Record::Fleet(_) | Record::Node(_) | Record::Job(_) => None,
        });
        let fits = |incident: &&Incident| {
            filter.open.is_none_or(|open| incident.is_open() == open)
                && filter.node.as_ref().is_none_or(|node| incident.node == *node)
        };
        let all: Vec<&Incident> = all.filter(fits).collect();
        let total = all.len() as u64;
        let rows = all.into_iter().skip(paging.offset as usize).take(paging.limit as usize).cloned().collect();
        Ok(Page { rows, total })
    }

    pub fn incidents_of_run(&self, run: RunKey, queued_at: Timestamp) -> Result<Vec<Incident>> {
        let page = self.incidents(&IncidentFilter::default(), Paging::ALL)?;
        let hits = |incident: &Incident| incident.opened >= queued_at && incident.is_of_run(run);
        Ok(page.rows.into_iter().filter(hits).take(MOST).collect())
    }

    pub fn incident(&self, id: IncidentId) -> Result<Option<Incident>> {
        match self.lock().recovery.get(&Key::Incident(id)) {
            Some(Record::Incident(incident)) => Ok(Some(incident.clone())),
            Some(Record::Fleet(_) | Record::Node(_) | Record::Job(_)) | None => Ok(None),
        }
    }
}
