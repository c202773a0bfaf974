//! A pod as Kubernetes is to have it, and the Secret beside it.
//!
//! Steps are init containers, but for the last: so the kubelet keeps their order and stops at the first that fails, nobody in the
//! pod waits for anybody, and what all ask for is the most that one asks for, a GPU once. With sidecars, which have to run
//! beside all of them, steps are plain containers too, and each waits for its turn ([`wrap`]). Everything that was a file or
//! came from a Secret is in one Secret of the same name, made before the pod; in the pod's own text there is none of it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use pitcrew_core::pod::{
    CREDENTIALS, Container, ContainerResources, EnvSource, FileEntry, Medium, Pod, Pull, Shape, Source, Volume, expand,
};
use pitcrew_exec::log::Masker;
use serde_json::{Map, Value, json};

use super::marks::{Part, Sent};
use super::wrap;

/// Labels and annotations of what we make.
pub const INSTANCE: &str = "pitcrew.dev/instance";
pub const ATTEMPT: &str = "pitcrew.dev/attempt";
pub const RUN: &str = "pitcrew.dev/run";
/// In the Secret: the values that no log may show, for whoever goes on with the log.
pub const MASKS: &str = "masks";
/// The annotation that tells the steps of a pod that its sidecars are ready.
pub const READY: &str = "pitcrew.dev/ready";
/// The most that a Secret may hold, as the API server has it, with some room.
const MOST: usize = 1_000_000;
/// In what only Kubernetes understands of a pod: claims that are made for its run, by their names.
const TEMPLATES: &str = "volumeClaimTemplates";
/// Directories that all containers of a pod of Tekton share.
const SHARED: [(&str, &str); 6] = [
    ("pitcrew-workspace", "/workspace"),
    ("pitcrew-home", "/tekton/home"),
    ("pitcrew-results", "/tekton/results"),
    ("pitcrew-steps", "/tekton/steps"),
    ("pitcrew-run", "/tekton/run"),
    ("pitcrew-artifacts", "/tekton/artifacts"),
];
/// The volume of our files.
const FILES: &str = "pitcrew-files";
/// The volume of what is said to the first step.
const SAID: &str = "pitcrew-said";

/// The volume of a step's own copy of its credentials.
fn creds(step: usize) -> String {
    format!("pitcrew-creds-{step}")
}

fn has_no_command(step: &Container) -> bool {
    step.command.is_empty() && step.script.is_none()
}

/// What names the objects of an attempt.
pub struct Names<'a> {
    pub instance: &'a str,
    /// What stands for the attempt, and for its run, where only few letters are allowed.
    pub attempt: &'a str,
    pub run: &'a str,
    /// The attempt, for people.
    pub shown: &'a str,
    pub grace_s: i64,
    pub at: Timestamp,
    /// How long it may take as a whole.
    pub deadline_s: Option<i64>,
}

/// What an attempt is made of.
pub struct Objects {
    pub sent: Sent,
    pub secret: Value,
    pub claims: Vec<Value>,
    pub pod: Value,
}

/// What goes into the Secret.
#[derive(Default)]
struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    /// Keeps it, and says under which key.
    fn add(&mut self, bytes: Vec<u8>) -> String {
        let key = format!("f{}", self.0.len());
        self.0.insert(key.clone(), bytes);
        key
    }
}

struct Maker<'a> {
    pod: &'a Pod,
    name: String,
    mark: String,
    is_wrapped: bool,
    /// Only so that steps find credentials in their homes: one that names no command does without.
    is_for_homes: bool,
    masker: Option<Masker>,
    files: Files,
    /// Files of our own: `{key, path}` below [`wrap::SCRIPTS`].
    scripts: Vec<Value>,
}

