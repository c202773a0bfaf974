//! What a task of a Pipeline waits for, and what is asked before it begins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pitcrew_core::id::TaskId;
use pitcrew_core::ir::{Kind, Task, TaskIx, When, Work};
use pitcrew_core::trigger_rule::TriggerRule;
use serde_json::Value;

use super::Compiler;
use super::pipeline::Frame;
use crate::tekton::run::container::items;
use crate::tekton::run::guard::GuardTemplate;
use crate::tekton::substitute::{Reference, params, result_references, text_of};

impl Compiler<'_> {
    /// A task that does nothing but wait for those of an inner Pipeline.
    pub fn join(
        &mut self,
        frame: &Frame,
        from: &Value,
        name: &str,
        ids: &BTreeMap<String, TaskIx>,
    ) -> Result<Task, String> {
        let whens = self.around(frame).fill_value(&params::replacements(&frame.values).fill_value(&from["when"]));
        let mut task = Task::new(TaskId::new(name).map_err(|why| why.to_string())?, Work::Noop);
        task.trigger_rule = TriggerRule::NoneFailed;
        self.wait(&mut task, from, &whens, &result_references(&whens), ids);
        Ok(task)
    }

    /// Has a task wait for those that it names and for those whose results it uses.
    pub fn wait(
        &mut self,
        task: &mut Task,
        from: &Value,
        whens: &Value,
        references: &BTreeSet<Reference>,
        ids: &BTreeMap<String, TaskIx>,
    ) {
        let is_final = task.kind == Kind::Finally;
        let mut parents: BTreeSet<String> = BTreeSet::new();
        // A `finally` task waits for all others anyway.
        if !is_final {
            parents.extend(items(&from["runAfter"]).iter().map(text_of));
            for reference in references {
                let waits = match reference {
                    Reference::Result { task, .. } | Reference::Length { task, .. } | Reference::Artifact { task } => {
                        Some(task)
                    }
                    Reference::Status { .. } | Reference::Overall | Reference::FinallyResult { .. } => None,
                };
                parents.extend(waits.cloned());
            }
        }
        for parent in &parents {
            match ids.get(parent) {
                Some(ix) => task.needs.push(*ix),
                None => {
                    let why = format!("the task `{}` waits for the task `{parent}`, which is not there", task.id);
                    self.refuse_with("PipelineValidationFailed", why);
                }
            }
        }
        let results = references.iter().filter_map(|reference| match reference {
            Reference::Result { task, rest } => Some((task.clone(), rest.clone())),
            _ => None,
        });
        let guard = GuardTemplate {
            when: items(whens).to_vec(),
            parents: parents.into_iter().collect(),
            results: results.collect(),
            is_final,
            may_lack: task.ignore_failure,
        };
        if !guard.is_empty() {
            task.when = Some(When::Guard(Arc::new(guard.to_value())));
        }
    }
}
