//! Makes a pod complete: what ConfigMaps and Secrets hold is put into it, when an attempt starts and not before; the credentials of
//! its ServiceAccount too.
//!
//! Afterwards nothing in the environment of a container refers to an object, and volumes of objects are files. What came
//! from a Secret is given back as well, to be masked.

use std::collections::{BTreeMap, BTreeSet};

use pitcrew_core::RunKey;
use pitcrew_core::fleet::Gpus;
use pitcrew_core::pod::{CREDENTIALS, Container, Env, EnvSource, FileEntry, Pod, PodFailure, Source, Volume};
use pitcrew_store::Store;
use serde_json::Value;

use super::credentials::{self, Account};
use super::objects::{self, Keys};
use crate::vault::Vault;

/// Is it a Secret, and its name.
type Name = (bool, String);

/// What a pod refers to.
#[derive(Default)]
pub struct Found {
    /// `None`: there is none of that name.
    objects: BTreeMap<Name, Option<Keys>>,
    account: Account,
}

/// What a run makes for itself lies among the files of the run, and goes with them.
pub fn own_volumes(pod: &mut Pod, run: RunKey) {
    for volume in &mut pod.volumes {
        if let Source::Shared { dir } = &mut volume.source
            && dir.starts_with("volumes/")
        {
            *dir = format!("runs/{run}/{dir}");
        }
    }
}

/// What Kubernetes' devices of GPUs are called; the first is asked for where only a number is known.
const GPUS: [&str; 2] = ["nvidia.com/gpu", "amd.com/gpu"];

/// Asks the cluster for the GPUs that the task asks for, where its containers do not say so themselves, as by an annotation.
/// Each step that uses GPUs asks for all of them: steps take turns. A part of a GPU is one device of a cluster, which may
/// stand for a part (time-slicing, MPS). The error is a sentence.
pub fn ask_for_gpus(pod: &mut Pod, gpus: &Gpus, models: &[String]) -> Result<(), String> {
    if let Some(model) = models.first() {
        return Err(format!(
            "`pitcrew.dev/gpu` asks for the model `{model}`: in a cluster, labels of nodes say that; use `nodeSelector` of `podTemplate`"
        ));
    }
    let (name, count) = match gpus {
        Gpus::None => return Ok(()),
        Gpus::Count(count) => (None, *count),
        Gpus::Share(_) => (None, 1),
        Gpus::Mig { profile, count } => (Some(format!("nvidia.com/mig-{profile}")), *count),
        Gpus::MemoryMib(_) => {
            return Err(
                "`pitcrew.dev/gpu` asks for the memory of a GPU, which no cluster gives: ask for a number".into()
            );
        }
    };
    let asks = |step: &Container| {
        let of = &step.resources;
        GPUS.into_iter().find(|name| of.limits.contains_key(*name) || of.requests.contains_key(*name))
    };
    let is_said = pod.steps.iter().any(|step| asks(step).is_some());
    for step in &mut pod.steps {
        let own = asks(step);
        if is_said && own.is_none() {
            continue;
        }
        let wanted = name.clone().unwrap_or_else(|| own.unwrap_or(GPUS[0]).to_owned());
        for of in [&mut step.resources.limits, &mut step.resources.requests] {
            GPUS.iter().for_each(|name| drop(of.remove(*name)));
        }
        // Kubernetes takes the limit of a device for the request as well.
        step.resources.limits.insert(wanted, count.to_string());
    }
    Ok(())
}

/// Reads all objects that the pod refers to.
pub async fn find(store: &Store, vault: &Vault, pod: &Pod) -> anyhow::Result<Found> {
    let mut objects = BTreeMap::new();
    for (is_secret, name) in referred(pod) {
        let keys = objects::keys(store, vault, is_secret, &pod.namespace, &name).await?;
        objects.insert((is_secret, name), keys);
    }
    let account = credentials::find(store, vault, &pod.namespace, &pod.service_account).await?;
    Ok(Found { objects, account })
}