/// All of it; an error is a sentence about what cannot be had on Kubernetes.
pub fn objects(
    pod: &Pod,
    names: &Names<'_>,
    namespace: &str,
    masks: &[String],
    log_limit: u64,
) -> Result<Objects, String> {
    let is_for_homes = !wrap::is_wanted(pod) && !wrap::logins(pod).is_empty();
    let is_wrapped = wrap::is_wanted(pod) || is_for_homes;
    let name = name_of(&pod.name, names.attempt);
    let mut maker = Maker {
        pod,
        name: name.clone(),
        mark: format!("::pitcrew-{}::", names.attempt),
        is_wrapped,
        is_for_homes,
        masker: Masker::new(masks.iter().map(String::as_str)),
        files: Files::default(),
        scripts: Vec::new(),
    };
    maker.files.0.insert(MASKS.to_owned(), serde_json::to_vec(masks).unwrap_or_default());
    let mut steps = Vec::new();
    for (index, step) in pod.steps.iter().enumerate() {
        steps.push(maker.container(Some(index), step)?);
    }
    let mut containers = match pod.sidecars.is_empty() {
        true => steps.split_off(steps.len().saturating_sub(1)),
        false => std::mem::take(&mut steps),
    };
    for sidecar in &pod.sidecars {
        containers.push(maker.container(None, sidecar)?);
    }
    let mut cluster = pod.cluster.as_object().cloned().unwrap_or_default();
    let templates = cluster.remove(TEMPLATES);
    let labels = maker.labels(names);
    let mut spec = Map::new();
    spec.insert("volumes".into(), maker.volumes()?.into());
    spec.insert("containers".into(), containers.into());
    if !steps.is_empty() {
        spec.insert("initContainers".into(), steps.into());
    }
    spec.insert("restartPolicy".into(), "Never".into());
    spec.insert("terminationGracePeriodSeconds".into(), names.grace_s.into());
    spec.insert("securityContext".into(), pod_security(pod));
    if let Some(limit) = names.deadline_s {
        spec.insert("activeDeadlineSeconds".into(), limit.into());
    }
    if is_label(&pod.hostname, 63) {
        spec.insert("hostname".into(), pod.hostname.clone().into());
    }
    spec.extend(cluster.into_iter().filter(|(_, value)| !value.is_null()));
    let size: usize = maker.files.0.values().map(Vec::len).sum();
    if size > MOST {
        return Err(format!(
            "its scripts and files have {size} bytes, and a Secret of Kubernetes holds {MOST}: bring large files in an image \
             or a volume"
        ));
    }
    let data: Map<String, Value> =
        maker.files.0.iter().map(|(key, bytes)| (key.clone(), STANDARD.encode(bytes).into())).collect();
    let annotations = |of: &BTreeMap<String, String>| {
        let mut all: Map<String, Value> = of.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
        all.insert(ATTEMPT.into(), names.shown.into());
        all
    };
    let metadata = |annotations| json!({ "name": name, "labels": labels, "annotations": annotations });
    let claims = templates.as_ref().and_then(Value::as_object).into_iter().flatten().map(|(name, template)| {
        json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": { "name": name, "labels": { INSTANCE: names.instance, RUN: names.run } },
            "spec": template["spec"],
        })
    });
    let mut notices = Vec::new();
    if let Some(step) = pod.steps.iter().find(|step| is_for_homes && has_no_command(step)) {
        notices.push(format!(
            "`{}` names no command: its credentials are in {} and not in its home; write `command` or `script`",
            step.name,
            wrap::CREDS
        ));
    }
    let part = |container: &Container, is_wrapped: bool| Part {
        is_probed: container.probes.startup.is_some() || container.probes.readiness.is_some(),
        name: container.name.clone(),
        image: container.image.clone(),
        continues: container.on_error == pitcrew_core::pod::OnError::Continue,
        is_wrapped,
        results: container.results.clone(),
    };
    Ok(Objects {
        claims: claims.collect(),
        secret: json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": metadata(annotations(&BTreeMap::new())),
            "data": data,
        }),
        pod: json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata(annotations(&pod.annotations)), "spec": spec }),
        sent: Sent {
            name: name.clone(),
            namespace: namespace.to_owned(),
            mark: maker.mark,
            steps: pod
                .steps
                .iter()
                .map(|step| part(step, is_wrapped && !(is_for_homes && has_no_command(step))))
                .collect(),
            sidecars: pod.sidecars.iter().map(|sidecar| part(sidecar, false)).collect(),
            results: pod.results.clone(),
            log_limit,
            at: names.at,
            deadline_s: names.deadline_s,
            grace_s: u32::try_from(names.grace_s).unwrap_or(u32::MAX),
            notices,
        },
    })
}

