//! What tasks of a run have come to: the results, states and reasons that others refer to.

use std::collections::BTreeMap;

use pitcrew_core::engine::Run;
use pitcrew_core::engine::record::{InstanceRecord, SkipReason};
use pitcrew_core::ir::{Kind, Task, TaskIx, Workflow};
use pitcrew_core::pod::ARTIFACTS;
use pitcrew_core::state::{Exit, State};
use serde_json::Value;

use crate::tekton::substitute::{Replacements, text_of};

/// All tasks of a run, by their names in the pipeline.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    pub tasks: BTreeMap<String, TaskFacts>,
}

/// What became of one task.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskFacts {
    pub state: TaskState,
    /// Of the first TaskRun that did not succeed, else of the last.
    pub reason: String,
    /// The failure of the task does not count.
    pub is_ignored: bool,
    /// A `finally` task.
    pub is_final: bool,
    /// It has a matrix.
    pub is_matrix: bool,
    /// Of each TaskRun, in the order of the matrix.
    pub results: Vec<BTreeMap<String, Value>>,
    /// Of each TaskRun that has some: `{inputs, outputs}` by the names of the artifacts.
    pub artifacts: Vec<Value>,
}

/// A task as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TaskState {
    /// Not over, or never begun.
    #[default]
    Open,
    Succeeded,
    Failed,
    Skipped(Skip),
}

/// Why a task was skipped, as far as other tasks ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// Its own conditions: those that only come after it run all the same.
    When,
    Other,
}

impl TaskFacts {
    /// As `$(tasks.T.status)` has it.
    pub fn status(&self) -> &'static str {
        match self.state {
            TaskState::Succeeded => "Succeeded",
            TaskState::Failed => "Failed",
            TaskState::Open | TaskState::Skipped(_) => "None",
        }
    }

    /// Its results: of a matrix the list of what each TaskRun gave.
    pub fn merged(&self) -> BTreeMap<String, Value> {
        if !self.is_matrix {
            return self.results.first().cloned().unwrap_or_default();
        }
        let mut merged: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for results in &self.results {
            for (name, value) in results {
                merged.entry(name.clone()).or_default().push(Value::String(text_of(value)));
            }
        }
        merged.into_iter().map(|(name, values)| (name, Value::Array(values))).collect()
    }

    /// Its artifacts of one side by their names: of a matrix what all its TaskRuns have.
    fn artifacts_of(&self, side: &str) -> BTreeMap<String, Value> {
        let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for artifacts in &self.artifacts {
            for (name, values) in artifacts[side].as_object().into_iter().flatten() {
                found.entry(name.clone()).or_default().extend(values.as_array().into_iter().flatten().cloned());
            }
        }
        found.into_iter().map(|(name, values)| (name, Value::Array(values))).collect()
    }

    /// Whether others may use its results.
    pub fn has_results(&self) -> bool {
        match self.state {
            TaskState::Succeeded => true,
            TaskState::Failed => self.is_ignored,
            TaskState::Open | TaskState::Skipped(_) => false,
        }
    }
}

impl Facts {
    /// As `$(tasks.status)` has it: of all but the `finally` tasks.
    pub fn overall(&self) -> &'static str {
        let mut skipped = false;
        let mut open = false;
        for task in self.tasks.values().filter(|task| !task.is_final) {
            match task.state {
                TaskState::Failed if !task.is_ignored => return "Failed",
                TaskState::Failed | TaskState::Succeeded => {}
                TaskState::Skipped(_) => skipped = true,
                TaskState::Open => open = true,
            }
        }
        match (open, skipped) {
            (true, _) => "None",
            (false, true) => "Completed",
            (false, false) => "Succeeded",
        }
    }

    /// What variables over tasks stand for.
    pub fn replacements(&self) -> Replacements {
        let mut known = Replacements::new();
        if self.tasks.is_empty() {
            return known;
        }
        known.text("tasks.status", self.overall());
        for (name, task) in &self.tasks {
            known.text(format!("tasks.{name}.status"), task.status());
            known.text(format!("tasks.{name}.reason"), if task.reason.is_empty() { "None" } else { &task.reason });
            if task.is_matrix {
                known.text(format!("tasks.{name}.matrix.length"), task.results.len().to_string());
            }
            // A failed one keeps what it wrote, for the results of the pipeline.
            let root = if task.is_final { "finally" } else { "tasks" };
            for side in ["inputs", "outputs"] {
                for (at, (artifact, values)) in task.artifacts_of(side).into_iter().enumerate() {
                    // Without a name it is the first.
                    if at == 0 {
                        known.text(format!("{root}.{name}.{side}"), values.to_string());
                    }
                    known.text(format!("{root}.{name}.{side}.{artifact}"), values.to_string());
                }
            }
            for (result, value) in task.merged() {
                if task.is_matrix {
                    let length = value.as_array().map_or(0, Vec::len);
                    known.text(format!("tasks.{name}.matrix.{result}.length"), length.to_string());
                }
                known.value(&format!("{root}.{name}.results"), &result, &value);
            }
        }
        known
    }
}

