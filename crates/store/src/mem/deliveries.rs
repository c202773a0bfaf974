//! Deliveries in memory.

use jiff::Timestamp;
use serde_json::Value;

use super::reads::page;
use super::{Mem, State};
use crate::error::Result;
use crate::types::*;

impl State {
    fn write_delivery(&mut self, new: NewDelivery, first: Option<i64>) -> i64 {
        self.last_delivery += 1;
        let id = self.last_delivery;
        let state = if first.is_some() { DeliveryState::Duplicate } else { new.state };
        let row = DeliveryRow {
            id,
            event: new.event,
            namespace: new.namespace,
            listener: new.listener,
            received: new.received,
            source: new.source,
            about: new.about,
            bytes: new.bytes,
            sealed: new.sealed,
            state,
            outcome: new.outcome,
            again_of: new.again_of,
            duplicate_of: first,
            settled: (state != DeliveryState::Waiting).then_some(new.received),
        };
        self.deliveries.insert(id, row);
        id
    }
}

impl Mem {
    pub fn add_delivery(&self, new: NewDelivery) -> Result<Added> {
        let mut state = self.lock();
        let guard = new.guard.clone();
        let known = guard.as_ref().and_then(|(digest, _)| state.replays.get(digest));
        let first = known.filter(|known| known.2 > new.received).map(|known| (known.0, known.1.clone()));
        let event = new.event.clone();
        let id = state.write_delivery(new, first.as_ref().map(|first| first.0));
        if let (None, Some((digest, until))) = (&first, guard) {
            state.replays.insert(digest, (id, event, until));
        }
        Ok(Added { id, first })
    }

    pub fn repeat_delivery(&self, id: i64, event: &str, at: Timestamp, audit: AuditEntry) -> Result<Option<i64>> {
        let mut state = self.lock();
        let Some(old) = state.deliveries.get(&id).filter(|row| row.sealed.is_some()).cloned() else { return Ok(None) };
        let new = NewDelivery {
            event: event.to_owned(),
            namespace: old.namespace,
            listener: old.listener,
            received: at,
            source: old.source,
            about: old.about,
            bytes: old.bytes,
            sealed: old.sealed,
            state: DeliveryState::Waiting,
            outcome: Value::Array(Vec::new()),
            again_of: Some(id),
            guard: None,
        };
        let made = state.write_delivery(new, None);
        state.write_audit([audit]);
        Ok(Some(made))
    }

    pub fn delivery(&self, id: i64) -> Result<Option<DeliveryRow>> {
        Ok(self.lock().deliveries.get(&id).cloned())
    }

    pub fn deliveries(&self, filter: &DeliveryFilter, paging: Paging) -> Result<Page<DeliveryRow>> {
        let state = self.lock();
        let kept = state.deliveries.values().rev().filter(|row| {
            filter.namespace.as_ref().is_none_or(|namespace| *namespace == row.namespace)
                && filter.listener.as_ref().is_none_or(|listener| *listener == row.listener)
                && filter.state.is_none_or(|state| state == row.state)
        });
        Ok(page(kept.map(|row| DeliveryRow { sealed: None, ..row.clone() }).collect(), paging))
    }

    pub fn waiting_deliveries(&self, limit: u32) -> Result<Vec<i64>> {
        let state = self.lock();
        let waiting = state.deliveries.values().filter(|row| row.state == DeliveryState::Waiting);
        Ok(waiting.map(|row| row.id).take(limit as usize).collect())
    }

    pub fn settle_delivery(&self, id: i64, outcome: Value, at: Timestamp) -> Result<bool> {
        let mut state = self.lock();
        let Some(row) = state.deliveries.get_mut(&id).filter(|row| row.state == DeliveryState::Waiting) else {
            return Ok(false);
        };
        (row.state, row.outcome, row.settled) = (DeliveryState::Done, outcome, Some(at));
        Ok(true)
    }

    pub fn remove_deliveries(&self, before: Timestamp, now: Timestamp) -> Result<u64> {
        let mut state = self.lock();
        let count = state.deliveries.len();
        state.deliveries.retain(|_, row| row.received >= before || row.state == DeliveryState::Waiting);
        state.replays.retain(|_, known| known.2 > now);
        Ok((count - state.deliveries.len()) as u64)
    }
}