impl Maker<'_> {
    fn labels(&self, names: &Names<'_>) -> Map<String, Value> {
        let fits = |(key, value): &(&String, &String)| {
            key.rsplit('/').next().is_some_and(is_value) && (value.is_empty() || is_value(value))
        };
        let mut labels: Map<String, Value> =
            self.pod.labels.iter().filter(fits).map(|(k, v)| (k.clone(), v.clone().into())).collect();
        // Tekton, where a cluster has it, must not take it for its own.
        labels.insert("app.kubernetes.io/managed-by".into(), "pitcrew".into());
        labels.insert(INSTANCE.into(), names.instance.into());
        labels.insert(ATTEMPT.into(), names.attempt.into());
        labels.insert(RUN.into(), names.run.into());
        labels
    }

    /// A container; `index` of a step.
    fn container(&mut self, index: Option<usize>, from: &Container) -> Result<Value, String> {
        let wrong = |why: String| format!("`{}`: {why}", from.name);
        let mut made = from.cluster.as_object().cloned().unwrap_or_default();
        // Of containers that are steps alone.
        made.remove("restartPolicy");
        let mut set = |key: &str, value: Value| {
            if !matches!(&value, Value::Null) {
                made.insert(key.to_owned(), value);
            }
        };
        set("name", from.name.clone().into());
        set("image", from.image.clone().into());
        let pull = match from.pull {
            Pull::Always => "Always",
            Pull::Never => "Never",
            Pull::IfNotPresent => "IfNotPresent",
        };
        set("imagePullPolicy", pull.into());
        let mut command = from.command.clone();
        let mut args = from.args.clone();
        if let Some(script) = &from.script {
            let path = format!("script-{}", from.name);
            // One that names no interpreter is the shell's.
            let preamble = if script.starts_with("#!") { "" } else { "#!/bin/sh\n" };
            let key = self.files.add(format!("{preamble}{script}").into_bytes());
            self.scripts.push(json!({ "key": key, "path": path, "mode": 0o755 }));
            command = vec![format!("{}/{path}", wrap::SCRIPTS)];
        }
        let may_be_plain = self.is_for_homes && has_no_command(from);
        if let Some(index) = index.filter(|_| self.is_wrapped && !may_be_plain) {
            if command.is_empty() {
                return Err(wrong(
                    "it names no command, and what its image runs is not known where its results, conditions, timeout or \
                     sidecars are to be seen to: write `command` or `script`"
                        .to_owned(),
                ));
            }
            let words: Vec<String> = command.drain(..).chain(args.drain(..)).collect();
            let text = wrap::shell(self.pod, index, &words, &self.mark).map_err(wrong)?;
            let path = format!("pitcrew-{}", from.name);
            let key = self.files.add(text.into_bytes());
            self.scripts.push(json!({ "key": key, "path": path, "mode": 0o755 }));
            command = vec!["/bin/sh".to_owned(), format!("{}/{path}", wrap::SCRIPTS)];
            args = words;
        }
        if !command.is_empty() {
            set("command", command.into());
        }
        if !args.is_empty() {
            set("args", args.into());
        }
        set("env", self.environment(from)?);
        if !from.env_from.is_empty() {
            let one = |of: &pitcrew_core::pod::EnvFrom| {
                let kind = if of.is_secret { "secretRef" } else { "configMapRef" };
                json!({ "prefix": of.prefix, kind: { "name": of.name, "optional": of.optional } })
            };
            set("envFrom", from.env_from.iter().map(one).collect());
        }
        set("workingDir", from.workdir.clone().map_or(Value::Null, Value::from));
        set("volumeMounts", self.mounts(index, from));
        set("resources", resources(&from.resources));
        set("securityContext", security(from));
        // An init container has none.
        if index.is_none_or(|index| index + 1 == self.pod.steps.len()) {
            if !from.ports.is_empty() {
                set("ports", from.ports.clone().into());
            }
            for (key, probe) in [
                ("startupProbe", &from.probes.startup),
                ("readinessProbe", &from.probes.readiness),
                ("livenessProbe", &from.probes.liveness),
            ] {
                set(key, probe.as_ref().map_or(Value::Null, super::probe::probe));
            }
        }
        Ok(Value::Object(made))
    }

    /// What holds something that no log may show comes from the Secret, with everything in it that is to be expanded.
    fn environment(&mut self, from: &Container) -> Result<Value, String> {
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        let mut all = Vec::new();
        for env in &from.env {
            all.push(match &env.from {
                EnvSource::Text(text) => {
                    let value = expand(text, |name| known.get(name).map(String::as_str));
                    let is_secret = self.masker.as_ref().is_some_and(|masker| masker.text(&value) != value);
                    known.insert(env.name.clone(), value.clone());
                    if is_secret {
                        let key = self.files.add(value.into_bytes());
                        json!({ "name": env.name, "valueFrom": { "secretKeyRef": { "name": self.name, "key": key } } })
                    } else {
                        json!({ "name": env.name, "value": text })
                    }
                }
                EnvSource::Secret { name, key, optional } => json!({
                    "name": env.name, "valueFrom": { "secretKeyRef": { "name": name, "key": key, "optional": optional } },
                }),
                EnvSource::ConfigMap { name, key, optional } => json!({
                    "name": env.name, "valueFrom": { "configMapKeyRef": { "name": name, "key": key, "optional": optional } },
                }),
                EnvSource::Field(path) => {
                    json!({ "name": env.name, "valueFrom": { "fieldRef": { "fieldPath": path } } })
                }
                EnvSource::Resource(of) => json!({ "name": env.name, "valueFrom": { "resourceFieldRef": of } }),
            });
        }
        Ok(if all.is_empty() { Value::Null } else { all.into() })
    }

    fn mounts(&self, index: Option<usize>, from: &Container) -> Value {
        let mut all: Vec<Value> = Vec::new();
        for mount in &from.mounts {
            let mut one = json!({ "name": mount.volume, "mountPath": mount.at });
            if let Some(path) = &mount.sub_path {
                one["subPath"] = path.clone().into();
            }
            if mount.read_only {
                one["readOnly"] = true.into();
            }
            all.push(one);
        }
        let mut add = |volume: &str, at: &str| {
            if !from.mounts.iter().any(|mount| mount.at.trim_end_matches('/') == at) {
                all.push(json!({ "name": volume, "mountPath": at }));
            }
        };
        if self.pod.shape == Shape::Tekton {
            SHARED.iter().for_each(|(volume, at)| add(volume, at));
        } else if self.is_wrapped {
            SHARED.iter().filter(|(_, at)| at.starts_with("/tekton/")).for_each(|(volume, at)| add(volume, at));
        }
        add(FILES, wrap::SCRIPTS);
        match index.filter(|_| !wrap::logins(self.pod).is_empty()) {
            Some(index) if !(self.is_for_homes && has_no_command(from)) => {
                add(CREDENTIALS, wrap::LOGINS);
                add(&creds(index), wrap::CREDS);
            }
            Some(_) => add(CREDENTIALS, wrap::CREDS),
            None => {}
        }
        if index == Some(0) && !self.pod.sidecars.is_empty() {
            add(SAID, wrap::DOWNWARD);
        }
        all.into()
    }

    fn volumes(&mut self) -> Result<Vec<Value>, String> {
        let mut all = Vec::new();
        for volume in &self.pod.volumes {
            let Volume { name, source } = volume;
            if let (CREDENTIALS, Source::Files(files)) = (name.as_str(), source) {
                // Whoever a step runs as reads them, and copies them for itself.
                let open = files.iter().map(|file| FileEntry { mode: 0o444, ..file.clone() }).collect();
                let mut made = self.source(&Source::Files(open))?;
                made["name"] = CREDENTIALS.into();
                all.push(made);
                let own = |index| json!({ "name": creds(index), "emptyDir": { "medium": "Memory" } });
                all.extend((0..self.pod.steps.len()).map(own));
                continue;
            }
            let mut made = self.source(source).map_err(|why| format!("the volume `{name}`: {why}"))?;
            made["name"] = name.clone().into();
            all.push(made);
        }
        let scratch = |name: &str| json!({ "name": name, "emptyDir": {} });
        match (self.pod.shape, self.is_wrapped) {
            (Shape::Tekton, _) => all.extend(SHARED.iter().map(|(name, _)| scratch(name))),
            (Shape::Plain, true) => {
                all.extend(SHARED.iter().filter(|(_, at)| at.starts_with("/tekton/")).map(|(name, _)| scratch(name)));
            }
            (Shape::Plain, false) => {}
        }
        if !self.pod.sidecars.is_empty() {
            let field = json!({ "fieldPath": format!("metadata.annotations['{READY}']") });
            all.push(json!({ "name": SAID, "downwardAPI": { "items": [{ "path": "ready", "fieldRef": field }] } }));
        }
        // Without any, all keys would be there.
        let items = match self.scripts.is_empty() {
            true => json!({ "emptyDir": {} }),
            false => json!({ "secret": { "secretName": self.name, "items": self.scripts } }),
        };
        let mut files = items;
        files["name"] = FILES.into();
        all.push(files);
        Ok(all)
    }

    fn source(&mut self, source: &Source) -> Result<Value, String> {
        Ok(match source {
            Source::Scratch { medium, limit } => {
                let mut of = Map::new();
                if *medium == Medium::Memory {
                    of.insert("medium".into(), "Memory".into());
                }
                if let Some(limit) = limit {
                    of.insert("sizeLimit".into(), limit.to_string().into());
                }
                json!({ "emptyDir": of })
            }
            Source::Shared { dir } => {
                // `claims/NAMESPACE/NAME`, or `volumes/…` of one that the run makes.
                let name = dir.rsplit('/').next().unwrap_or_default();
                json!({ "persistentVolumeClaim": { "claimName": name } })
            }
            Source::Claim { name, read_only } => {
                json!({ "persistentVolumeClaim": { "claimName": name, "readOnly": read_only } })
            }
            Source::Files(files) => json!({ "secret": { "secretName": self.name, "items": self.items(files) } }),
            Source::Object { is_secret, name, items, default_mode, optional } => {
                let mut of = json!({ "defaultMode": default_mode, "optional": optional });
                of[if *is_secret { "secretName" } else { "name" }] = name.clone().into();
                if !items.is_empty() {
                    of["items"] = keys(items);
                }
                json!({ if *is_secret { "secret" } else { "configMap" }: of })
            }
            Source::Projected(parts) => {
                let mut sources = Vec::new();
                for part in parts {
                    sources.push(match part {
                        Source::Files(files) => json!({ "secret": { "name": self.name, "items": self.items(files) } }),
                        Source::Object { is_secret, name, items, optional, .. } => {
                            let mut of = json!({ "name": name, "optional": optional });
                            if !items.is_empty() {
                                of["items"] = keys(items);
                            }
                            json!({ if *is_secret { "secret" } else { "configMap" }: of })
                        }
                        Source::Other { kind, spec } => json!({ kind: spec }),
                        other => return Err(format!("a projected volume cannot hold {other:?}")),
                    });
                }
                json!({ "projected": { "sources": sources } })
            }
            Source::Host { path, kind } => json!({ "hostPath": { "path": path, "type": kind } }),
            Source::Other { kind, spec } => json!({ kind: spec }),
        })
    }

    fn items(&mut self, files: &[FileEntry]) -> Value {
        let mut add = |file: &FileEntry| json!({ "key": self.files.add(file.bytes.clone()), "path": file.path, "mode": file.mode });
        files.iter().map(&mut add).collect()
    }
}