/// What one row of a task says, in memory or stored.
struct Seen<'a> {
    state: State,
    exit: Option<&'a Exit>,
    skip: Option<SkipReason>,
    outputs: &'a BTreeMap<String, Value>,
}

impl TaskFacts {
    fn of(task: &Task, rows: &[Seen<'_>]) -> TaskFacts {
        let failed = |row: &&Seen<'_>| row.exit.is_some_and(|exit| !exit.is_success());
        let is_open = rows.is_empty() || rows.iter().any(|row| !row.state.is_final());
        let has = |state: State| rows.iter().any(|row| row.state == state);
        let is_ignored = task.ignore_failure && !has(State::Failed) && rows.iter().any(|row| failed(&row));
        let state = if is_open {
            TaskState::Open
        } else if has(State::Failed) || is_ignored {
            TaskState::Failed
        } else if has(State::Success) {
            TaskState::Succeeded
        } else if rows.iter().all(|row| row.skip == Some(SkipReason::When)) {
            TaskState::Skipped(Skip::When)
        } else {
            TaskState::Skipped(Skip::Other)
        };
        let reason = match state {
            TaskState::Succeeded => "Succeeded",
            TaskState::Failed if is_ignored => "FailureIgnored",
            TaskState::Failed => rows.iter().find(failed).and_then(|row| row.exit).map_or("Failed", reason_of),
            TaskState::Open | TaskState::Skipped(_) => "None",
        };
        TaskFacts {
            state,
            reason: reason.to_owned(),
            is_ignored,
            is_final: task.kind == Kind::Finally,
            is_matrix: task.foreach.is_some(),
            results: rows
                .iter()
                .map(|row| {
                    let results = row.outputs.iter().filter(|(name, _)| *name != ARTIFACTS);
                    results.map(|(name, value)| (name.clone(), value.clone())).collect()
                })
                .collect(),
            artifacts: rows.iter().filter_map(|row| row.outputs.get(ARTIFACTS).cloned()).collect(),
        }
    }
}

impl Facts {
    /// From a run in memory.
    pub fn of(run: &Run) -> Facts {
        let workflow = &run.workflow;
        let facts = |ix: TaskIx| {
            let rows: Vec<Seen<'_>> = run
                .slots(ix)
                .filter_map(|slot| run.get(slot))
                .map(|row| Seen { state: row.state, exit: row.exit.as_ref(), skip: row.skip, outputs: &row.outputs })
                .collect();
            (workflow.task(ix).id.as_str().to_owned(), TaskFacts::of(workflow.task(ix), &rows))
        };
        Facts { tasks: workflow.indices().map(facts).collect() }
    }

