//! Reads `nodes` of `pitcrew.yaml`: what somebody says of the machines that work can go to.
//!
//! Invariant: every node that comes out has a name of its own, and one of them at most is the machine of the server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use pitcrew_core::fleet::{Amount, Effect, Taint};
use pitcrew_lang::diagnostic::Place;
use pitcrew_lang::yaml::Node;

use super::LOCAL;
use crate::config::section::{Reader, Section};

const NODE: [&str; 10] =
    ["name", "connection", "labels", "taints", "cpu", "memory", "gpus", "sharing", "resources", "dcgm"];
const COUNTED: [&str; 3] = ["count", "model", "memory"];
const LISTED: [&str; 3] = ["id", "model", "memory"];
const TAINT: [&str; 3] = ["key", "value", "effect"];
const EFFECTS: [(&str, Effect); 3] = [
    ("NoSchedule", Effect::NoSchedule),
    ("PreferNoSchedule", Effect::PreferNoSchedule),
    ("NoExecute", Effect::NoExecute),
];
/// GPUs that a node can have.
const MOST_GPUS: i64 = 1024;

/// A node as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    pub name: String,
    /// The stored connection that leads there; `None`: it is the machine of the server.
    pub connection: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    /// In place of what the node tells.
    pub cpu: Option<Amount>,
    /// In place of what the node tells.
    pub memory_mib: Option<u64>,
    pub gpus: Option<Declared>,
    pub sharing: Shared,
    /// What else it has of which a task can take some, by name.
    pub resources: BTreeMap<String, Amount>,
    /// Where a DCGM exporter answers, which tells what devices do.
    pub dcgm: Option<String>,
    /// In the file.
    pub line: u32,
}

/// The GPUs that a node should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declared {
    Count { count: u32, model: Option<String>, memory_mib: Option<u64> },
    List(Vec<DeclaredGpu>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredGpu {
    /// `GPU-…`.
    pub id: String,
    pub model: Option<String>,
    pub memory_mib: Option<u64>,
}

/// How the GPUs of a node are shared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shared {
    #[default]
    Whole,
    TimeSlicing(u32),
    Mps(u32),
    /// With as many instances on each GPU, if that is said.
    Mig(Option<u32>),
}

impl fmt::Display for NodeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.connection {
            Some(id) => write!(f, "over the connection `{id}`")?,
            None => write!(f, "the machine of the server")?,
        }
        match &self.gpus {
            Some(Declared::Count { count, .. }) => write!(f, ", GPUs: {count}"),
            Some(Declared::List(all)) => write!(f, ", GPUs: {}", all.len()),
            None => Ok(()),
        }
    }
}

impl NodeConfig {
    /// A node of which nothing is said.
    pub fn plain(name: &str) -> NodeConfig {
        NodeConfig {
            name: name.to_owned(),
            connection: None,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            cpu: None,
            memory_mib: None,
            gpus: None,
            sharing: Shared::Whole,
            resources: BTreeMap::new(),
            dcgm: None,
            line: 0,
        }
    }
}

/// The nodes of a file, or of one of its environments.
pub fn nodes(r: &mut Reader<'_>, node: &Node) -> Vec<NodeConfig> {
    let empty: &[Node] = &[];
    let Some(list) = node.as_list().or(node.is_null().then_some(empty)) else {
        r.mismatch(node, "nodes", "a list of nodes");
        return Vec::new();
    };
    let mut all: Vec<NodeConfig> = Vec::new();
    let mut names = BTreeSet::new();
    let mut here: Option<String> = None;
    for node in list {
        let Some(read) = one(r, node) else { continue };
        if !names.insert(read.name.clone()) {
            let at = node.get("name").unwrap_or(node).at;
            let hint = "a name stands for one machine: give each node its own".to_owned();
            r.problem(at, format!("there are two nodes `{}`", read.name), Some(hint));
        } else if let (None, Some(other)) = (&read.connection, &here) {
            let message = format!("`{}` has no `connection`, and neither has `{other}`", read.name);
            let hint = "one node without it is the machine of the server; name the stored connection of the other";
            r.problem(Place { length: 1, ..node.at }, message, Some(hint.to_owned()));
        } else {
            if read.connection.is_none() {
                here = Some(read.name.clone());
            }
            all.push(read);
        }
    }
    all
}