fn keys(items: &[(String, String, Option<u32>)]) -> Value {
    let one = |(key, path, mode): &(String, String, Option<u32>)| match mode {
        Some(mode) => json!({ "key": key, "path": path, "mode": mode }),
        None => json!({ "key": key, "path": path }),
    };
    items.iter().map(one).collect()
}

fn resources(from: &ContainerResources) -> Value {
    let mut of = Map::new();
    if !from.requests.is_empty() {
        of.insert("requests".into(), json!(from.requests));
    }
    if !from.limits.is_empty() {
        of.insert("limits".into(), json!(from.limits));
    }
    if of.is_empty() { Value::Null } else { of.into() }
}

fn security(container: &Container) -> Value {
    let from = &container.security;
    let mut of = from.cluster.as_object().cloned().unwrap_or_default();
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            of.insert(key.to_owned(), value);
        }
    };
    set("runAsUser", from.run_as_user.map(Value::from));
    set("runAsGroup", from.run_as_group.map(Value::from));
    set("runAsNonRoot", from.run_as_non_root.map(Value::from));
    set("privileged", from.privileged.map(Value::from));
    set("allowPrivilegeEscalation", from.allow_privilege_escalation.map(Value::from));
    set("readOnlyRootFilesystem", from.read_only_root.map(Value::from));
    let mut capabilities = Map::new();
    for (key, names) in [("add", &from.add_capabilities), ("drop", &from.drop_capabilities)] {
        if !names.is_empty() {
            capabilities.insert(key.to_owned(), json!(names));
        }
    }
    set("capabilities", (!capabilities.is_empty()).then(|| capabilities.into()));
    if of.is_empty() { Value::Null } else { of.into() }
}