fn referred(pod: &Pod) -> BTreeSet<Name> {
    let mut names = BTreeSet::new();
    for container in pod.steps.iter().chain(&pod.sidecars) {
        names.extend(container.env_from.iter().map(|from| (from.is_secret, from.name.clone())));
        for env in &container.env {
            match &env.from {
                EnvSource::Secret { name, .. } => drop(names.insert((true, name.clone()))),
                EnvSource::ConfigMap { name, .. } => drop(names.insert((false, name.clone()))),
                EnvSource::Text(_) | EnvSource::Field(_) | EnvSource::Resource(_) => {}
            }
        }
    }
    let mut sources: Vec<&Source> = pod.volumes.iter().map(|volume| &volume.source).collect();
    while let Some(source) = sources.pop() {
        match source {
            Source::Object { is_secret, name, .. } => drop(names.insert((*is_secret, name.clone()))),
            Source::Projected(parts) => sources.extend(parts),
            Source::Scratch { .. }
            | Source::Shared { .. }
            | Source::Files(_)
            | Source::Host { .. }
            | Source::Claim { .. }
            | Source::Other { .. } => {}
        }
    }
    names
}

/// Who knows what is not among our objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Nobody: fields of the pod are those of this machine.
    Machine,
    /// The cluster that the pod runs in: what is not ours may be there, and fields of the pod it fills in.
    Cluster,
}

/// Puts them in, and gives the values that must not be shown.
pub fn complete(pod: &mut Pod, found: &Found, whose: Whose) -> Result<Vec<String>, PodFailure> {
    let mut masks = BTreeSet::new();
    let facts = facts(pod);
    let facts = (whose == Whose::Machine).then_some(&facts);
    for container in pod.steps.iter_mut().chain(&mut pod.sidecars) {
        let config = |message| PodFailure::Config { container: container.name.clone(), message };
        let env = environment(container, found, facts, &mut masks).map_err(config)?;
        container.env = env;
        container.env_from.retain(|from| whose == Whose::Cluster && !found.has(from.is_secret, &from.name));
    }
    let first = pod.steps.first().map(|step| step.name.clone()).unwrap_or_default();
    for volume in &mut pod.volumes {
        if whose == Whose::Cluster && !found.all_of(&volume.source) {
            continue;
        }
        let filled = files(&volume.source, found, &mut masks);
        let config = |why| PodFailure::Config {
            container: first.clone(),
            message: format!("the volume `{}`: {why}", volume.name),
        };
        if let Some(files) = filled.map_err(config)? {
            volume.source = Source::Files(files);
        }
    }
    let account = match (&found.account, whose) {
        // One that only the cluster has gives what the cluster gives, and no files.
        (Account::Missing(_), Whose::Cluster) => &Account::None,
        (account, _) => account,
    };
    let files =
        credentials::files(account, &mut masks).map_err(|message| PodFailure::Config { container: first, message })?;
    if !files.is_empty() {
        pod.volumes.push(Volume { name: CREDENTIALS.to_owned(), source: Source::Files(files) });
    }
    Ok(masks.into_iter().collect())
}

/// What is said of a pod that cannot begin.
pub fn words(failure: &PodFailure) -> String {
    match failure {
        PodFailure::Config { container, message } => format!("the container `{container}` cannot be made: {message}"),
        PodFailure::ImagePull { container, image, message } => {
            format!("the image `{image}` of the container `{container}` cannot be had: {message}")
        }
        PodFailure::Sidecar { container, message } => format!("the container `{container}`: {message}"),
        PodFailure::StepTimeout { container } => format!("the container `{container}` took too long"),
        PodFailure::Deadline => "the time of the pod is over".to_owned(),
        PodFailure::Evicted { message } | PodFailure::Refused { message } => message.clone(),
    }
}