    /// From the rows of a run.
    pub fn of_rows(workflow: &Workflow, rows: &[InstanceRecord]) -> Facts {
        let mut by_task: BTreeMap<&str, Vec<&InstanceRecord>> = BTreeMap::new();
        for row in rows {
            by_task.entry(row.task.as_str()).or_default().push(row);
        }
        let facts = |task: &Task| {
            let mut rows = by_task.get(task.id.as_str()).cloned().unwrap_or_default();
            rows.sort_by_key(|row| row.map_index);
            let rows: Vec<Seen<'_>> = rows
                .into_iter()
                .map(|row| Seen { state: row.state, exit: row.exit.as_ref(), skip: row.skip, outputs: &row.outputs })
                .collect();
            (task.id.as_str().to_owned(), TaskFacts::of(task, &rows))
        };
        Facts { tasks: workflow.tasks.iter().map(facts).collect() }
    }
}

/// The reason of a TaskRun that ended so, where nothing of its pod is known.
pub fn reason_of(exit: &Exit) -> &'static str {
    match exit {
        Exit::TimedOut => "TaskRunTimeout",
        Exit::Cancelled => "TaskRunCancelled",
        Exit::StartFailed { .. } => "TaskRunValidationFailed",
        exit if exit.is_success() => "Succeeded",
        Exit::Code { .. } | Exit::Signal { .. } | Exit::OutOfMemory | Exit::Lost { .. } => "Failed",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(state: TaskState, results: Vec<Value>) -> TaskFacts {
        let results = results.into_iter().map(|result| serde_json::from_value(result).unwrap()).collect();
        TaskFacts { state, results, ..TaskFacts::default() }
    }

    #[test]
    fn variables_over_tasks_have_their_values() {
        let mut facts = Facts::default();
        let one = json!({"text": "v\n", "list": ["a", "b"], "map": {"k": "w"}});
        facts.tasks.insert("one".into(), task(TaskState::Succeeded, vec![one]));
        facts.tasks.insert("skipped".into(), task(TaskState::Skipped(Skip::When), vec![]));
        let mut matrix = task(TaskState::Succeeded, vec![json!({"r": "0"}), json!({}), json!({"r": "2"})]);
        matrix.is_matrix = true;
        facts.tasks.insert("m".into(), matrix);
        let mut last = task(TaskState::Failed, vec![json!({"r": "x"})]);
        last.is_final = true;
        last.reason = "Failed".into();
        facts.tasks.insert("f".into(), last);
        let mut made = task(TaskState::Succeeded, vec![]);
        made.artifacts = vec![json!({"inputs": {}, "outputs": {"image": [{"uri": "u"}], "sbom": []}})];
        facts.tasks.insert("a".into(), made);
        let known = facts.replacements();
        for (text, expected) in [
            ("$(tasks.one.results.text)", "v\n"),
            ("$(tasks.one.results['list'][1])", "b"),
            ("$(tasks.one.results.map.k)", "w"),
            ("$(tasks.one.results.other)", "$(tasks.one.results.other)"),
            ("$(tasks.one.status) $(tasks.skipped.status) $(tasks.f.status)", "Succeeded None Failed"),
            ("$(tasks.f.reason)", "Failed"),
            ("$(tasks.m.matrix.length) $(tasks.m.matrix.r.length)", "3 2"),
            ("$(finally.f.results.r)", "x"),
            ("$(tasks.a.outputs.image) $(tasks.a.outputs.sbom)", r#"[{"uri":"u"}] []"#),
            (
                "$(tasks.a.outputs) $(tasks.a.inputs) $(tasks.one.outputs)",
                r#"[{"uri":"u"}] $(tasks.a.inputs) $(tasks.one.outputs)"#,
            ),
            ("$(tasks.status)", "Completed"),
        ] {
            assert_eq!(known.fill(text), expected, "{text}");
        }
        assert_eq!(known.whole("$(tasks.m.results.r[*])"), Some(&json!(["0", "2"])));
    }

    #[test]
    fn the_state_of_all_tasks_leaves_out_what_is_ignored() {
        let overall = |tasks: Vec<TaskFacts>| {
            let tasks = tasks.into_iter().enumerate().map(|(at, task)| (at.to_string(), task)).collect();
            Facts { tasks }.overall()
        };
        let ignored = TaskFacts { is_ignored: true, ..task(TaskState::Failed, vec![]) };
        let done = task(TaskState::Succeeded, vec![]);
        assert_eq!(overall(vec![done.clone(), ignored.clone()]), "Succeeded");
        assert_eq!(overall(vec![done.clone(), task(TaskState::Failed, vec![])]), "Failed");
        assert_eq!(overall(vec![done.clone(), task(TaskState::Skipped(Skip::Other), vec![])]), "Completed");
        assert_eq!(overall(vec![done, task(TaskState::Open, vec![])]), "None");
    }
}