fn pod_security(pod: &Pod) -> Value {
    let from = &pod.security;
    let mut of = from.cluster.as_object().cloned().unwrap_or_default();
    for (key, value) in [
        ("runAsUser", from.run_as_user.map(Value::from)),
        ("runAsGroup", from.run_as_group.map(Value::from)),
        ("runAsNonRoot", from.run_as_non_root.map(Value::from)),
        ("fsGroup", from.fs_group.map(Value::from)),
        ("supplementalGroups", (!from.supplemental_groups.is_empty()).then(|| json!(from.supplemental_groups))),
    ] {
        of.extend(value.map(|value| (key.to_owned(), value)));
    }
    of.into()
}

/// As a label's value, or the name of its key, may be.
fn is_value(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= 63 && ends(text.chars().next()) && ends(text.chars().last()) && text.chars().all(inside)
}

fn is_label(text: &str, most: usize) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= most && text.chars().all(fits) && !text.starts_with('-') && !text.ends_with('-')
}

/// A name that nothing else has, in which people see what it is.
fn name_of(pod: &str, attempt: &str) -> String {
    let plain: String = pod
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(62 - attempt.len())
        .collect();
    let plain = plain.trim_matches('-');
    if plain.is_empty() { format!("pitcrew-{attempt}") } else { format!("{plain}-{attempt}") }
}