fn one(r: &mut Reader<'_>, node: &Node) -> Option<NodeConfig> {
    let section = r.section(node, "a node", &NODE)?;
    r.require(section, "the node", "name", "add `name:`, as its host is called");
    let name = r.text(section, "name")?;
    if let Err(why) = check_name(&name) {
        r.problem(section.get("name")?.at, format!("`{name}` is no name of a node: {why}"), None);
        return None;
    }
    let connection = r.text(section, "connection");
    if name == LOCAL && connection.is_some() {
        let hint = "choose another name, or leave out `connection`".to_owned();
        r.problem(section.get("name")?.at, format!("`{LOCAL}` is the machine of the server"), Some(hint));
    }
    let dcgm = r.text(section, "dcgm");
    if let Some(url) = &dcgm
        && !url.parse::<reqwest::Url>().is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
    {
        r.mismatch(section.get("dcgm")?, "dcgm", "an address such as `http://s21:9400/metrics`");
    }
    Some(NodeConfig {
        connection,
        labels: labels(r, section),
        taints: section.get("taints").map(|node| taints(r, node)).unwrap_or_default(),
        cpu: cpu(r, section),
        memory_mib: memory(r, section),
        gpus: gpus(r, section),
        sharing: sharing(r, section).unwrap_or_default(),
        resources: resources(r, section),
        dcgm,
        line: node.at.line,
        name,
    })
}

/// A name that fits into an address and a line: letters, digits and `-_.`.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match name {
        _ if name.len() > 100 => Err("it has more than 100 characters"),
        _ if !name.chars().all(is_plain) => Err("it has letters, digits, `-`, `_` and `.` alone"),
        _ if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) => Err("it begins with a letter or a digit"),
        _ => Ok(()),
    }
}

/// A key as in Kubernetes, such as `gpu-type` or `nvidia.com/gpu`.
pub fn check_key(key: &str) -> Result<(), &'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    match key {
        "" => Err("it is empty"),
        _ if key.len() > 200 => Err("it has more than 200 characters"),
        _ if !key.chars().all(is_plain) => Err("it has letters, digits, `-`, `_`, `.` and `/` alone"),
        _ => Ok(()),
    }
}

/// A value as in Kubernetes; it may be empty.
pub fn check_value(value: &str) -> Result<(), &'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match value {
        _ if value.len() > 200 => Err("it has more than 200 characters"),
        _ if !value.chars().all(is_plain) => Err("it has letters, digits, `-`, `_` and `.` alone"),
        _ => Ok(()),
    }
}

/// `key=value:Effect` or `key:Effect`, as `kubectl taint` takes it.
pub fn parse_taint(text: &str) -> Result<Taint, String> {
    let (rest, effect) = text.rsplit_once(':').ok_or("write it as `key=value:Effect` or `key:Effect`")?;
    let effect = parse_effect(effect.trim())?;
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    let (key, value) = (key.trim(), value.trim());
    check_key(key).map_err(|why| format!("its key `{key}`: {why}"))?;
    check_value(value).map_err(|why| format!("its value `{value}`: {why}"))?;
    Ok(Taint { key: key.to_owned(), value: value.to_owned(), effect })
}

/// One of Kubernetes' three.
pub fn parse_effect(text: &str) -> Result<Effect, String> {
    let found = EFFECTS.iter().find(|(name, _)| *name == text).map(|(_, effect)| *effect);
    found.ok_or_else(|| format!("`{text}` is no effect: it is NoSchedule, PreferNoSchedule or NoExecute"))
}

