//! Which servers have files of a run that nobody else has.

use pitcrew_core::id::RunKey;

use super::ask;
use crate::error::Result;
use crate::types::*;
use crate::{Kind, Store};

impl Store {
    /// Whether processes on several machines can have it.
    pub fn is_shared(&self) -> bool {
        match &self.kind {
            Kind::Memory(_) => false,
            Kind::Sql(store) => store.is_shared(),
        }
    }

    /// The data directories with files of the run, in order.
    pub async fn run_files(&self, run: RunKey) -> Result<Vec<RunFiles>> {
        ask!(self, run_files(run))
    }

    /// Notes that there are files of the run in a data directory, or that they are others than before.
    pub async fn put_run_files(&self, run: RunKey, home: &str) -> Result<()> {
        ask!(self, put_run_files(run, home))
    }

    /// `to` has what was noted as `files`. What was noted since, stays.
    pub async fn take_run_files(&self, run: RunKey, files: &RunFiles, to: &str) -> Result<()> {
        ask!(self, take_run_files(run, files, to))
    }
}
