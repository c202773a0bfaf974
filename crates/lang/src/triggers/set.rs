//! Documents of triggers, checked: one by one when they are read, and together when a trigger is linked.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::model::{
    Binding, BindingSpec, InterceptorSpec, InterceptorUse, ListenerSpec, ListenerTrigger, Param, TemplateSpec,
    TemplateUse, TriggerSelector, TriggerSpec,
};
use super::{Interceptor, OLD_ESCAPE, Stop, Trigger, bindings, report, sample, template};
use crate::diagnostic::{Diagnostic, Severity};
use crate::tekton::model::{Doc, TriggerObject};

/// A listener and its groups.
#[derive(Debug, Clone)]
pub struct Listener {
    pub name: String,
    pub namespace: String,
    pub annotations: BTreeMap<String, String>,
    pub spec: ListenerSpec,
    pub groups: Vec<Group>,
}

/// Triggers that are found by labels, behind interceptors of their own.
#[derive(Debug, Clone)]
pub struct Group {
    pub name: String,
    pub interceptors: Vec<Interceptor>,
    pub selector: TriggerSelector,
}

/// A document of the kind Trigger.
#[derive(Debug, Clone)]
pub struct TriggerDoc {
    pub name: String,
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub spec: TriggerSpec,
}

#[derive(Debug, Clone)]
struct Template {
    spec: TemplateSpec,
    old_escape: bool,
}

type Name = (String, String);

/// All documents of triggers.
#[derive(Debug, Clone, Default)]
pub struct Set {
    listeners: BTreeMap<Name, Listener>,
    triggers: BTreeMap<Name, TriggerDoc>,
    bindings: BTreeMap<Name, BindingSpec>,
    cluster_bindings: BTreeMap<String, BindingSpec>,
    templates: BTreeMap<Name, Template>,
    interceptors: BTreeMap<Name, InterceptorSpec>,
    cluster_interceptors: BTreeMap<String, InterceptorSpec>,
}

/// The path of a field, and what is wrong with it.
type Wrong = (String, String);

/// What is wrong with one document, and what of it has no effect here.
pub fn check(doc: &Doc<TriggerObject>) -> Vec<Diagnostic> {
    let wrong = Set::default().take(doc).err().unwrap_or_default();
    let problem = |(path, message): &Wrong| doc.origin.problem(Severity::Error, path, message, None);
    let mut found: Vec<Diagnostic> = wrong.iter().map(problem).collect();
    if doc.spec.kind == "EventListener" && doc.spec.body.pointer("/spec/resources").is_some() {
        let message = "`resources` has no effect here, because the server itself listens";
        found.push(doc.origin.problem(Severity::Warning, "spec.resources", message, None));
    }
    found
}

impl Set {
    /// Reads documents. The error holds every problem, with its place where the documents have places.
    pub fn read(docs: &[Doc<TriggerObject>]) -> Result<Set, Vec<Diagnostic>> {
        let mut set = Set::default();
        let mut problems = Vec::new();
        for doc in docs {
            if let Err(wrong) = set.take(doc) {
                let found =
                    wrong.iter().map(|(path, message)| doc.origin.problem(Severity::Error, path, message, None));
                problems.extend(found);
            }
        }
        if problems.is_empty() { Ok(set) } else { Err(problems) }
    }

