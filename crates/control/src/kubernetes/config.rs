//! Reads `kubernetes` of `pitcrew.yaml`: which clusters' nodes are nodes, and how they are watched, checked and rebooted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use pitcrew_core::recovery::Advice;
use pitcrew_kubernetes::fleet::GPU;
use pitcrew_kubernetes::pod::Container;
use pitcrew_kubernetes::reboot::How;
use pitcrew_lang::yaml::Node;

use crate::config::file::absolute;
use crate::config::section::{Reader, Section};

const KUBERNETES: [&str; 7] = ["clusters", "namespace", "resource", "conditions", "check", "reboot", "gone_after"];
const CLUSTER: [&str; 4] = ["name", "kubeconfig", "context", "selector"];
const CONTAINER: [&str; 7] =
    ["image", "command", "privileged", "pull", "service_account", "pull_secrets", "runtime_class"];
const REBOOT: [&str; 2] = ["annotation", "pod"];
const ANNOTATION: [&str; 2] = ["key", "value"];
/// What a condition of a node can be a reason for.
const ADVICE: [(&str, Advice); 4] = [
    ("check", Advice::Check),
    ("reboot", Advice::Reboot),
    ("replace", Advice::Replace),
    ("contact_support", Advice::ContactSupport),
];
/// How long a node that its cluster does not list any more stays a node, unless it is said.
const GONE: SignedDuration = SignedDuration::from_mins(10);

/// The clusters, and what all of them share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesSettings {
    pub clusters: Vec<ClusterConfig>,
    /// Where our pods are; `None`: that of the context.
    pub namespace: Option<String>,
    /// What GPUs are called.
    pub resource: String,
    /// Conditions of nodes that say that something is wrong, and what helps.
    pub conditions: BTreeMap<String, Advice>,
    /// What checks a node.
    pub check: Option<Container>,
    /// `None`: nothing is rebooted.
    pub reboot: Option<How>,
    pub gone_after: SignedDuration,
    /// In the file.
    pub line: u32,
}

/// One cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterConfig {
    pub name: String,
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    /// Labels of the nodes that are meant.
    pub selector: Option<String>,
}

impl Default for KubernetesSettings {
    fn default() -> KubernetesSettings {
        KubernetesSettings {
            clusters: Vec::new(),
            namespace: None,
            resource: GPU.to_owned(),
            conditions: BTreeMap::new(),
            check: None,
            reboot: None,
            gone_after: GONE,
            line: 0,
        }
    }
}

impl std::fmt::Display for KubernetesSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
        f.write_str(&names.join(", "))
    }
}

/// The section; `None` where it cannot be read. `base`: where relative paths start.
pub fn kubernetes(r: &mut Reader<'_>, base: &Path, node: &Node) -> Option<KubernetesSettings> {
    let section = r.section(node, "`kubernetes`", &KUBERNETES)?;
    let clusters = match section.get("clusters") {
        Some(node) => clusters(r, base, node),
        None => vec![ClusterConfig { name: "kubernetes".to_owned(), ..ClusterConfig::default() }],
    };
    let usual = KubernetesSettings::default();
    Some(KubernetesSettings {
        clusters,
        namespace: name(r, section, "namespace"),
        resource: r.text(section, "resource").unwrap_or(usual.resource),
        conditions: section.get("conditions").map(|node| conditions(r, node)).unwrap_or_default(),
        check: section.get("check").and_then(|node| container(r, node, "`check`")),
        reboot: section.get("reboot").and_then(|node| reboot(r, node)),
        gone_after: r.duration(section, "gone_after").unwrap_or(usual.gone_after),
        line: node.at.line,
    })
}

fn clusters(r: &mut Reader<'_>, base: &Path, node: &Node) -> Vec<ClusterConfig> {
    let list = node.as_list().unwrap_or(std::slice::from_ref(node));
    let mut all: Vec<ClusterConfig> = Vec::new();
    for node in list {
        let Some(section) = r.section(node, "a cluster", &CLUSTER) else { continue };
        r.require(section, "the cluster", "name", "add `name:`, which is what it is called here");
        let [name, context, selector] = ["name", "context", "selector"].map(|key| r.text(section, key));
        let kubeconfig = r.text(section, "kubeconfig").map(|path| absolute(base, &path));
        let Some(name) = name else { continue };
        if all.iter().any(|other| other.name == name) {
            r.problem(node.at, format!("the cluster `{name}` stands here twice"), None);
        } else {
            all.push(ClusterConfig { name, kubeconfig, context, selector });
        }
    }
    all
}

/// What Kubernetes takes as a name.
fn name(r: &mut Reader<'_>, section: Section<'_>, key: &str) -> Option<String> {
    let text = r.text(section, key)?;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_name = text.len() <= 63 && text.chars().all(fits) && !text.starts_with('-') && !text.ends_with('-');
    if !is_name {
        r.problem(
            section.get(key)?.at,
            format!("`{key}`: a name has small letters, digits and `-`, found `{text}`"),
            None,
        );
        return None;
    }
    Some(text)
}

fn conditions(r: &mut Reader<'_>, node: &Node) -> BTreeMap<String, Advice> {
    let mut all = BTreeMap::new();
    let Some(entries) = r.mapping(node, "`conditions`") else { return all };
    let names: Vec<&str> = entries.iter().map(|entry| &*entry.key.text).collect();
    let Some(section) = r.section(node, "`conditions`", &names) else { return all };
    for (entry, name) in entries.iter().zip(names) {
        if name == "Ready" {
            let hint = "a node that is not ready is looked at anyway, and never rebooted for that".to_owned();
            r.problem(entry.key.at, "`Ready` cannot stand in `conditions`", Some(hint));
            continue;
        }
        all.extend(r.choice(section, name, &ADVICE).map(|advice| (name.to_owned(), advice)));
    }
    all
}

