//! A TaskRun, and the pod that it runs as.

use std::collections::BTreeMap;

use pitcrew_core::ir::Refusal;
use pitcrew_core::pod::{Container, Guard, Mount, Pod, PodSecurity, Shape, Volume};
use serde_json::{Map, Value, json};

use super::check::{self, OF_TASKS};
use super::container::{self, container, id, items, rest, text};
use super::facts::Facts;
use super::limits;
use super::steps::{self, container_name, deep, is_isolated, usage};
use super::template::Template;
use super::volumes;
use crate::tekton::status::names::{child_name, uid_of};
use crate::tekton::substitute::params::{self, Values};
use crate::tekton::substitute::{Replacements, normal, text_of};

/// Which TaskRun of a task, and which try.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Instance<'a> {
    /// The place in the matrix.
    pub index: Option<u32>,
    /// The combination of the matrix, as [`super::items`] gave it; null without one.
    pub item: &'a Value,
    /// How often it was tried before and failed.
    pub retries: u32,
}

impl Instance<'_> {
    /// The first try of a task without a matrix.
    pub const FIRST: Instance<'static> = Instance { index: None, item: &Value::Null, retries: 0 };
}

/// What a launch needs.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRunPod {
    pub pod: Pod,
    /// The TaskRun as a document, without its status.
    pub taskrun: Value,
    /// The Task with all values in place, as a status shows it.
    pub task_spec: Value,
    /// The name of the ServiceAccount whose credentials the steps get.
    pub service_account: String,
}

/// Makes the TaskRun of a task and its pod. `facts` is what became of the tasks that it refers to. A refusal is how the TaskRun ends.
pub fn pod(template: &Value, facts: &Facts, at: Instance<'_>) -> Result<TaskRunPod, Refusal> {
    let template =
        Template::from_value(template).map_err(|message| Refusal { reason: OF_TASKS.missing.to_owned(), message })?;
    TaskRun::new(template, facts, at)?.into_pod()
}

/// A TaskRun with its params.
pub(crate) struct TaskRun<'a> {
    template: Template,
    at: Instance<'a>,
    pub name: String,
    pub uid: String,
    /// What it is given.
    given: Values,
    /// What its texts may use.
    values: Values,
}