    fn take(&mut self, doc: &Doc<TriggerObject>) -> Result<(), Vec<Wrong>> {
        let meta = &doc.meta;
        let (name, namespace) = (meta.name.clone(), meta.namespace.clone());
        let key = (namespace.clone(), name.clone());
        if matches!(doc.spec.kind.as_str(), "EventListener" | "Trigger") {
            let path =
                |(key, why): (String, String)| (format!("metadata.annotations.{key}"), format!("`{key}`: {why}"));
            told(report::wrong(&meta.annotations).into_iter().map(path).collect())?;
        }
        let twice = match doc.spec.kind.as_str() {
            "EventListener" => {
                let spec: ListenerSpec = spec_of(doc)?;
                let groups = listener(&name, &spec)?;
                let annotations = meta.annotations.clone();
                told(unknown_samples(&annotations, &spec))?;
                self.listeners.insert(key, Listener { name, namespace, annotations, spec, groups }).is_some()
            }
            "Trigger" => {
                let spec: TriggerSpec = spec_of(doc)?;
                let mut wrong = Vec::new();
                check_bindings("spec", &spec.bindings, &mut wrong);
                check_template("spec.template", &spec.template, &mut wrong);
                check_interceptors("spec", &spec.interceptors, &mut wrong);
                told(wrong)?;
                let (labels, annotations) = (meta.labels.clone(), meta.annotations.clone());
                self.triggers.insert(key, TriggerDoc { name, namespace, labels, annotations, spec }).is_some()
            }
            "TriggerBinding" | "ClusterTriggerBinding" => {
                let spec: BindingSpec = spec_of(doc)?;
                let mut wrong = Vec::new();
                check_params(&spec.params, &mut wrong);
                told(wrong)?;
                match doc.spec.kind.as_str() {
                    "TriggerBinding" => self.bindings.insert(key, spec).is_some(),
                    _ => self.cluster_bindings.insert(name, spec).is_some(),
                }
            }
            "TriggerTemplate" => {
                let spec: TemplateSpec = spec_of(doc)?;
                let mut wrong = Vec::new();
                check_template_spec("spec", &spec, &mut wrong);
                told(wrong)?;
                let old_escape = meta.annotations.contains_key(OLD_ESCAPE);
                self.templates.insert(key, Template { spec, old_escape }).is_some()
            }
            "Interceptor" | "ClusterInterceptor" => {
                let spec: InterceptorSpec = spec_of(doc)?;
                if spec.client_config.url.is_none() && spec.client_config.service.is_none() {
                    return Err(vec![("spec.clientConfig".into(), "it needs `url` or `service`".into())]);
                }
                match doc.spec.kind.as_str() {
                    "Interceptor" => self.interceptors.insert(key, spec).is_some(),
                    _ => self.cluster_interceptors.insert(name, spec).is_some(),
                }
            }
            other => return Err(vec![("kind".into(), format!("`{other}` is no kind of triggers"))]),
        };
        if twice {
            let message = format!("the {} `{}` is there twice", doc.spec.kind, meta.name);
            return Err(vec![("metadata.name".into(), message)]);
        }
        Ok(())
    }

    pub fn listener(&self, namespace: &str, name: &str) -> Option<&Listener> {
        self.listeners.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// All listeners, by namespace and name.
    pub fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.values()
    }