fn labels(r: &mut Reader<'_>, section: Section<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let Some(node) = section.get("labels") else { return all };
    for entry in r.mapping(node, "`labels`").unwrap_or_default() {
        let key = &*entry.key.text;
        let value = entry.value.as_scalar().map(|scalar| scalar.text.to_string());
        let checked = check_key(key).map_err(|why| format!("the label `{key}`: {why}"));
        let checked = checked.and_then(|()| match &value {
            Some(value) => check_value(value).map_err(|why| format!("the value of the label `{key}`: {why}")),
            None => Err(format!("the label `{key}` must have one value, found {}", entry.value.describe())),
        });
        match (checked, value) {
            (Ok(()), Some(value)) => drop(all.insert(key.to_owned(), value)),
            (Err(why), _) => r.problem(entry.key.at, why, None),
            (Ok(()), None) => {}
        }
    }
    all
}

/// `{nvidia.com/gpu: NoSchedule}`, or a list of such, of `key=value:Effect` and of `{key, value, effect}`.
fn taints(r: &mut Reader<'_>, node: &Node) -> Vec<Taint> {
    let mut all: Vec<Taint> = Vec::new();
    for node in node.as_list().unwrap_or(std::slice::from_ref(node)) {
        let found = if node.get("key").is_some() {
            r.section(node, "a taint", &TAINT).and_then(|section| {
                let key = r.text(section, "key")?;
                let value =
                    section.get("value").and_then(|node| node.as_scalar()).map(|scalar| scalar.text.to_string());
                r.require(section, "the taint", "effect", "NoSchedule, PreferNoSchedule or NoExecute");
                let effect = r.text(section, "effect")?;
                Some(vec![(node.at, format!("{key}={}:{effect}", value.unwrap_or_default()))])
            })
        } else if let Some(entries) = node.as_map() {
            let text = |value: &Node| value.as_scalar().map_or(value.describe(), |scalar| scalar.text.to_string());
            Some(entries.iter().map(|e| (e.value.at, format!("{}:{}", e.key.text, text(&e.value)))).collect())
        } else {
            node.as_scalar().map(|scalar| vec![(node.at, scalar.text.to_string())])
        };
        for (at, text) in found.unwrap_or_default() {
            match parse_taint(&text) {
                Ok(taint) if all.iter().any(|other| (&other.key, other.effect) == (&taint.key, taint.effect)) => {
                    r.problem(at, format!("the taint `{}:{:?}` is there twice", taint.key, taint.effect), None);
                }
                Ok(taint) => all.push(taint),
                Err(why) => {
                    let hint = "write `nvidia.com/gpu: NoSchedule`, or `\"key=value:NoSchedule\"`".to_owned();
                    r.problem(at, format!("the taint `{text}` is not right: {why}"), Some(hint));
                }
            }
        }
    }
    all
}

fn cpu(r: &mut Reader<'_>, section: Section<'_>) -> Option<Amount> {
    let node = section.get("cpu")?;
    let amount = node.as_scalar().and_then(|scalar| scalar.text.parse::<Amount>().ok()).filter(|a| !a.is_zero());
    if amount.is_none() {
        r.mismatch(node, "cpu", "a number of cores above 0, such as `64` or `500m`");
    }
    amount
}

fn memory(r: &mut Reader<'_>, section: Section<'_>) -> Option<u64> {
    let node = section.get("memory")?;
    let bytes = node.as_scalar().and_then(|scalar| pitcrew_lang::parse_memory(&scalar.text.to_string().into()).ok());
    let mib = bytes.map(|bytes| bytes >> 20).filter(|mib| *mib > 0);
    if mib.is_none() {
        r.mismatch(node, "memory", "an amount of memory of 1 MiB or more, such as `80Gi`");
    }
    mib
}

/// What a task asks for under a name of its own: no name that means something else there.
pub fn check_resource(name: &str) -> Result<(), &'static str> {
    match name {
        "gpu" | "gpus" => Err("GPUs are found, and declared by `gpus`"),
        "cpu" => Err("cores are found, and declared by `cpu`"),
        "memory" => Err("memory is found, and declared by `memory`"),
        _ => check_key(name),
    }
}

