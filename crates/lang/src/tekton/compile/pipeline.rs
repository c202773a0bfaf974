//! A PipelineRun: the tasks of its Pipeline with all that the run gives them.

use std::collections::{BTreeMap, BTreeSet};

use pitcrew_core::ir::{Foreach, Kind, Shape, Task, TaskIx, Workflow};
use pitcrew_core::trigger_rule::TriggerRule;
use serde_json::{Map, Value, json};

use super::nested::{self, JOIN};
use super::task::resources_by_name;
use super::{Bundle, Compiler, Options, laid, written};
use crate::tekton::run::container::{items, text};
use crate::tekton::run::steps::deep;
use crate::tekton::run::template::{Membership, Template};
use crate::tekton::status::names::child_name;
use crate::tekton::substitute::params::{self, Values};
use crate::tekton::substitute::{Replacements, names, result_references, text_of};

/// Combinations of a matrix beyond this many fail it.
const USUAL_MATRIX: u32 = 256;

/// A Pipeline with the values of its run.
pub struct Frame {
    /// Empty: the Pipeline is written in the run.
    pub name: String,
    pub metadata: Value,
    pub spec: Value,
    /// Params of the Pipeline and of the run.
    pub values: Values,
    /// Bindings by the names of the Pipeline's workspaces.
    pub workspaces: BTreeMap<String, Value>,
}