    pub(super) fn trigger(&self, namespace: &str, name: &str) -> Option<&TriggerDoc> {
        self.triggers.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// All documents of the kind Trigger, by namespace and name.
    pub fn triggers(&self) -> impl Iterator<Item = &TriggerDoc> {
        self.triggers.values()
    }

    /// Where an interceptor of the user's own is called.
    pub fn interceptor(&self, namespace: &str, name: &str, namespaced: bool) -> Option<&InterceptorSpec> {
        if namespaced {
            return self.interceptors.get(&(namespace.to_owned(), name.to_owned()));
        }
        self.cluster_interceptors.get(name)
    }

    /// A trigger with all that it refers to.
    pub fn link(&self, doc: &TriggerDoc) -> Result<Trigger, Stop> {
        let TriggerSpec { bindings, template, interceptors, service_account_name, .. } = &doc.spec;
        let mut trigger = self.joined(&doc.namespace, &doc.name, bindings, template, interceptors)?;
        trigger.service_account = service_account_name.clone();
        trigger.annotations = doc.annotations.clone();
        Ok(trigger)
    }

    /// A trigger that is written in its listener.
    /// The listener's own share is that of all triggers that are written in it.
    pub(super) fn inline(&self, listener: &Listener, written: &ListenerTrigger) -> Result<Trigger, Stop> {
        let namespace = &listener.namespace;
        let template = written.template.as_ref().ok_or_else(|| Stop::failed("the trigger has no template"))?;
        let mut trigger = self.joined(namespace, &written.name, &written.bindings, template, &written.interceptors)?;
        trigger.service_account = written.service_account_name.clone();
        let own = format!("{}{}", report::SAMPLE_OF, written.name);
        let share = listener.annotations.get(&own).or_else(|| listener.annotations.get(sample::ANNOTATION));
        trigger.annotations.extend(share.map(|share| (sample::ANNOTATION.to_owned(), share.clone())));
        Ok(trigger)
    }

    fn joined(
        &self,
        namespace: &str,
        name: &str,
        bindings: &[Binding],
        template: &TemplateUse,
        interceptors: &[InterceptorUse],
    ) -> Result<Trigger, Stop> {
        let key = |name: &str| (namespace.to_owned(), name.to_owned());
        let mut params: Vec<Param> = Vec::new();
        for binding in bindings {
            match (&binding.value, binding.reference.as_str()) {
                (Some(value), "") => params.push(Param { name: binding.name.clone(), value: value.clone() }),
                (_, reference) => {
                    let cluster = binding.kind == "ClusterTriggerBinding";
                    let found =
                        if cluster { self.cluster_bindings.get(reference) } else { self.bindings.get(&key(reference)) };
                    let kind = if cluster { "ClusterTriggerBinding" } else { "TriggerBinding" };
                    let missing =
                        || Stop::failed(format!("there is no {kind} `{reference}` for the namespace `{namespace}`"));
                    params.extend(found.ok_or_else(missing)?.params.iter().cloned());
                }
            }
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = params.iter().find(|param| !seen.insert(param.name.as_str())) {
            return Err(Stop::failed(format!("the bindings give the param `{}` twice", twice.name)));
        }
        let (spec, old_escape) = match (&template.spec, &template.reference) {
            (Some(spec), _) => (spec, false),
            (None, reference) => {
                let reference = reference.as_deref().unwrap_or("");
                let missing = || Stop::failed(format!("there is no TriggerTemplate `{reference}` in `{namespace}`"));
                let found = self.templates.get(&key(reference)).ok_or_else(missing)?;
                (&found.spec, found.old_escape)
            }
        };
        let interceptors = interceptors.iter().map(Interceptor::read).collect::<Result<Vec<_>, _>>();
        Ok(Trigger {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            service_account: String::new(),
            annotations: BTreeMap::new(),
            interceptors: interceptors.map_err(|(path, message)| Stop::failed(message).by(&path))?,
            params,
            declared: spec.params.clone(),
            templates: spec.resource_templates.clone(),
            old_escape,
        })
    }
}

/// The `spec` of a document as its type.
fn spec_of<T: DeserializeOwned>(doc: &Doc<TriggerObject>) -> Result<T, Vec<Wrong>> {
    let spec = doc.spec.body.get("spec").cloned().unwrap_or_else(|| Value::Object(Map::new()));
    serde_json::from_value(spec).map_err(|error| vec![("spec".to_owned(), error.to_string())])
}

fn told(wrong: Vec<Wrong>) -> Result<(), Vec<Wrong>> {
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Shares of triggers that are not written in the listener would have no effect.
fn unknown_samples(annotations: &BTreeMap<String, String>, spec: &ListenerSpec) -> Vec<Wrong> {
    let inline = || spec.triggers.iter().filter(|trigger| trigger.trigger_ref.is_empty());
    let named = annotations.keys().filter_map(|key| Some((key, key.strip_prefix(report::SAMPLE_OF)?)));
    let unknown = named.filter(|(_, name)| !inline().any(|trigger| trigger.name == *name)).map(|(key, name)| {
        let message =
            format!("no trigger `{name}` is written in this listener; a Trigger has `{}`", sample::ANNOTATION);
        (format!("metadata.annotations.{key}"), message)
    });
    let mut wrong: Vec<Wrong> = unknown.collect();
    if annotations.contains_key(sample::ANNOTATION) && inline().next().is_none() {
        let message =
            format!("`{}` is for triggers that are written in the listener, and there is none", sample::ANNOTATION);
        wrong.push((format!("metadata.annotations.{}", sample::ANNOTATION), message));
    }
    wrong
}

fn listener(name: &str, spec: &ListenerSpec) -> Result<Vec<Group>, Vec<Wrong>> {
    let mut wrong = Vec::new();
    if name.len() > 60 {
        wrong.push(("metadata.name".into(), "the name of an EventListener has at most 60 characters".into()));
    }
    let selects = spec.label_selector.is_some() || !spec.namespace_selector.match_names.is_empty();
    if !selects && spec.triggers.is_empty() && spec.trigger_groups.is_empty() {
        let message = "it has no triggers: write `triggers`, `triggerGroups`, `labelSelector` or `namespaceSelector`";
        wrong.push(("spec".into(), message.into()));
    }
    for (n, trigger) in spec.triggers.iter().enumerate() {
        let path = format!("spec.triggers[{n}]");
        match (&trigger.template, trigger.trigger_ref.is_empty()) {
            (None, true) => wrong.push((path.clone(), "a trigger needs `template` or `triggerRef`".into())),
            (Some(_), false) => {
                wrong.push((path.clone(), "`triggerRef` names a whole trigger; leave out `template`".into()));
            }
            (Some(template), true) => check_template(&format!("{path}.template"), template, &mut wrong),
            (None, false) if !trigger.bindings.is_empty() || !trigger.interceptors.is_empty() => {
                let message = "`triggerRef` names a whole trigger; leave out `bindings` and `interceptors`";
                wrong.push((path.clone(), message.into()));
            }
            (None, false) => {}
        }
        if !template::is_label(&trigger.name) {
            let message = format!("`{}` becomes a label, and cannot be one", trigger.name);
            wrong.push((format!("{path}.name"), message));
        }
        check_bindings(&path, &trigger.bindings, &mut wrong);
        check_interceptors(&path, &trigger.interceptors, &mut wrong);
    }
    let mut groups = Vec::new();
    for (n, group) in spec.trigger_groups.iter().enumerate() {
        let path = format!("spec.triggerGroups[{n}]");
        let selector = group.trigger_selector.clone();
        if selector.label_selector.is_none() && selector.namespace_selector.match_names.is_empty() {
            wrong.push((path.clone(), "`triggerSelector` needs `labelSelector` or `namespaceSelector`".into()));
        }
        if group.interceptors.is_empty() {
            wrong.push((path.clone(), "a group needs `interceptors`".into()));
        }
        let interceptors = check_interceptors(&path, &group.interceptors, &mut wrong);
        groups.push(Group { name: group.name.clone(), interceptors, selector });
    }
    told(wrong).map(|()| groups)
}

fn check_bindings(path: &str, written: &[Binding], wrong: &mut Vec<Wrong>) {
    for (n, binding) in written.iter().enumerate() {
        let path = format!("{path}.bindings[{n}]");
        match (binding.name.is_empty(), binding.reference.is_empty(), &binding.value) {
            (true, true, _) => wrong.push((path, "a binding needs `ref`, or `name` and `value`".into())),
            (false, false, _) => wrong.push((path, "a binding has `ref`, or `name` and `value`; not both".into())),
            (false, true, None) => wrong.push((path, "a binding with a `name` needs a `value`".into())),
            (false, true, Some(value)) => {
                if let Err(message) = bindings::check(value) {
                    wrong.push((format!("{path}.value"), message));
                }
            }
            (true, false, _) if !matches!(binding.kind.as_str(), "" | "TriggerBinding" | "ClusterTriggerBinding") => {
                let message =
                    format!("`{}` is no kind of binding: write TriggerBinding or ClusterTriggerBinding", binding.kind);
                wrong.push((format!("{path}.kind"), message));
            }
            (true, false, _) => {}
        }
    }
}

fn check_params(params: &[Param], wrong: &mut Vec<Wrong>) {
    let mut seen = BTreeSet::new();
    for (n, param) in params.iter().enumerate() {
        if param.name.is_empty() || !seen.insert(param.name.as_str()) {
            let message = format!("the param `{}` has no name of its own", param.name);
            wrong.push((format!("spec.params[{n}].name"), message));
        }
        if let Err(message) = bindings::check(&param.value) {
            wrong.push((format!("spec.params[{n}].value"), message));
        }
    }
}

fn check_template(path: &str, template: &TemplateUse, wrong: &mut Vec<Wrong>) {
    match (&template.spec, template.reference.as_deref().unwrap_or("")) {
        (Some(spec), "") => check_template_spec(&format!("{path}.spec"), spec, wrong),
        (Some(_), _) => wrong.push((path.to_owned(), "a template has `ref` or `spec`; not both".into())),
        (None, "") => wrong.push((path.to_owned(), "a template needs `ref` or `spec`".into())),
        (None, _) => {}
    }
}

fn check_template_spec(path: &str, spec: &TemplateSpec, wrong: &mut Vec<Wrong>) {
    if spec.resource_templates.is_empty() {
        wrong.push((path.to_owned(), "`resourcetemplates` is missing: what is to be made".into()));
    }
    for (n, object) in spec.resource_templates.iter().enumerate() {
        let path = format!("{path}.resourcetemplates[{n}]");
        for field in ["apiVersion", "kind"] {
            if object.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
                wrong.push((path.clone(), format!("`{field}` is missing")));
            }
        }
        let text_of = |field: &str| object.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        if let (Some(api_version), Some(kind)) = (text_of("apiVersion"), text_of("kind"))
            && let Some(message) = template::refusal(api_version, kind)
        {
            wrong.push((format!("{path}.kind"), message));
        }
        let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
        let texts = annotations.into_iter().flatten().filter_map(|(key, value)| Some((key, value.as_str()?)));
        let is_open = |value: &str| value.contains("$(");
        for (key, _) in texts.clone().filter(|(key, value)| is_open(value) && report::IS_FIXED.contains(&key.as_str()))
        {
            let message = format!("`{key}` cannot be made of what an event says: whoever posts would choose it");
            wrong.push((format!("{path}.metadata.annotations.{key}"), message));
        }
        let fixed = texts.filter(|(_, value)| !is_open(value)).map(|(key, value)| (key.clone(), value.to_owned()));
        for (key, why) in report::wrong(&fixed.collect()) {
            wrong.push((format!("{path}.metadata.annotations.{key}"), format!("`{key}`: {why}")));
        }
        let text = object.to_string();
        if let Some(name) = template::names(&text).find(|name| !spec.params.iter().any(|param| param.name == *name)) {
            wrong.push((path, format!("`$(tt.params.{name})` is not declared under `params`")));
        }
    }
}

fn check_interceptors(path: &str, written: &[InterceptorUse], wrong: &mut Vec<Wrong>) -> Vec<Interceptor> {
    let mut interceptors = Vec::new();
    for (n, interceptor) in written.iter().enumerate() {
        match Interceptor::read(interceptor) {
            Ok(interceptor) => interceptors.push(interceptor),
            Err((field, message)) => wrong.push((format!("{path}.interceptors[{n}].{field}"), message)),
        }
    }
    interceptors
}