/// Fields of the pod, by the names of the downward API.
fn facts(pod: &Pod) -> BTreeMap<String, String> {
    let node = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut facts: BTreeMap<String, String> = [
        ("metadata.name", pod.name.as_str()),
        ("metadata.namespace", &pod.namespace),
        ("spec.nodeName", node.trim()),
        ("status.podIP", "127.0.0.1"),
        ("status.podIPs", "127.0.0.1"),
        ("status.hostIP", "127.0.0.1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    for (field, all) in [("labels", &pod.labels), ("annotations", &pod.annotations)] {
        facts.extend(all.iter().map(|(key, value)| (format!("metadata.{field}['{key}']"), value.clone())));
    }
    facts
}

fn environment(
    container: &Container,
    found: &Found,
    facts: Option<&BTreeMap<String, String>>,
    masks: &mut BTreeSet<String>,
) -> Result<Vec<Env>, String> {
    let mut env: Vec<Env> = Vec::new();
    let mut set = |name: &str, from: EnvSource| {
        env.retain(|old| old.name != name);
        env.push(Env { name: name.to_owned(), from });
    };
    for from in &container.env_from {
        if facts.is_none() && !found.has(from.is_secret, &from.name) {
            continue;
        }
        for (key, bytes) in found.keys(from.is_secret, &from.name, from.optional)?.into_iter().flatten() {
            let name = format!("{}{key}", from.prefix);
            // What is no name of a variable is left out, as Kubernetes does it.
            let is_name = !name.is_empty() && !name.contains('=') && !name.starts_with(|c: char| c.is_ascii_digit());
            if is_name {
                set(&name, value(bytes, from.is_secret, masks).map_err(|why| format!("the key `{key}` {why}"))?);
            }
        }
    }
    for entry in &container.env {
        let wrong = |why: String| format!("the variable `{}`: {why}", entry.name);
        let mut of_key = |is_secret, name: &str, key: &str, optional| {
            let keys = found.keys(is_secret, name, optional).map_err(wrong)?;
            match keys.and_then(|keys| keys.get(key)) {
                Some(bytes) => {
                    value(bytes, is_secret, masks).map(Some).map_err(|why| wrong(format!("its value {why}")))
                }
                None if optional => Ok(None),
                None => Err(wrong(format!("couldn't find key {key} in {} {name}", word(is_secret)))),
            }
        };
        let from = match &entry.from {
            EnvSource::Text(_) => Some(entry.from.clone()),
            EnvSource::Field(_) | EnvSource::Resource(_) if facts.is_none() => Some(entry.from.clone()),
            EnvSource::Secret { name, .. } if facts.is_none() && !found.has(true, name) => Some(entry.from.clone()),
            EnvSource::ConfigMap { name, .. } if facts.is_none() && !found.has(false, name) => Some(entry.from.clone()),
            EnvSource::Secret { name, key, optional } => of_key(true, name, key, *optional)?,
            EnvSource::ConfigMap { name, key, optional } => of_key(false, name, key, *optional)?,
            EnvSource::Field(path) => {
                let plain = path.replace("[\"", "['").replace("\"]", "']");
                match facts.and_then(|facts| facts.get(&plain)) {
                    Some(value) => Some(plain_text(value)),
                    // Of a label or an annotation that is not there, it is empty.
                    None if plain.contains('[') => Some(EnvSource::Text(String::new())),
                    None => return Err(wrong(format!("the field `{path}` is not known here"))),
                }
            }
            EnvSource::Resource(of) => Some(plain_text(&resource(container, of).map_err(wrong)?)),
        };
        if let Some(from) = from {
            set(&entry.name, from);
        }
    }
    Ok(env)
}

/// A value that is taken as it is: in it `$(NAME)` means nothing.
fn plain_text(text: &str) -> EnvSource {
    EnvSource::Text(text.replace('$', "$$"))
}

fn value(bytes: &[u8], is_secret: bool, masks: &mut BTreeSet<String>) -> Result<EnvSource, String> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    let text = text.ok_or("is no text: an environment cannot hold it")?;
    if is_secret {
        masks.insert(text.to_owned());
    }
    Ok(plain_text(text))
}

fn word(is_secret: bool) -> &'static str {
    if is_secret { "Secret" } else { "ConfigMap" }
}