impl Compiler<'_> {
    /// The workflow of a PipelineRun.
    pub fn pipeline_run(&mut self) -> Result<Workflow, String> {
        let mut workflow = self.workflow()?;
        let Some(frame) = self.frame() else {
            workflow.link().map_err(|cycle| cycle.to_string())?;
            return Ok(workflow);
        };
        workflow.description = text(&frame.spec, "description");
        let annotations = laid(&frame.metadata["annotations"], &self.run["metadata"]["annotations"]);
        self.annotate_run(&mut workflow, &annotations)?;
        self.check_run(&frame);
        let pairs: Vec<(&Value, bool)> = items(&frame.spec["tasks"])
            .iter()
            .map(|task| (task, false))
            .chain(items(&frame.spec["finally"]).iter().map(|task| (task, true)))
            .collect();
        let mut ids = BTreeMap::new();
        for (at, (task, _)) in pairs.iter().enumerate() {
            ids.insert(text(task, "name"), TaskIx(at as u32));
        }
        for (task, is_final) in &pairs {
            let made = self.pipeline_task(&frame, task, *is_final, &ids)?;
            workflow.tasks.push(made);
        }
        self.check_tasks(&frame, &pairs);
        self.set_timeouts(&mut workflow);
        workflow.link().map_err(|cycle| format!("the tasks wait for one another: {cycle}"))?;
        Ok(workflow)
    }

    /// The Pipeline with the values of the run; `None`: it is not there.
    pub fn frame(&mut self) -> Option<Frame> {
        let bundle = self.bundle;
        let root = &bundle.root;
        let reference = root["name"].as_str();
        let document = match reference {
            Some(name) => bundle.pipelines.get(name).cloned(),
            None => Some(json!({ "metadata": {}, "spec": root["spec"] })),
        };
        let Some(document) = document else {
            let name = reference.unwrap_or_default();
            self.refuse_with("CouldntGetPipeline", bundle.missing("Pipeline", name));
            return None;
        };
        if items(&document["spec"]["tasks"]).is_empty() {
            self.refuse_with("PipelineValidationFailed", "the Pipeline has no tasks");
        }
        let spec = match nested::flat(&document["spec"], &self.name, self.bundle, 0) {
            Ok(spec) => spec,
            Err(why) => {
                self.refuse_with("PipelineValidationFailed", why);
                return None;
            }
        };
        let given = params::given(&self.spec["params"]);
        let contexts = self.contexts(reference.unwrap_or(&self.name));
        let own = match params::resolve(&spec["params"], &given) {
            Ok(own) => own,
            Err(why) => {
                self.refuse_with("PipelineValidationFailed", why);
                Values::new()
            }
        };
        let values = params::overlay(&given, &own);
        let values = values.into_iter().map(|(name, value)| (name, contexts.fill_param(&value))).collect();
        let bindings = items(&self.spec["workspaces"]);
        Some(Frame {
            name: reference.unwrap_or_default().to_owned(),
            metadata: document["metadata"].clone(),
            spec,
            values,
            workspaces: bindings.iter().map(|one| (text(one, "name"), self.binding(one))).collect(),
        })
    }

    /// Variables of the run itself.
    fn contexts(&self, pipeline: &str) -> Replacements {
        let mut known = Replacements::new();
        known.text("context.pipelineRun.name", &self.name);
        known.text("context.pipelineRun.namespace", &self.namespace);
        known.text("context.pipelineRun.uid", &self.uid);
        known.text("context.pipeline.name", pipeline);
        known
    }

    /// What holds in all texts of the Pipeline, after its params.
    pub fn around(&self, frame: &Frame) -> Replacements {
        let mut known = self.contexts(if frame.name.is_empty() { &self.name } else { &frame.name });
        let declared = items(&frame.spec["workspaces"]).iter().map(|one| text(one, "name"));
        for name in declared.chain(frame.workspaces.keys().cloned()) {
            let bound = frame.workspaces.contains_key(&name);
            known.text(format!("workspaces.{name}.bound"), bound.to_string());
        }
        known
    }

    /// What a task of a Pipeline runs, and whether that is written there.
    pub fn task_spec(&self, task: &Value) -> (Value, bool) {
        match task["taskRef"]["name"].as_str() {
            Some(name) => (self.bundle.tasks.get(name).map(|found| found["spec"].clone()).unwrap_or_default(), false),
            None => (task["taskSpec"].clone(), true),
        }
    }

    fn pipeline_task(
        &mut self,
        frame: &Frame,
        from: &Value,
        is_final: bool,
        ids: &BTreeMap<String, TaskIx>,
    ) -> Result<Task, String> {
        let name = text(from, "name");
        if from.get(JOIN).is_some() {
            return self.join(frame, from, &name, ids);
        }
        if from["taskRef"]["apiVersion"].as_str().is_some_and(|version| !version.starts_with("tekton.dev/")) {
            return Err(format!("the task `{name}` is for another controller; only Tasks can be run"));
        }
        let mut around = self.around(frame);
        around.text("context.pipelineTask.retries", from["retries"].as_u64().unwrap_or(0).to_string());
        let of_params = params::replacements(&frame.values);
        let fill = |value: &Value| around.fill_value(&of_params.fill_value(value));
        let over = items(&self.spec["taskRunSpecs"]).iter().find(|own| own["pipelineTaskName"] == name.as_str());
        let over = over.map(&fill).unwrap_or_default();
        let reference = from["taskRef"]["name"].as_str();
        let (document, spec) = match reference {
            Some(named) => {
                let document = self.bundle.tasks.get(named).cloned().unwrap_or_default();
                let spec = document["spec"].clone();
                (document, spec)
            }
            // Params are put in place when it is launched, where its own go before those of the Pipeline.
            None => (json!({ "metadata": from["taskSpec"]["metadata"] }), around.fill_value(&without_metadata(from))),
        };
        let run_template = &self.spec["taskRunTemplate"];
        let retries = from["retries"].as_u64().unwrap_or(0) as u32;
        let mut labels = laid(&self.run["metadata"]["labels"], &frame.metadata["labels"]);
        labels = laid(&Value::Object(labels), &document["metadata"]["labels"]);
        labels = laid(&Value::Object(labels), &over["metadata"]["labels"]);
        labels.insert("tekton.dev/memberOf".into(), if is_final { "finally" } else { "tasks" }.into());
        let mut annotations = laid(&self.run["metadata"]["annotations"], &frame.metadata["annotations"]);
        annotations = laid(&Value::Object(annotations), &document["metadata"]["annotations"]);
        annotations = laid(&Value::Object(annotations), &over["metadata"]["annotations"]);
        let account = [&over["serviceAccountName"], &run_template["serviceAccountName"]];
        let account = account.into_iter().find(|named| named.as_str().is_some_and(|name| !name.is_empty()));
        let usual = self.task_timeout();
        let named = [&over["timeout"], &from["timeout"]].into_iter().find(|written| written.is_string());
        let timeout = match named {
            Some(named) => self.timeout(&named.clone(), usual.unwrap_or_default()),
            None => usual,
        };
        let matrix = from.get("matrix").map(&fill);
        let mut template = Template {
            name: child_name(&self.name, &format!("-{name}")),
            namespace: self.namespace.clone(),
            pipeline: Some(Membership {
                run: self.name.clone(),
                uid: self.uid.clone(),
                pipeline: if frame.name.is_empty() { self.name.clone() } else { frame.name.clone() },
                task: name.clone(),
            }),
            task: reference.map(str::to_owned),
            spec,
            step_actions: self.step_actions(),
            params: params::given(&fill(&from["params"])),
            propagated: if reference.is_none() { frame.values.clone() } else { Values::new() },
            is_matrix: matrix.is_some(),
            labels,
            annotations,
            service_account: self.service_account(account.unwrap_or(&Value::Null)),
            pod_template: self.pod_template(merged(&fill(&run_template["podTemplate"]), &over["podTemplate"])),
            timeout: written(timeout),
            retries,
            compute_resources: over["computeResources"].clone(),
            step_resources: resources_by_name(&over["stepSpecs"]),
            sidecar_resources: resources_by_name(&over["sidecarSpecs"]),
            limits: self.limits(),
            ..Template::default()
        };
        self.bind(frame, from, &mut template, &fill);
        self.default_workspaces(&mut template);
        let mut task = self.task(&name, &template, timeout)?;
        let shown = |field: &str| text(&fill(&json!({ field: from[field] })), field);
        if !shown("displayName").is_empty() {
            task.description = shown("displayName");
        }
        self.annotate_task(&mut task, &template.annotations)?;
        task.ignore_failure = shown("onError") == "continue";
        // A `finally` task comes after all others, whatever became of them.
        (task.kind, task.trigger_rule) = match is_final {
            true => (Kind::Finally, TriggerRule::AllDone),
            false => (task.kind, TriggerRule::NoneFailed),
        };
        let whens = fill(&from["when"]);
        let used = json!([template.params, whens, matrix, referring_spec(from, &template), template.workspaces]);
        let references = result_references(&used);
        self.wait(&mut task, from, &whens, &references, ids);
        if let Some(matrix) = matrix {
            let most = self.default("default-max-matrix-combinations-count").and_then(|most| most.parse().ok());
            let refs = result_references(&matrix).iter().filter_map(|r| ids.get(r.task()?).copied()).collect();
            task.foreach = Some(Foreach {
                shape: Shape::Product,
                axes: vec![(String::new(), matrix)],
                refs,
                max_items: most.unwrap_or(USUAL_MATRIX),
            });
        }
        Ok(task)
    }

    /// The workspaces of a task, by the Task's own names for them.
    fn bind(&mut self, frame: &Frame, from: &Value, template: &mut Template, fill: &impl Fn(&Value) -> Value) {
        for mapping in items(&from["workspaces"]) {
            let (name, source) = (text(mapping, "name"), source_of(mapping));
            let Some(binding) = frame.workspaces.get(&source) else {
                let is_declared = items(&frame.spec["workspaces"]).iter().any(|one| one["name"] == source.as_str());
                if !is_declared {
                    let task = text(from, "name");
                    let why =
                        format!("the task `{task}` uses the workspace `{source}`, which the pipeline does not have");
                    self.refuse_with("InvalidWorkspaceBindings", why);
                }
                continue;
            };
            template.workspaces.insert(name, below(binding, &text(&fill(mapping), "subPath")));
        }
        if !template.is_inline() {
            return;
        }
        // What a spec that is written here uses of the run's, it has under the same name.
        let declared = items(&template.spec["workspaces"]).iter().map(|one| text(one, "name"));
        let used = names(&template.spec);
        let used = used
            .iter()
            .filter_map(|variable| Some(variable.strip_prefix("workspaces.")?.rsplit_once('.')?.0.to_owned()));
        let wanted: BTreeSet<String> = declared.chain(used).collect();
        for name in wanted {
            if let Some(binding) = frame.workspaces.get(&name) {
                template.workspaces.entry(name).or_insert_with(|| binding.clone());
            }
        }
    }
}

