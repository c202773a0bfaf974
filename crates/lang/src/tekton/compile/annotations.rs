//! What Pitcrew knows and Tekton has no field for: annotations of its own, which mean nothing to Tekton.
//!
//! Those of a run go before those of its Pipeline, and those of a Task go for that Task alone. A value that cannot be read is an
//! error, and a name that means nothing here is told.

use pitcrew_core::ir::{Task, Workflow};
use serde_json::{Map, Value};

use super::Compiler;
use crate::decode::notify_rules;
use crate::diagnostic::closest;
use crate::tekton::run::GPU_ANNOTATION;
use crate::triggers::report;

const PREFIX: &str = "pitcrew.dev/";
const NOTIFY: &str = "pitcrew.dev/notify";
const TAGS: &str = "pitcrew.dev/tags";
const MAX_ACTIVE_RUNS: &str = "pitcrew.dev/max-active-runs";
const MAX_PARALLEL: &str = "pitcrew.dev/max-parallel";
const PRIORITY: &str = "pitcrew.dev/priority";
const PREEMPTIBLE: &str = "pitcrew.dev/preemptible";
const POOL: &str = "pitcrew.dev/pool";
const ALL: [&str; 8] = [GPU_ANNOTATION, NOTIFY, TAGS, MAX_ACTIVE_RUNS, MAX_PARALLEL, PRIORITY, PREEMPTIBLE, POOL];

impl Compiler<'_> {
    /// What is said of all runs of the workflow, and who is told of them.
    pub fn annotate_run(&mut self, workflow: &mut Workflow, annotations: &Map<String, Value>) -> Result<(), String> {
        if let Some(rules) = annotations.get(NOTIFY).and_then(Value::as_str) {
            workflow.notify = notify_rules(rules).map_err(|why| wrong(NOTIFY, &why))?;
        }
        if let Some(tags) = annotations.get(TAGS).and_then(Value::as_str) {
            workflow.tags = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
        }
        if let Some(most) = whole(annotations, MAX_ACTIVE_RUNS, 1, 100_000)? {
            workflow.max_active_runs = u32::try_from(most).unwrap_or(u32::MAX);
        }
        let is_known = |name: &str| ALL.contains(&name) || report::ALL.contains(&name);
        for name in annotations.keys().filter(|name| name.starts_with(PREFIX) && !is_known(name)) {
            let meant = closest(name, ALL).map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
            self.tell(format!("the annotation `{name}` means nothing here{meant}"));
        }
        Ok(())
    }

    /// What is said of a task, by itself or for all.
    pub fn annotate_task(&self, task: &mut Task, annotations: &Map<String, Value>) -> Result<(), String> {
        if let Some(most) = whole(annotations, MAX_PARALLEL, 1, 1_000_000)? {
            task.max_parallel = u32::try_from(most).ok();
        }
        if let Some(priority) = whole(annotations, PRIORITY, -1_000_000, 1_000_000)? {
            task.priority = priority;
        }
        task.is_preemptible = match annotations.get(PREEMPTIBLE).and_then(Value::as_str) {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => return Err(wrong(PREEMPTIBLE, &format!("it is `true` or `false`, not `{other}`"))),
        };
        if let Some(pool) = annotations.get(POOL).and_then(Value::as_str).filter(|pool| !pool.is_empty()) {
            task.pool = Some(pool.to_owned());
        }
        Ok(())
    }
}

fn wrong(name: &str, why: &str) -> String {
    format!("the annotation `{name}`: {why}")
}

fn whole(annotations: &Map<String, Value>, name: &str, least: i64, most: i64) -> Result<Option<i64>, String> {
    let Some(text) = annotations.get(name).and_then(Value::as_str) else { return Ok(None) };
    match text.trim().parse().ok().filter(|number| (least..=most).contains(number)) {
        Some(number) => Ok(Some(number)),
        None => Err(wrong(name, &format!("it is a whole number from {least} to {most}, not `{text}`"))),
    }
}

#[cfg(test)]
mod tests {
    use pitcrew_core::ir::NotifyEvent;
    use serde_json::json;

    use super::super::{Bundle, Options, compile};
    use super::*;
    use crate::Compiled;

    fn compiled(of_pipeline: Value, of_task: Value) -> Result<Compiled, String> {
        let pipeline = json!({"kind": "Pipeline", "metadata": {"name": "p", "annotations": of_pipeline}, "spec": {"tasks": [
            {"name": "a", "taskRef": {"name": "t"}, "matrix": {"params": [{"name": "n", "value": ["1", "2"]}]}}]}});
        let task = json!({"kind": "Task", "metadata": {"name": "t", "annotations": of_task},
            "spec": {"params": [{"name": "n"}], "steps": [{"name": "s", "image": "i", "script": "x"}]}});
        let run = json!({"kind": "PipelineRun", "metadata": {"name": "r", "namespace": "team", "annotations": {TAGS: "gpu, nightly"}},
            "spec": {"pipelineRef": {"name": "p"}}});
        let bundle = Bundle::collect(&run, &[pipeline, task]);
        compile(&bundle, Some(&run), &Options::default()).map_err(|found| found[0].message.clone())
    }

    #[test]
    fn a_run_has_rules_tags_and_limits_and_a_task_its_own() {
        let made = compiled(
            json!({NOTIFY: "[{on: [failure, recovery], to: slack}]", TAGS: "of the pipeline", MAX_ACTIVE_RUNS: "2"}),
            json!({MAX_PARALLEL: "1", PRIORITY: "-3", PREEMPTIBLE: "true", POOL: "licences"}),
        )
        .unwrap();
        let workflow = made.workflow;
        assert_eq!(workflow.namespace, "team", "its quota counts");
        assert_eq!(workflow.notify[0].on, [NotifyEvent::Failure, NotifyEvent::Recovery]);
        assert_eq!((workflow.tags, workflow.max_active_runs), (vec!["gpu".to_owned(), "nightly".to_owned()], 2));
        let task = &workflow.tasks[0];
        assert_eq!((task.max_parallel, task.priority, task.is_preemptible), (Some(1), -3, true));
        assert_eq!(task.pool.as_deref(), Some("licences"));
        assert!(made.warnings.is_empty(), "{:?}", made.warnings);
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_what_means_nothing_is_told() {
        for (annotations, said) in [
            (json!({NOTIFY: "[{on: failed, to: x}]"}), "the annotation `pitcrew.dev/notify`: unknown event `failed`"),
            (json!({NOTIFY: "{on: [failure"}), "the annotation `pitcrew.dev/notify`: "),
            (json!({MAX_ACTIVE_RUNS: "none"}), "it is a whole number from 1 to 100000, not `none`"),
            (json!({PREEMPTIBLE: "yes"}), "it is `true` or `false`, not `yes`"),
        ] {
            let why = compiled(annotations, json!({})).unwrap_err();
            assert!(why.contains(said), "{why} is not {said}");
        }
        let made = compiled(json!({"pitcrew.dev/tag": "x"}), json!({})).unwrap();
        let told: Vec<String> = made.warnings.into_iter().map(|told| told.message).collect();
        assert_eq!(told, ["the annotation `pitcrew.dev/tag` means nothing here; did you mean `pitcrew.dev/tags`?"]);
    }
}