impl Found {
    fn has(&self, is_secret: bool, name: &str) -> bool {
        matches!(self.objects.get(&(is_secret, name.to_owned())), Some(Some(_)))
    }

    /// Everything that a volume refers to is ours.
    fn all_of(&self, source: &Source) -> bool {
        match source {
            Source::Object { is_secret, name, .. } => self.has(*is_secret, name),
            Source::Projected(parts) => parts.iter().all(|part| self.all_of(part)),
            Source::Files(_) => true,
            Source::Scratch { .. }
            | Source::Shared { .. }
            | Source::Host { .. }
            | Source::Claim { .. }
            | Source::Other { .. } => false,
        }
    }

    fn keys(&self, is_secret: bool, name: &str, optional: bool) -> Result<Option<&Keys>, String> {
        match self.objects.get(&(is_secret, name.to_owned())).and_then(Option::as_ref) {
            Some(keys) => Ok(Some(keys)),
            None if optional => Ok(None),
            None => Err(format!("{} \"{name}\" not found", word(is_secret).to_lowercase())),
        }
    }
}

/// A `resourceFieldRef` of this container; a limit that was not set is what was asked for.
fn resource(container: &Container, of: &Value) -> Result<String, String> {
    let path = of["resource"].as_str().unwrap_or_default();
    let given = match path.split_once('.') {
        Some(("limits", name)) => {
            container.resources.limits.get(name).or_else(|| container.resources.requests.get(name))
        }
        Some(("requests", name)) => container.resources.requests.get(name),
        _ => return Err(format!("`{path}` is no resource: it is `limits.NAME` or `requests.NAME`")),
    };
    let amount = given.map_or(Ok(0.0), |text| quantity(text))?;
    let divisor = match of["divisor"].as_str().filter(|text| !text.is_empty() && *text != "0") {
        Some(text) => quantity(text)?,
        None => 1.0,
    };
    Ok(format!("{}", (amount / divisor).ceil()))
}

fn quantity(text: &str) -> Result<f64, String> {
    let digits = text.find(|c: char| c.is_ascii_alphabetic() && c != 'e').unwrap_or(text.len());
    let factor = match &text[digits..] {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(format!("`{text}` is no quantity")),
    };
    let number: f64 = text[..digits].parse().map_err(|_| format!("`{text}` is no quantity"))?;
    Ok(number * factor)
}