/// A binding, further down.
fn below(binding: &Value, sub_path: &str) -> Value {
    let mut binding = binding.clone();
    if !sub_path.is_empty()
        && let Some(map) = binding.as_object_mut()
    {
        let above = map.get("subPath").map(text_of).unwrap_or_default();
        let joined = if above.is_empty() { sub_path.to_owned() } else { format!("{above}/{sub_path}") };
        map.insert("subPath".into(), joined.into());
    }
    binding
}

/// The name that the Pipeline has for a workspace of a task.
pub fn source_of(mapping: &Value) -> String {
    match text(mapping, "workspace") {
        source if source.is_empty() => text(mapping, "name"),
        source => source,
    }
}

/// Two pod templates as one: `over` goes before `under`.
fn merged(under: &Value, over: &Value) -> Value {
    match (under.is_object(), over.is_object()) {
        (true, true) => deep(under, over),
        (false, _) => over.clone(),
        (true, false) => under.clone(),
    }
}

/// A Pipeline as a status shows it.
pub struct PipelineView {
    /// With what the run gives it in place; only specs of tasks that are written in it are as written.
    pub spec: Value,
}

impl PipelineView {
    /// A task of it, also a `finally` task.
    pub fn task(&self, name: &str) -> Option<&Value> {
        ["tasks", "finally"].iter().flat_map(|list| items(&self.spec[*list])).find(|task| task["name"] == name)
    }
}

/// The Pipeline of a PipelineRun; `None`: it is not there.
pub fn view(bundle: &Bundle, run: &Value) -> Option<PipelineView> {
    let mut compiler = Compiler::new(bundle, run, Options::default());
    let frame = compiler.frame()?;
    let around = compiler.around(&frame);
    let of_params = params::replacements(&frame.values);
    let fill = |value: &Value| around.fill_value(&of_params.fill_value(value));
    let mut spec = fill(&frame.spec);
    for list in ["tasks", "finally"] {
        for (filled, written) in spec[list].as_array_mut().into_iter().flatten().zip(items(&frame.spec[list])) {
            if let (Some(filled), Some(own)) = (filled.as_object_mut(), written.get("taskSpec")) {
                filled.insert("taskSpec".into(), own.clone());
            }
        }
    }
    Some(PipelineView { spec })
}

/// The spec of a task that is written in the Pipeline.
fn without_metadata(task: &Value) -> Value {
    let spec: Map<String, Value> = task["taskSpec"].as_object().cloned().unwrap_or_default();
    let own = |key: &String| !["metadata", "apiVersion", "kind", "spec"].contains(&key.as_str());
    Value::Object(spec.into_iter().filter(|(key, _)| own(key)).collect())
}

fn referring_spec(task: &Value, template: &Template) -> Value {
    if template.is_inline() { template.spec.clone() } else { task["pipelineSpec"].clone() }
}