fn resources(r: &mut Reader<'_>, section: Section<'_>) -> BTreeMap<String, Amount> {
    let mut all = BTreeMap::new();
    let Some(node) = section.get("resources") else { return all };
    for entry in r.mapping(node, "`resources`").unwrap_or_default() {
        let name = &*entry.key.text;
        if let Err(why) = check_resource(name) {
            r.problem(entry.key.at, format!("the resource `{name}`: {why}"), None);
            continue;
        }
        match entry.value.as_scalar().and_then(|scalar| scalar.text.parse::<Amount>().ok()) {
            Some(amount) => drop(all.insert(name.to_owned(), amount)),
            None => r.mismatch(&entry.value, name, "an amount, such as `4` or `0.5`"),
        }
    }
    all
}

fn gpus(r: &mut Reader<'_>, section: Section<'_>) -> Option<Declared> {
    let node = section.get("gpus")?;
    if let Some(list) = node.as_list() {
        let mut ids = BTreeSet::new();
        let mut all = Vec::new();
        for node in list {
            let Some(section) = r.section(node, "a GPU", &LISTED) else { continue };
            r.require(section, "the GPU", "id", "add its UUID, as `nvidia-smi -L` shows it");
            let Some(id) = r.text(section, "id") else { continue };
            if !ids.insert(id.clone()) {
                r.problem(node.at, format!("the GPU `{id}` is there twice"), None);
            }
            all.push(DeclaredGpu { id, model: r.text(section, "model"), memory_mib: memory(r, section) });
        }
        return Some(Declared::List(all));
    }
    if let Some(number) = node.as_scalar().and_then(|scalar| scalar.as_number()) {
        let count = number.as_i64().filter(|count| (0..=MOST_GPUS).contains(count));
        if count.is_none() {
            r.mismatch(node, "gpus", &format!("a whole number from 0 to {MOST_GPUS}"));
        }
        return count.map(|count| Declared::Count { count: count as u32, model: None, memory_mib: None });
    }
    let section = r.section(node, "`gpus`", &COUNTED)?;
    r.require(section, "`gpus`", "count", "say how many there are, or list them");
    let count = r.whole(section, "count", 0, MOST_GPUS)? as u32;
    Some(Declared::Count { count, model: r.text(section, "model"), memory_mib: memory(r, section) })
}

