//! Whom the engine asks: the language that a run's workflow was written in.

use pitcrew_core::engine::{Answer, Demand, Evaluate, Run, Slot};
use pitcrew_core::ir::{Language, MapUnit, When};
use pitcrew_lang::{Evaluator, tekton};
use serde_json::Value;

/// Answers for workflows of all languages.
pub(super) struct Languages<'a>(pub &'a Evaluator);

impl Evaluate for Languages<'_> {
    fn when(&self, run: &Run, slot: Slot) -> Result<Answer, String> {
        match (run.workflow.language, &run.workflow.task(slot.task).when) {
            (Language::Tekton, Some(When::Guard(_))) => tekton::run::guard(run, slot),
            (Language::Tekton | Language::Native, _) => self.0.when(run, slot),
        }
    }

    fn items(&self, run: &Run, unit: MapUnit) -> Result<Vec<Value>, String> {
        match run.workflow.language {
            Language::Tekton => tekton::run::items(run, unit),
            Language::Native => self.0.items(run, unit),
        }
    }

    fn branch(&self, run: &Run, slot: Slot) -> Result<Vec<String>, String> {
        self.0.branch(run, slot)
    }

    fn demand(&self, run: &Run, slot: Slot) -> Result<Demand, String> {
        self.0.demand(run, slot)
    }
}
