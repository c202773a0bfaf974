//! Questions over many runs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pitcrew_core::id::{RunKey, WorkflowId};
use pitcrew_core::state::RunState;

use super::ask;
use crate::error::{Result, StoreError};
use crate::types::*;
use crate::{Kind, Store};

impl Store {
    /// Stored instances of whatever runs. `total` is counted up to [`TOTAL_CAP`].
    pub async fn task_instances(&self, query: &InstanceQuery, paging: Paging) -> Result<Page<InstanceOfRun>> {
        ask!(self, task_instances(query, paging))
    }

    /// The newest `runs` of a workflow, or those before one, with the states of their tasks.
    pub async fn grid(&self, workflow: &WorkflowId, before: Option<RunKey>, runs: u32) -> Result<Grid> {
        ask!(self, grid(workflow, before, runs))
    }

    /// How many runs, by their `run_after`, lie between each bound and the next: one entry per pair of
    /// neighbours. The bounds of days in a time zone make a calendar.
    pub async fn run_days(&self, workflow: Option<&WorkflowId>, bounds: &[Timestamp]) -> Result<Vec<RunCounts>> {
        if !bounds.is_sorted() {
            return Err(StoreError::Invalid("the bounds of a calendar must ascend".to_owned()));
        }
        ask!(self, run_days(workflow, bounds))
    }

    /// How well the service did.
    pub async fn figures(&self, of: &FiguresOf) -> Result<Figures> {
        ask!(self, figures(of))
    }

    /// The newest `limit` runs of each of these workflows, the newest first; workflows without runs are left out.
    pub async fn recent_runs(
        &self,
        workflows: &[WorkflowId],
        limit: u32,
    ) -> Result<BTreeMap<WorkflowId, Vec<RunBrief>>> {
        ask!(self, recent_runs(workflows, limit))
    }

    /// How many runs, whatever their workflow, are in a state; counted up to [`TOTAL_CAP`], above it one more.
    pub async fn runs_in(&self, state: RunState) -> Result<u64> {
        ask!(self, runs_in(state))
    }

    /// How many stored instances, whatever their run, are in each state; each counted up to [`TOTAL_CAP`], above
    /// it one more. States without instances are left out.
    pub async fn instances_in(&self) -> Result<StateCounts> {
        ask!(self, instances_in())
    }
}