fn sharing(r: &mut Reader<'_>, section: Section<'_>) -> Option<Shared> {
    let node = section.get("sharing")?;
    let wanted = "`whole`, `mig`, `{time_slicing: {replicas: 4}}`, `{mps: {replicas: 4}}` or `{mig: {instances: 7}}`";
    if let Some(scalar) = node.as_scalar() {
        match &*scalar.text {
            "whole" => return Some(Shared::Whole),
            "mig" => return Some(Shared::Mig(None)),
            _ => r.mismatch(node, "sharing", wanted),
        }
        return None;
    }
    let section = r.section(node, "`sharing`", &["time_slicing", "mps", "mig"])?;
    let given: Vec<&str> =
        ["time_slicing", "mps", "mig"].into_iter().filter(|key| section.get(key).is_some()).collect();
    let [kind] = given[..] else {
        r.mismatch(node, "sharing", &format!("one of {wanted}"));
        return None;
    };
    let (key, most) = if kind == "mig" { ("instances", 7) } else { ("replicas", 1000) };
    let inner = r.section(section.get(kind)?, &format!("`{kind}`"), &[key])?;
    r.require(inner, &format!("`{kind}`"), key, "say into how many each GPU is divided");
    let count = r.whole(inner, key, 1, most)? as u32;
    Some(match kind {
        "mig" => Shared::Mig(Some(count)),
        "mps" => Shared::Mps(count),
        _ => Shared::TimeSlicing(count),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str) -> Result<Vec<NodeConfig>, String> {
        let root = pitcrew_lang::yaml::read(source, "p.yaml").unwrap().unwrap();
        let mut reader = Reader::new("p.yaml", source);
        let found = nodes(&mut reader, root.get("nodes").unwrap());
        let problems = reader.finish();
        if problems.is_empty() { Ok(found) } else { Err(pitcrew_lang::render_all(&problems, false)) }
    }

    #[test]
    fn nodes_are_read_in_every_way_to_write_them() {
        let found = read(
            "nodes:\n\
             - name: here\n  taints: {nvidia.com/gpu: NoSchedule, slow: PreferNoSchedule}\n  sharing: mig\n\
             - name: s21\n  connection: gpu\n  labels: {rack: a1, fast: true}\n  cpu: 63.5\n  memory: 512Gi\n  \
               resources: {licence: 4, scanner: 0.5}\n  \
               taints: [nvidia.com/gpu: NoSchedule, 'team=vision:NoExecute', {key: old, effect: NoSchedule}]\n  \
               gpus: {count: 8, model: A100, memory: 80Gi}\n  sharing: {time_slicing: {replicas: 4}}\n\
             - name: s22\n  connection: gpu2\n  gpus:\n  - {id: GPU-a, model: H100}\n  dcgm: http://s22:9400/metrics\n\
             - {name: s23, connection: gpu3, gpus: 2, sharing: {mig: {instances: 7}}}\n",
        )
        .unwrap();
        let [here, s21, s22, s23] = &found[..] else { panic!("{found:?}") };
        let shown = |node: &NodeConfig| node.taints.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown(here), ["nvidia.com/gpu:NoSchedule", "slow:PreferNoSchedule"]);
        assert_eq!(shown(s21), ["nvidia.com/gpu:NoSchedule", "team=vision:NoExecute", "old:NoSchedule"]);
        assert_eq!(
            (s21.cpu.unwrap().to_string(), s21.memory_mib, &*s21.labels["fast"]),
            ("63.5".into(), Some(512 << 10), "true")
        );
        let shown: Vec<String> = s21.resources.iter().map(|(name, amount)| format!("{name} {amount}")).collect();
        assert_eq!(shown, ["licence 4", "scanner 0.5"]);
        let declared = Declared::Count { count: 8, model: Some("A100".into()), memory_mib: Some(80 << 10) };
        assert_eq!((&s21.gpus, s21.sharing), (&Some(declared), Shared::TimeSlicing(4)));
        assert!(matches!(&s22.gpus, Some(Declared::List(all)) if all[0].id == "GPU-a"));
        assert_eq!((here.sharing, s23.sharing), (Shared::Mig(None), Shared::Mig(Some(7))));
        assert!(read("nodes:\n").unwrap().is_empty());
    }

    #[test]
    fn the_examples_of_the_page_are_read() {
        let page = include_str!("../../../../docs/nodes.md");
        let examples: Vec<&str> = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(examples.len() >= 2, "{}", examples.len());
        for example in examples {
            read(example).unwrap_or_else(|problems| panic!("{problems}\n{example}"));
        }
    }

    #[test]
    fn what_is_wrong_with_a_node_is_told_at_its_place() {
        let problems = read(
            "nodes:\n\
             - {name: a, conection: x}\n\
             - {name: a, connection: y}\n\
             - {name: b}\n\
             - {name: c, connection: z, cpu: -4, memory: -1Gi, gpus: -1}\n\
             - {name: '<script>', connection: z}\n\
             - {name: e, connection: z, taints: [gpu: Never, x], labels: {'a b': 1, c: [1]}}\n\
             - {name: f, connection: z, sharing: {mps: {replicas: 0}}, gpus: [{model: A100}]}\n\
             - {connection: z, dcgm: ftp://x}\n\
             - {name: g, connection: z, resources: {gpu: 1, licence: many, 'a b': 1}}\n",
        )
        .unwrap_err();
        insta::assert_snapshot!(problems);
    }
}