impl<'a> TaskRun<'a> {
    pub fn new(mut template: Template, facts: &Facts, at: Instance<'a>) -> Result<TaskRun<'a>, Refusal> {
        let name = match at.index {
            Some(index) => child_name(&template.name, &format!("-{index}")),
            None => template.name.clone(),
        };
        let uid = match &template.pipeline {
            Some(member) if template.uid.is_empty() => uid_of(&[&member.uid, &name]),
            _ => template.uid.clone(),
        };
        let mut combination = Replacements::new();
        for (name, value) in at.item.as_object().into_iter().flatten() {
            combination.param(name, value);
        }
        let mut known = facts.replacements();
        known.extend(combination);
        let mut given: Values = template.params.iter().map(|(k, v)| (k.clone(), known.fill_param(v))).collect();
        for (name, value) in at.item.as_object().into_iter().flatten() {
            given.insert(name.clone(), normal(value));
        }
        let known = facts.replacements();
        for binding in template.workspaces.values_mut() {
            *binding = known.fill_value(binding);
        }
        if template.is_inline() {
            template.spec = known.fill_value(&template.spec);
        }
        let whose = match &template.task {
            Some(task) => format!("the Task `{task}`"),
            None => "the Task".to_owned(),
        };
        let declared = &template.spec["params"];
        let mut own = params::resolve(declared, &given)
            .map_err(|message| Refusal { reason: OF_TASKS.missing.to_owned(), message })?;
        if template.is_inline() {
            // A default may use what is around the spec.
            let around = params::replacements(&template.propagated);
            for value in own.values_mut() {
                *value = around.fill_param(value);
            }
            let extra = given.iter().filter(|(name, _)| !own.contains_key(*name)).map(|(k, v)| (k.clone(), v.clone()));
            let extra: Values = extra.collect();
            own = params::overlay(&params::overlay(&template.propagated, &extra), &own);
        }
        check::params(&whose, declared, &own, OF_TASKS)?;
        check::indices(&whose, &template.spec, &own, OF_TASKS)?;
        check::workspaces(
            &whose,
            &template.spec["workspaces"],
            |name| template.workspaces.contains_key(name),
            OF_TASKS,
        )?;
        Ok(TaskRun { name, uid, given, values: own, at, template })
    }

    /// The TaskRun as a document.
    pub fn document(&self) -> Value {
        let template = &self.template;
        let mut metadata = json!({
            "name": self.name,
            "namespace": template.namespace,
            "uid": self.uid,
            "labels": self.labels(),
        });
        if !template.annotations.is_empty() {
            metadata["annotations"] = Value::Object(template.annotations.clone());
        }
        if let Some(member) = &template.pipeline {
            metadata["ownerReferences"] = json!([{
                "apiVersion": "tekton.dev/v1",
                "kind": "PipelineRun",
                "name": member.run,
                "uid": member.uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }]);
        }
        let mut spec = Map::new();
        if !self.given.is_empty() {
            spec.insert("params".into(), params::list(&self.given));
        }
        if template.retries > 0 {
            spec.insert("retries".into(), template.retries.into());
        }
        spec.insert("serviceAccountName".into(), template.service_account.clone().into());
        match &template.task {
            Some(name) => spec.insert("taskRef".into(), json!({ "kind": "Task", "name": name })),
            None => spec.insert("taskSpec".into(), template.spec.clone()),
        };
        if !template.timeout.is_empty() {
            spec.insert("timeout".into(), template.timeout.clone().into());
        }
        if !template.pod_template.is_null() {
            spec.insert("podTemplate".into(), template.pod_template.clone());
        }
        if !template.workspaces.is_empty() {
            let bindings = template.workspaces.iter().map(|(name, binding)| {
                let mut binding = binding.clone();
                if let Some(binding) = binding.as_object_mut() {
                    // The claim that the PipelineRun made of it stands beside it.
                    binding.remove("volumeClaimTemplate");
                    binding.insert("name".into(), name.clone().into());
                }
                binding
            });
            spec.insert("workspaces".into(), bindings.collect());
        }
        json!({ "apiVersion": "tekton.dev/v1", "kind": "TaskRun", "metadata": metadata, "spec": spec })
    }

    fn labels(&self) -> Map<String, Value> {
        let mut labels = self.template.labels.clone();
        labels.insert("app.kubernetes.io/managed-by".into(), "tekton-pipelines".into());
        if let Some(task) = &self.template.task {
            labels.insert("tekton.dev/task".into(), task.clone().into());
        }
        if let Some(member) = &self.template.pipeline {
            labels.insert("tekton.dev/pipeline".into(), member.pipeline.clone().into());
            labels.insert("tekton.dev/pipelineRun".into(), member.run.clone().into());
            labels.insert("tekton.dev/pipelineRunUID".into(), member.uid.clone().into());
            labels.insert("tekton.dev/pipelineTask".into(), member.task.clone().into());
        }
        labels
    }

    /// What the variables of the Task stand for.
    fn known(&self) -> Replacements {
        let template = &self.template;
        let mut known = params::replacements(&self.values);
        known.text("context.taskRun.name", &self.name);
        known.text("context.taskRun.namespace", &template.namespace);
        known.text("context.taskRun.uid", &self.uid);
        // A spec that is written where it is used has the name of its TaskRun.
        known.text("context.task.name", template.task.as_ref().unwrap_or(&self.name));
        known.text("context.task.retry-count", self.at.retries.to_string());
        known.text("context.pipelineTask.retries", template.retries.to_string());
        known.text("credentials.path", "/tekton/creds");
        known.text("artifacts.path", "/tekton/artifacts/provenance.json");
        for result in items(&template.spec["results"]) {
            let name = text(result, "name");
            path(&mut known, "results", &name, &format!("/tekton/results/{name}"));
        }
        for (at, step) in items(&template.spec["steps"]).iter().enumerate() {
            let container = container_name("step", at, step);
            known.text(format!("steps.{container}.exitCode.path"), format!("/tekton/steps/{container}/exitCode"));
        }
        for declaration in items(&template.spec["workspaces"]) {
            let name = text(declaration, "name");
            self.workspace(&mut known, &name, &mount_path(declaration));
        }
        // Those that a spec uses without declaring them.
        for name in self.undeclared() {
            self.workspace(&mut known, &name, &format!("/workspace/{name}"));
        }
        known
    }

    fn workspace(&self, known: &mut Replacements, name: &str, at: &str) {
        let binding = self.template.workspaces.get(name);
        let claim = binding.map(|binding| text(&binding["persistentVolumeClaim"], "claimName")).unwrap_or_default();
        let volume = if binding.is_some() { volume_name(name) } else { String::new() };
        let values = [
            ("path", if binding.is_some() { at } else { "" }),
            ("bound", if binding.is_some() { "true" } else { "false" }),
            ("claim", &claim),
            ("volume", &volume),
        ];
        for (what, value) in values {
            known.text(format!("workspaces.{name}.{what}"), value);
        }
    }

    /// Bound, and not declared by the spec; only one that is written where it is used may do that.
    fn undeclared(&self) -> Vec<String> {
        let declared = items(&self.template.spec["workspaces"]);
        let is_declared = |name: &str| declared.iter().any(|declaration| declaration["name"] == name);
        self.template.workspaces.keys().filter(|name| !is_declared(name)).cloned().collect()
    }

    fn into_pod(mut self) -> Result<TaskRunPod, Refusal> {
        let invalid = |message: String| Refusal { reason: OF_TASKS.missing.to_owned(), message };
        let known = self.known();
        if items(&self.template.spec["steps"]).is_empty() {
            return Err(invalid("it has no steps: nothing would run".to_owned()));
        }
        self.template.pod_template = known.fill_value(&self.template.pod_template);
        let mut spec = known.fill_value(&self.template.spec);
        let mut raw = steps::steps(&self.template, &known)?;
        let mut sidecars = items(&self.template.spec["sidecars"]).to_vec();
        self.override_resources(&known, &mut raw, &mut sidecars);
        let mut volumes: Vec<Volume> = Vec::new();
        for volume in items(&spec["volumes"]).iter().chain(items(&self.template.pod_template["volumes"])) {
            volumes.push(volumes::volume(volume, &self.template.namespace).map_err(invalid)?);
        }
        let mut containers = Vec::with_capacity(raw.len());
        let mut filled = Vec::with_capacity(raw.len());
        for (at, step) in raw.iter().enumerate() {
            let name = container_name("step", at, step);
            let step = self.step_known(&known, &name, step).fill_value(step);
            containers.push(self.finish(name, &step).map_err(invalid)?);
            filled.push(step);
        }
        let mut beside = Vec::with_capacity(sidecars.len());
        for (at, sidecar) in sidecars.iter().enumerate() {
            let name = container_name("sidecar", at, sidecar);
            let sidecar = self.step_known(&known, &name, sidecar).fill_value(sidecar);
            beside.push(self.finish(name, &sidecar).map_err(invalid)?);
        }
        for (name, binding) in &self.template.workspaces {
            let source = volumes::source(binding, &self.template.namespace).map_err(invalid)?;
            volumes.push(Volume { name: volume_name(name), source });
        }
        for container in containers.iter().chain(&beside) {
            limits::check(&container.name, &container.resources, &self.template.limits).map_err(|message| Refusal {
                reason: "PodCreationFailed".to_owned(),
                message: format!("the pod of the TaskRun \"{}\" is forbidden: {message}", self.name),
            })?;
        }
        if let Some(map) = spec.as_object_mut() {
            map.insert("steps".into(), Value::Array(filled));
        }
        let pod_template = self.template.pod_template.clone();
        let name = child_name(
            &self.name,
            &if self.at.retries == 0 { "-pod".to_owned() } else { format!("-pod-retry{}", self.at.retries) },
        );
        let as_texts = |map: &Map<String, Value>| -> BTreeMap<String, String> {
            map.iter().map(|(key, value)| (key.clone(), text_of(value))).collect()
        };
        let mut labels = as_texts(&self.labels());
        labels.insert("tekton.dev/taskRun".into(), self.name.clone());
        let pod = Pod {
            hostname: name.clone(),
            name,
            namespace: self.template.namespace.clone(),
            labels,
            annotations: as_texts(&self.template.annotations),
            steps: containers,
            sidecars: beside,
            volumes,
            results: container::results(&spec["results"]),
            security: pod_security(&pod_template["securityContext"]),
            service_account: self.template.service_account.clone(),
            cluster: self.cluster(&pod_template),
            shape: Shape::Tekton,
        };
        let taskrun = self.document();
        Ok(TaskRunPod { pod, taskrun, task_spec: spec, service_account: self.template.service_account })
    }

    /// What only a cluster of Kubernetes makes something of.
    fn cluster(&self, pod_template: &Value) -> Value {
        let mut cluster = match rest(pod_template, &["securityContext", "volumes", "env"]) {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        let mut templates = Map::new();
        for binding in self.template.workspaces.values() {
            if let Some(template) = binding.get("volumeClaimTemplate") {
                templates.insert(text(&binding["persistentVolumeClaim"], "claimName"), template.clone());
            }
        }
        if !templates.is_empty() {
            cluster.insert("volumeClaimTemplates".into(), templates.into());
        }
        let account = &self.template.service_account;
        if !account.is_empty() && account != "default" {
            cluster.insert("serviceAccountName".into(), account.clone().into());
        }
        if cluster.is_empty() { Value::Null } else { Value::Object(cluster) }
    }

    /// What a TaskRun says of containers goes before what its Task says. What it says of the whole task holds for each step:
    /// steps take turns, so all together ask for the most that one asks for.
    fn override_resources(&self, known: &Replacements, steps: &mut [Value], sidecars: &mut [Value]) {
        let whole = known.fill_value(&self.template.compute_resources);
        for step in steps.iter_mut().filter(|_| whole.is_object()) {
            step["computeResources"] = whole.clone();
        }
        let lay = |of: &mut Value, by: Option<&Value>| {
            if let (Some(by), Some(map)) = (by, of.as_object_mut()) {
                let merged = map.get("computeResources").map_or_else(|| by.clone(), |old| deep(old, by));
                map.insert("computeResources".into(), merged);
            }
        };
        for step in steps {
            let by = self.template.step_resources.get(&text(step, "name")).cloned();
            lay(step, by.as_ref());
        }
        for sidecar in sidecars {
            let by = self.template.sidecar_resources.get(&text(sidecar, "name")).cloned();
            lay(sidecar, by.as_ref());
        }
    }

    /// What holds in one step alone.
    fn step_known(&self, known: &Replacements, container: &str, step: &Value) -> Replacements {
        let mut known = known.clone();
        for result in items(&step["results"]) {
            let name = text(result, "name");
            path(&mut known, "step.results", &name, &format!("/tekton/steps/{container}/results/{name}"));
        }
        known.text("step.artifacts.path", format!("/tekton/steps/{container}/artifacts/provenance.json"));
        for own in items(&step["workspaces"]) {
            let at = text(own, "mountPath");
            if !at.is_empty() {
                self.workspace(&mut known, &text(own, "name"), &at);
            }
        }
        known
    }

    /// The container with the workspaces that it sees, and the environment of the pod template.
    fn finish(&self, name: String, step: &Value) -> Result<Container, String> {
        let mut container = container(name, step)?;
        limits::fill(&mut container.resources, &self.template.limits);
        for guard in &mut container.when {
            if let Guard::Cel(text) = guard {
                let holds = crate::cel::when(text).map_err(|why| {
                    format!("the condition `{text}` of `{}` cannot be evaluated: {why}", container.name)
                })?;
                *guard = Guard::In { input: holds.to_string(), values: vec!["true".to_owned()], negate: false };
            }
        }
        for env in items(&self.template.pod_template["env"]).iter().map(container::env) {
            // What the pod's template says goes before what the step says.
            container.env.retain(|own| own.name != env.name);
            container.env.push(env);
        }
        // Its own mounts stand in its order.
        for (mount, from) in container.mounts.iter_mut().zip(items(&step["volumeMounts"])) {
            if let Some(written) = from["subPathExpr"].as_str().filter(|written| !written.is_empty()) {
                let path = container::expanded(written, &container.env)
                    .map_err(|why| format!("`subPathExpr` of a mount of `{}`: {why}", container.name))?;
                mount.sub_path = Some(path);
            }
        }
        let spec = &self.template.spec;
        let declared =
            items(&spec["workspaces"]).iter().map(|d| (text(d, "name"), mount_path(d), steps::is_read_only(d)));
        let undeclared = self.undeclared().into_iter().map(|name| (name.clone(), format!("/workspace/{name}"), false));
        for (name, at, read_only) in declared.chain(undeclared) {
            let Some(binding) = self.template.workspaces.get(&name) else { continue };
            let own = usage(step, &name);
            if own.is_none() && is_isolated(spec, &name) {
                continue;
            }
            let at = own.map(|own| text(own, "mountPath")).filter(|at| !at.is_empty()).unwrap_or(at);
            let claim_read_only = binding["persistentVolumeClaim"]["readOnly"].as_bool() == Some(true);
            // What a step mounts itself at the place of a workspace goes before it.
            if container.mounts.iter().any(|mount| mount.at == at) {
                continue;
            }
            container.mounts.push(Mount {
                volume: volume_name(&name),
                at,
                sub_path: Some(text(binding, "subPath")).filter(|path| !path.is_empty()),
                read_only: read_only || claim_read_only,
            });
        }
        Ok(container)
    }
}

/// `ROOT.NAME.path` in its spellings.
fn path(known: &mut Replacements, root: &str, name: &str, value: &str) {
    for variable in
        [format!("{root}.{name}.path"), format!("{root}['{name}'].path"), format!("{root}[\"{name}\"].path")]
    {
        known.text(variable, value);
    }
}

fn volume_name(workspace: &str) -> String {
    format!("ws-{workspace}")
}

fn mount_path(declaration: &Value) -> String {
    match text(declaration, "mountPath") {
        path if path.is_empty() => format!("/workspace/{}", text(declaration, "name")),
        path => path,
    }
}

pub(crate) fn pod_security(from: &Value) -> PodSecurity {
    const OURS: [&str; 5] = ["runAsUser", "runAsGroup", "runAsNonRoot", "fsGroup", "supplementalGroups"];
    PodSecurity {
        run_as_user: id(&from["runAsUser"]),
        run_as_group: id(&from["runAsGroup"]),
        run_as_non_root: from["runAsNonRoot"].as_bool(),
        fs_group: id(&from["fsGroup"]),
        supplemental_groups: items(&from["supplementalGroups"]).iter().filter_map(id).collect(),
        cluster: rest(from, &OURS),
    }
}