fn container(r: &mut Reader<'_>, node: &Node, what: &str) -> Option<Container> {
    let section = r.section(node, what, &CONTAINER)?;
    r.require(section, what, "image", "say which image is run");
    let texts = |r: &mut Reader<'_>, key| r.texts(section, key).into_iter().map(|(text, _)| text).collect();
    let pulls = [("Always", "Always"), ("IfNotPresent", "IfNotPresent"), ("Never", "Never")];
    Some(Container {
        command: texts(r, "command"),
        is_privileged: r.flag(section, "privileged").unwrap_or_default(),
        pull: r.choice(section, "pull", &pulls).map(str::to_owned),
        service_account: r.text(section, "service_account"),
        pull_secrets: texts(r, "pull_secrets"),
        runtime_class: r.text(section, "runtime_class"),
        image: r.text(section, "image")?,
    })
}

fn reboot(r: &mut Reader<'_>, node: &Node) -> Option<How> {
    let section = r.section(node, "`reboot`", &REBOOT)?;
    match (section.get("annotation"), section.get("pod")) {
        (Some(node), None) => annotation(r, section, node),
        (None, Some(node)) => container(r, node, "`pod`").map(How::Pod),
        (Some(_), Some(_)) => {
            r.problem(node.at, "`reboot` has `annotation` and `pod`: one of them reboots a node", None);
            None
        }
        (None, None) => {
            let hint =
                "say `annotation:`, which the reboot agent of the cluster heeds, or `pod:`, which reboots the node";
            r.problem(node.at, "`reboot` has neither `annotation` nor `pod`", Some(hint.to_owned()));
            None
        }
    }
}

fn annotation(r: &mut Reader<'_>, section: Section<'_>, node: &Node) -> Option<How> {
    let (key, value, at) = match node.as_scalar() {
        Some(_) => (r.text(section, "annotation")?, None, node.at),
        None => {
            let own = r.section(node, "`annotation`", &ANNOTATION)?;
            r.require(own, "`annotation`", "key", "say which annotation is written");
            (r.text(own, "key")?, r.text(own, "value"), node.at)
        }
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if key.starts_with("pitcrew/") || !key.chars().all(fits) || key.matches('/').count() > 1 {
        let message = format!("`{key}` is no annotation of a reboot agent");
        r.problem(at, message, Some("such as `example.com/reboot`; those of `pitcrew/` are ours".to_owned()));
        return None;
    }
    Some(How::Annotation { key, value })
}

#[cfg(test)]
mod tests {
    use pitcrew_lang::yaml;

    use super::*;

    fn read(source: &str) -> Result<KubernetesSettings, Vec<String>> {
        let root = yaml::read(source, "pitcrew.yaml").unwrap().unwrap();
        let mut r = Reader::new("pitcrew.yaml", source);
        let found = root.get("kubernetes").and_then(|node| kubernetes(&mut r, Path::new("/etc"), node));
        let problems = r.finish();
        let told = |problems: Vec<pitcrew_lang::Diagnostic>| {
            let told = |p: pitcrew_lang::Diagnostic| format!("{}; {}", p.message, p.hint.unwrap_or_default());
            problems.into_iter().map(told).collect()
        };
        if problems.is_empty() { Ok(found.unwrap()) } else { Err(told(problems)) }
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let all = read("kubernetes: {}").unwrap();
        assert_eq!((all.to_string().as_str(), all.resource.as_str()), ("kubernetes", "nvidia.com/gpu"));
        assert_eq!((all.gone_after, all.reboot, all.check), (GONE, None, None));
        let source = "kubernetes: {clusters: [{name: a, kubeconfig: k, context: c, selector: 'x=y'}], conditions: {Xid: reboot}, \
                      check: {image: dcgm, command: [dcgmi, diag]}, reboot: {annotation: a.com/reboot}}";
        let all = read(source).unwrap();
        assert_eq!(all.clusters[0].kubeconfig.as_deref(), Some(Path::new("/etc/k")));
        assert_eq!(all.conditions["Xid"], Advice::Reboot);
        assert_eq!(all.check.unwrap().command, ["dcgmi", "diag"]);
        assert_eq!(all.reboot, Some(How::Annotation { key: "a.com/reboot".to_owned(), value: None }));
        let all = read("kubernetes: {reboot: {pod: {image: busybox, pull: Never}}}").unwrap();
        assert!(matches!(all.reboot, Some(How::Pod(one)) if one.pull.as_deref() == Some("Never")));
    }

    #[test]
    fn mistakes_are_told() {
        let told = |source: &str| read(source).unwrap_err().join("; ");
        assert!(told("kubernetes: {clusters: [{context: x}]}").contains("has no `name`"));
        assert!(told("kubernetes: {clusters: [{name: x}, {name: x}]}").contains("stands here twice"));
        assert!(told("kubernetes: {conditions: {Xid: boot}}").contains("`reboot`"));
        assert!(told("kubernetes: {conditions: {Ready: reboot}}").contains("never rebooted for that"));
        assert!(told("kubernetes: {check: {command: x}}").contains("has no `image`"));
        assert!(told("kubernetes: {reboot: {}}").contains("neither `annotation` nor `pod`"));
        assert!(told("kubernetes: {reboot: {annotation: a, pod: {image: x}}}").contains("one of them"));
        assert!(told("kubernetes: {reboot: {annotation: pitcrew/x}}").contains("no annotation of a reboot agent"));
        assert!(told("kubernetes: {namespace: A_b}").contains("small letters"));
        assert!(told("kubernetes: {cluster: a}").contains("did you mean `clusters`?"));
    }
}