/// The files of a volume, if it is made of objects.
fn files(source: &Source, found: &Found, masks: &mut BTreeSet<String>) -> Result<Option<Vec<FileEntry>>, String> {
    match source {
        Source::Object { is_secret, name, items, default_mode, optional } => {
            let Some(keys) = found.keys(*is_secret, name, *optional)? else { return Ok(Some(Vec::new())) };
            let mut files = Vec::new();
            let mut add = |key: &str, path: &str, mode: Option<u32>| {
                let Some(bytes) = keys.get(key) else {
                    return if *optional {
                        Ok(())
                    } else {
                        Err(format!("the {} `{name}` has no key `{key}`", word(*is_secret)))
                    };
                };
                if *is_secret && let Ok(text) = std::str::from_utf8(bytes) {
                    masks.insert(text.trim_end().to_owned());
                }
                let (path, mode) = (path.to_owned(), mode.unwrap_or(*default_mode));
                files.push(FileEntry { path, bytes: bytes.clone(), mode, is_secret: *is_secret });
                Ok(())
            };
            if items.is_empty() {
                keys.keys().try_for_each(|key| add(key, key, None))?;
            }
            items.iter().try_for_each(|(key, path, mode)| add(key, path, *mode))?;
            Ok(Some(files))
        }
        Source::Projected(parts) => {
            let mut all: Vec<FileEntry> = Vec::new();
            for part in parts {
                let files = match part {
                    Source::Files(files) => files.clone(),
                    part => files(part, found, masks)?.ok_or("holds something that this machine cannot project")?,
                };
                all.retain(|old| files.iter().all(|new| new.path != old.path));
                all.extend(files);
            }
            Ok(Some(all))
        }
        Source::Scratch { .. }
        | Source::Shared { .. }
        | Source::Files(_)
        | Source::Host { .. }
        | Source::Claim { .. }
        | Source::Other { .. } => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use pitcrew_core::pod::EnvFrom;
    use serde_json::json;

    use super::*;

    fn found() -> Found {
        let keys = |pairs: &[(&str, &str)]| -> Option<Keys> {
            Some(pairs.iter().map(|(key, text)| (key.to_string(), text.as_bytes().to_vec())).collect())
        };
        let secret = keys(&[("user", "ada"), ("password", "pa$(HOME)ss"), ("1st", "left out")]);
        let config = keys(&[("level", "debug"), ("user", "nobody")]);
        let objects = [((true, "s".into()), secret), ((false, "c".into()), config), ((false, "gone".into()), None)];
        Found { objects: objects.into(), account: Account::None }
    }

    fn pod(container: Value, volumes: Vec<Volume>) -> Pod {
        let step: Container = serde_json::from_value(container).unwrap();
        let pod = json!({
            "name": "run-pod", "hostname": "h", "namespace": "ci", "labels": { "a/b": "c" }, "steps": [], "shape": "tekton",
        });
        let mut pod: Pod = serde_json::from_value(pod).unwrap();
        (pod.steps, pod.volumes) = (vec![step], volumes);
        pod
    }

    fn texts(container: &Container) -> Vec<(&str, &str)> {
        let text = |env: &Env| match &env.from {
            EnvSource::Text(text) => text.clone().leak() as &str,
            _ => "?",
        };
        container.env.iter().map(|env| (env.name.as_str(), text(env))).collect()
    }

    #[test]
    fn variables_become_texts_in_which_nothing_is_expanded_and_secrets_are_masked() {
        let mut pod = pod(
            json!({
                "name": "step-x", "image": "i",
                "resources": { "requests": { "cpu": "1500m" }, "limits": { "memory": "64Mi" } },
                "env": [
                    { "name": "USER", "from": { "text": "me" } },
                    { "name": "PASS", "from": { "secret": { "name": "s", "key": "password", "optional": false } } },
                    { "name": "NONE", "from": { "config_map": { "name": "gone", "key": "x", "optional": true } } },
                    { "name": "POD", "from": { "field": "metadata.name" } },
                    { "name": "LABEL", "from": { "field": "metadata.labels['a/b']" } },
                    { "name": "CPU", "from": { "resource": { "resource": "limits.cpu" } } },
                    { "name": "MIB", "from": { "resource": { "resource": "limits.memory", "divisor": "1Mi" } } },
                    { "name": "X_level", "from": { "text": "$(USER)" } },
                ],
            }),
            Vec::new(),
        );
        pod.steps[0].env_from = vec![
            EnvFrom { prefix: "X_".into(), is_secret: false, name: "c".into(), optional: false },
            EnvFrom { prefix: String::new(), is_secret: true, name: "s".into(), optional: false },
        ];
        let masks = complete(&mut pod, &found(), Whose::Machine).unwrap();
        assert_eq!(masks, ["ada", "pa$(HOME)ss"]);
        assert_eq!(
            texts(&pod.steps[0]),
            [
                ("X_user", "nobody"),
                ("password", "pa$$(HOME)ss"),
                ("user", "ada"),
                ("USER", "me"),
                ("PASS", "pa$$(HOME)ss"),
                ("POD", "run-pod"),
                ("LABEL", "c"),
                ("CPU", "2"),
                ("MIB", "64"),
                ("X_level", "$(USER)"),
            ]
        );
        assert!(pod.steps[0].env_from.is_empty());
    }

    #[test]
    fn volumes_of_objects_become_files() {
        let object = |is_secret, name: &str, items: Vec<(&str, &str, Option<u32>)>, optional| Source::Object {
            is_secret,
            name: name.into(),
            items: items.into_iter().map(|(key, path, mode)| (key.into(), path.into(), mode)).collect(),
            default_mode: 0o644,
            optional,
        };
        let all = Source::Projected(vec![
            object(false, "c", vec![], false),
            object(true, "s", vec![("user", "user", Some(0o400))], false),
            object(false, "gone", vec![], true),
        ]);
        let volumes = vec![Volume { name: "v".into(), source: all }];
        let mut pod = pod(json!({ "name": "step-x", "image": "i" }), volumes);
        let masks = complete(&mut pod, &found(), Whose::Machine).unwrap();
        assert_eq!(masks, ["ada"]);
        let Source::Files(files) = &pod.volumes[0].source else { panic!("{:?}", pod.volumes) };
        let shown: Vec<_> = files.iter().map(|f| (f.path.as_str(), f.bytes.as_slice(), f.mode, f.is_secret)).collect();
        assert_eq!(shown, [("level", &b"debug"[..], 0o644, false), ("user", b"ada", 0o400, true)]);
    }

    #[test]
    fn an_account_that_only_the_cluster_has_is_the_clusters_matter() {
        let found = Found { account: Account::Missing("builder".into()), ..found() };
        let container = json!({ "name": "step-x", "image": "i" });
        let mut there = pod(container.clone(), Vec::new());
        assert_eq!(complete(&mut there, &found, Whose::Cluster), Ok(Vec::new()));
        assert_eq!(there.volumes, []);
        let here = complete(&mut pod(container, Vec::new()), &found, Whose::Machine).unwrap_err();
        assert!(words(&here).contains("serviceaccount \"builder\" not found"), "{here:?}");
    }

    #[test]
    fn gpus_of_an_annotation_are_asked_of_the_cluster_for_each_step_that_may_use_them() {
        let gpus = |pod: &Pod| -> Vec<BTreeMap<String, String>> {
            pod.steps.iter().map(|step| step.resources.limits.clone()).collect()
        };
        let of = |name: &str, count: &str| BTreeMap::from([(name.to_owned(), count.to_owned())]);
        let mut plain = pod(json!({ "name": "step-x", "image": "i" }), Vec::new());
        plain.steps.push(plain.steps[0].clone());
        let mut said = plain.clone();
        ask_for_gpus(&mut plain, &Gpus::Share("0.25".parse().unwrap()), &[]).unwrap();
        assert_eq!(gpus(&plain), [of("nvidia.com/gpu", "1"), of("nvidia.com/gpu", "1")]);
        said.steps[1].resources.limits = of("amd.com/gpu", "1");
        ask_for_gpus(&mut said, &Gpus::Count(2), &[]).unwrap();
        assert_eq!(gpus(&said), [BTreeMap::new(), of("amd.com/gpu", "2")]);
        ask_for_gpus(&mut said, &Gpus::None, &[]).unwrap();
        assert_eq!(gpus(&said), [BTreeMap::new(), of("amd.com/gpu", "2")]);
        let error = ask_for_gpus(&mut said, &Gpus::MemoryMib(1024), &[]).unwrap_err();
        assert!(error.contains("memory of a GPU"), "{error}");
        let error = ask_for_gpus(&mut said, &Gpus::Count(1), &["A100".into()]).unwrap_err();
        assert!(error.contains("`nodeSelector`"), "{error}");
    }

    #[test]
    fn what_is_not_there_is_told_with_the_container() {
        let env = |from: Value| json!({ "name": "step-x", "image": "i", "env": [{ "name": "A", "from": from }] });
        let secret = |name: &str, key: &str| json!({ "secret": { "name": name, "key": key, "optional": false } });
        for (from, expected) in [
            (secret("nobody", "k"), "the variable `A`: secret \"nobody\" not found"),
            (secret("s", "k"), "the variable `A`: couldn't find key k in Secret s"),
            (json!({ "field": "spec.magic" }), "the variable `A`: the field `spec.magic` is not known here"),
        ] {
            let failure = complete(&mut pod(env(from), Vec::new()), &found(), Whose::Machine).unwrap_err();
            let container = "step-x".to_owned();
            assert_eq!(failure, PodFailure::Config { container, message: expected.to_owned() });
        }
    }
}
