//! What recovery knows of nodes and jobs, and the incidents there were.

use jiff::Timestamp;
use pitcrew_core::RunKey;
use pitcrew_core::recovery::{Incident, IncidentId, Key, Record};

use super::ask;
use crate::error::Result;
use crate::types::*;
use crate::{Kind, Store};

impl Store {
    /// What a restart needs: all rows of the fleet, of nodes and of jobs, and of incidents those that are open or the
    /// newest of their node.
    pub async fn recovery_records(&self) -> Result<Vec<Record>> {
        ask!(self, recovery_records())
    }

    /// Begins a term of whoever decides about recovery; all before it are over. To be called before the rows are read, by
    /// which is decided: nothing of an earlier term is written after that.
    pub async fn take_recovery(&self) -> Result<u64> {
        ask!(self, take_recovery())
    }

    /// Puts rows in place and removes others, all or none. Refused as a conflict where the term is over.
    pub async fn write_recovery(&self, term: u64, put: &[Record], removed: &[Key]) -> Result<()> {
        ask!(self, write_recovery(term, put, removed))
    }

    /// The newest first.
    pub async fn incidents(&self, filter: &IncidentFilter, paging: Paging) -> Result<Page<Incident>> {
        ask!(self, incidents(filter, paging))
    }

    /// Those that hit jobs of a run and were opened then or later, the newest first and a hundred at most.
    pub async fn incidents_of_run(&self, run: RunKey, since: Timestamp) -> Result<Vec<Incident>> {
        ask!(self, incidents_of_run(run, since))
    }

    pub async fn incident(&self, id: IncidentId) -> Result<Option<Incident>> {
        ask!(self, incident(id))
    }
}
