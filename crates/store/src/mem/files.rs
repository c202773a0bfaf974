//! Files of runs in memory.

use pitcrew_core::id::RunKey;

use super::Mem;
use crate::error::Result;
use crate::types::*;

impl Mem {
    pub fn run_files(&self, run: RunKey) -> Result<Vec<RunFiles>> {
        let state = self.lock();
        let of_run = state.run_files.iter().filter(|((of, _), _)| *of == run);
        Ok(of_run.map(|((_, home), version)| RunFiles { home: home.clone(), version: *version }).collect())
    }

    pub fn put_run_files(&self, run: RunKey, home: &str) -> Result<()> {
        *self.lock().run_files.entry((run, home.to_owned())).or_default() += 1;
        Ok(())
    }

    pub fn take_run_files(&self, run: RunKey, files: &RunFiles, to: &str) -> Result<()> {
        let mut state = self.lock();
        *state.run_files.entry((run, to.to_owned())).or_default() += 1;
        state.run_files.retain(|(of, home), version| (*of, home, *version) != (run, &files.home, files.version));
        Ok(())
    }
}
