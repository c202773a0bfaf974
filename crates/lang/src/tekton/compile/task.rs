//! A TaskRun by itself, and what all tasks have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;
use pitcrew_core::id::TaskId;
use pitcrew_core::ir::{Task, Work, Workflow};
use pitcrew_core::retry::RetryPolicy;
use serde_json::{Value, json};

use super::{Compiler, laid, placement, written};
use crate::diagnostic::listing;
use crate::tekton::run::container::{self, items, text};
use crate::tekton::run::steps::by;
use crate::tekton::run::template::Template;
use crate::tekton::run::{Facts, Instance, demand_of, pod, pod_security};
use crate::tekton::status::names::claim_name;
use crate::tekton::substitute::params;

/// The time between the polite and the forced end of a pod.
const GRACE: SignedDuration = SignedDuration::from_secs(30);

impl Compiler<'_> {
    /// The workflow of a TaskRun: one task.
    pub fn task_run(&mut self) -> Result<Workflow, String> {
        let mut workflow = self.workflow()?;
        let bundle = self.bundle;
        let root = &bundle.root;
        let named = root["name"].as_str();
        let document = match named {
            Some(name) => bundle.tasks.get(name).cloned(),
            None => Some(json!({ "metadata": {}, "spec": root["spec"] })),
        };
        let document = document.unwrap_or_else(|| {
            self.refuse_with("TaskRunResolutionFailed", bundle.missing("Task", named.unwrap_or_default()));
            json!({ "metadata": {}, "spec": { "steps": [] } })
        });
        let reference = named.filter(|name| !bundle.unresolved.contains_key(*name));
        let metadata = &self.run["metadata"];
        let usual = self.usual_timeout();
        let timeout = self.timeout(&self.spec["timeout"], usual);
        let mut template = Template {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            uid: self.uid.clone(),
            task: reference.map(str::to_owned),
            spec: document["spec"].clone(),
            step_actions: self.step_actions(),
            params: params::given(&self.spec["params"]),
            labels: laid(&document["metadata"]["labels"], &metadata["labels"]),
            annotations: laid(&document["metadata"]["annotations"], &metadata["annotations"]),
            service_account: self.service_account(&self.spec["serviceAccountName"]),
            pod_template: self.pod_template(self.spec["podTemplate"].clone()),
            timeout: written(timeout),
            retries: self.spec["retries"].as_u64().unwrap_or(0) as u32,
            compute_resources: self.spec["computeResources"].clone(),
            step_resources: resources_by_name(&self.spec["stepSpecs"]),
            sidecar_resources: resources_by_name(&self.spec["sidecarSpecs"]),
            limits: self.limits(),
            ..Template::default()
        };
        for binding in items(&self.spec["workspaces"]) {
            let name = text(binding, "name");
            template.workspaces.insert(name.clone(), self.binding(binding));
        }
        self.default_workspaces(&mut template);
        workflow.description = text(&template.spec, "description");
        self.annotate_run(&mut workflow, &template.annotations)?;
        let id = reference.unwrap_or("task");
        let mut task = self.task(id, &template, timeout)?;
        self.annotate_task(&mut task, &template.annotations)?;
        if self.refusal.is_none()
            && let Err(refusal) = pod(&template.to_value(), &Facts::default(), Instance::FIRST)
        {
            self.refuse(refusal);
        }
        workflow.tasks.push(task);
        workflow.link().map_err(|cycle| cycle.to_string())?;
        Ok(workflow)
    }

    /// A task of the workflow that runs a template.
    pub fn task(&mut self, id: &str, template: &Template, timeout: Option<SignedDuration>) -> Result<Task, String> {
        let work = Work::Pod { template: Arc::new(template.to_value()) };
        let mut task = Task::new(TaskId::new(id).map_err(|why| why.to_string())?, work);
        task.description = text(&template.spec, "description");
        task.timeout = timeout;
        task.grace = GRACE;
        task.retry = RetryPolicy {
            retries: template.retries,
            delay: SignedDuration::ZERO,
            backoff: 1.0,
            jitter: false,
            ..RetryPolicy::default()
        };
        for action in items(&template.spec["steps"]).iter().filter_map(|step| step["ref"]["name"].as_str()) {
            if self.bundle.unresolved.contains_key(action) {
                self.refuse_with("TaskRunResolutionFailed", self.bundle.missing("StepAction", action));
            }
        }
        if !self.options.in_cluster {
            self.tell_of_clusters(id, template);
        }
        // An exit code means to Tekton that it failed, whatever it is.
        task.skip_exit_codes = Vec::new();
        let wanted = if self.options.in_cluster { &Value::Null } else { &template.pod_template };
        match placement::placement(wanted, self.options.one_machine) {
            Ok((placement, told)) => {
                task.placement = placement;
                for what in told {
                    self.tell(format!("{what} of the task `{id}` has no effect: this run has one machine"));
                }
            }
            Err(why) => self.refuse_with("PodUnschedulable", format!("the task `{id}` can run nowhere: {why}")),
        }
        match demand_of(template) {
            Ok(resources) => task.resources = resources,
            Err(why) => return Err(format!("`computeResources` of the task `{id}`: {why}")),
        }
        Ok(task)
    }

    /// What only a cluster makes something of: it is said, and has no effect.
    fn tell_of_clusters(&mut self, id: &str, template: &Template) {
        let spec = &template.spec;
        let all = items(&spec["steps"]).iter().chain(items(&spec["sidecars"])).chain([&spec["stepTemplate"]]);
        let (mut fields, mut requests) = (BTreeSet::new(), false);
        for one in all {
            let security = container::security(&one["securityContext"]).cluster;
            fields.extend(security.as_object().into_iter().flatten().map(|(field, _)| field.clone()));
            let asked = |name: &str| one["computeResources"]["requests"].get(name).is_some();
            requests |= asked("cpu") || asked("memory");
        }
        let security = &template.pod_template["securityContext"];
        fields.extend(pod_security(security).cluster.as_object().into_iter().flatten().map(|(field, _)| field.clone()));
        if !fields.is_empty() {
            let fields = listing(fields.iter().map(String::as_str), "and");
            self.tell(format!("{fields} in `securityContext` of the task `{id}` has effect only in a cluster"));
        }
        if requests {
            let why = "has effect only in a cluster: here `limits` say what a task gets";
            self.tell(format!("`requests` of cores or memory of the task `{id}` {why}"));
        }
    }

    /// A pod template with what the configuration says where it says nothing.
    pub fn pod_template(&mut self, own: Value) -> Value {
        let Some(written) = self.default("default-pod-template") else { return own };
        let Ok(Value::Object(mut all)) = crate::yaml::to_json(written) else {
            self.refuse_with("TaskRunValidationFailed", "`default-pod-template` is no template of a pod");
            return own;
        };
        for (field, value) in own.as_object().cloned().unwrap_or_default() {
            let merged = match (field.as_str(), all.get(&field)) {
                ("env" | "volumes", Some(usual)) => by(usual, &value, "name"),
                _ => value,
            };
            all.insert(field, merged);
        }
        Value::Object(all)
    }

    /// What a run binds to a workspace, without its name. A claim that the run makes gets its name.
    pub fn binding(&self, binding: &Value) -> Value {
        let mut bound = binding.as_object().cloned().unwrap_or_default();
        let name = text(binding, "name");
        bound.remove("name");
        if bound.contains_key("volumeClaimTemplate") {
            let claim = claim_name(&name, &self.uid);
            bound.insert("persistentVolumeClaim".into(), json!({ "claimName": claim }));
        }
        Value::Object(bound)
    }

    /// Binds what is left open to what the configuration says.
    pub fn default_workspaces(&mut self, template: &mut Template) {
        let Some(written) = self.default("default-task-run-workspace-binding") else { return };
        let binding = match crate::yaml::to_json(written) {
            Ok(Value::Object(binding)) => Value::Object(binding),
            Ok(_) | Err(_) => {
                let why = "`default-task-run-workspace-binding` is no binding of a workspace";
                return self.refuse_with("TaskRunValidationFailed", why);
            }
        };
        for declaration in items(&template.spec["workspaces"]) {
            if declaration["optional"].as_bool() != Some(true) {
                template.workspaces.entry(text(declaration, "name")).or_insert_with(|| binding.clone());
            }
        }
    }
}

/// `[{name, computeResources}]` by name.
pub fn resources_by_name(list: &Value) -> BTreeMap<String, Value> {
    items(list).iter().map(|one| (text(one, "name"), one["computeResources"].clone())).collect()
}
