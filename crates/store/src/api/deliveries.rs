//! What was posted to listeners.

use jiff::Timestamp;
use serde_json::Value;

use super::ask;
use crate::error::Result;
use crate::types::*;
use crate::{Kind, Store, normalise};

impl Store {
    /// Writes a delivery. One that is known again becomes a duplicate, whatever state it was given.
    pub async fn add_delivery(&self, mut new: NewDelivery) -> Result<Added> {
        normalise::delivery(&mut new)?;
        ask!(self, add_delivery(new))
    }

    /// Writes the content of a delivery once more, to be looked at anew, under another name. `None`: there is no such
    /// delivery, or its content is not there (any more).
    pub async fn repeat_delivery(
        &self,
        id: i64,
        event: &str,
        mut at: Timestamp,
        mut audit: AuditEntry,
    ) -> Result<Option<i64>> {
        normalise::name("event", event)?;
        normalise::time(&mut at);
        normalise::audit(&mut audit);
        ask!(self, repeat_delivery(id, event, at, audit))
    }

    pub async fn delivery(&self, id: i64) -> Result<Option<DeliveryRow>> {
        ask!(self, delivery(id))
    }

    /// The newest first, without their contents.
    pub async fn deliveries(&self, filter: &DeliveryFilter, paging: Paging) -> Result<Page<DeliveryRow>> {
        ask!(self, deliveries(filter, paging))
    }

    /// The oldest that wait.
    pub async fn waiting_deliveries(&self, limit: u32) -> Result<Vec<i64>> {
        ask!(self, waiting_deliveries(limit))
    }

    /// Writes what a delivery came to; says whether it was waiting.
    pub async fn settle_delivery(&self, id: i64, outcome: Value, mut at: Timestamp) -> Result<bool> {
        normalise::time(&mut at);
        ask!(self, settle_delivery(id, outcome, at))
    }

    /// Removes deliveries that came before a time and are settled, and whatever is to be known until `now` at most; says
    /// how many deliveries there were.
    pub async fn remove_deliveries(&self, mut before: Timestamp, mut now: Timestamp) -> Result<u64> {
        normalise::time(&mut before);
        normalise::time(&mut now);
        ask!(self, remove_deliveries(before, now))
    }
}
