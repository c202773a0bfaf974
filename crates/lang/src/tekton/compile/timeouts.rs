//! How long a PipelineRun, its tasks and its `finally` tasks may run.

use jiff::SignedDuration;
use pitcrew_core::ir::{Timeouts, Workflow};

use super::Compiler;

impl Compiler<'_> {
    /// Of the whole run.
    pub fn run_timeout(&mut self) -> Option<SignedDuration> {
        let usual = self.usual_timeout();
        self.timeout(&self.spec["timeouts"]["pipeline"], usual)
    }

    /// Of a task that says nothing: that of all tasks, else that of the run.
    pub fn task_timeout(&mut self) -> Option<SignedDuration> {
        let run = self.run_timeout();
        match self.spec["timeouts"]["tasks"].as_str() {
            Some(_) => self.timeout(&self.spec["timeouts"]["tasks"], SignedDuration::ZERO),
            None => run,
        }
    }

    /// What is left over of the run's time is what the side that says nothing has.
    pub fn set_timeouts(&mut self, workflow: &mut Workflow) {
        let run = self.run_timeout();
        let timeouts = &self.spec["timeouts"];
        let mut own = |field: &str| match timeouts[field].as_str() {
            Some(_) => self.timeout(&timeouts[field], SignedDuration::ZERO),
            None => None,
        };
        let (tasks, finally) = (own("tasks"), own("finally"));
        let left = |other: Option<SignedDuration>| Some(run? - other?).filter(|left| *left > SignedDuration::ZERO);
        workflow.timeouts = Timeouts {
            run,
            ends_finally: true,
            tasks: tasks.or_else(|| left(finally)),
            finally: finally.or_else(|| left(tasks)),
        };
    }
}
