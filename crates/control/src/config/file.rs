//! Reads `pitcrew.yaml`.
//!
//! Nothing that is written is ignored: an unknown key is refused with its place and what was probably meant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pitcrew_lang::Diagnostic;
use pitcrew_lang::diagnostic::closest;
use pitcrew_lang::yaml::{self, Entry, Node};

use super::keys::{self, Kind};
use super::section::Reader;
use crate::ecs::config::{EcsSettings, ecs};
use crate::fleet::config::{NodeConfig, nodes};
use crate::kubernetes::config::{KubernetesSettings, kubernetes};
use crate::notify::config::{Config, Sections, sections};
use crate::recovery::config::{RecoveryConfig, recovery};
use crate::sandbox::{SandboxSettings, sandbox};
use crate::signatures::{SignatureSettings, signatures};

/// The keys with more than one value.
const SECTIONS: [&str; 10] =
    ["environments", "channels", "notify", "digest", "nodes", "recovery", "ecs", "kubernetes", "sandbox", "signatures"];

/// A value of the file, with the line it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub text: String,
    pub line: u32,
}

/// What a file says for one environment.
#[derive(Debug, Default)]
pub struct FileValues {
    pub values: BTreeMap<&'static str, Found>,
    pub notify: Config,
    pub nodes: Vec<NodeConfig>,
    /// `None`: recovery is off.
    pub recovery: Option<RecoveryConfig>,
    /// `None`: no machine of ECS is a node.
    pub ecs: Option<EcsSettings>,
    /// `None`: no node of Kubernetes is a node.
    pub kubernetes: Option<KubernetesSettings>,
    pub sandbox: SandboxSettings,
    /// `None`: images need no signature.
    pub signatures: Option<SignatureSettings>,
    /// The names under `environments`.
    pub environments: Vec<String>,
}

/// Reads the text of a file; values under `environments.<environment>` win over those at the top.
pub fn read(source: &str, path: &Path, environment: Option<&str>) -> Result<FileValues, Vec<Diagnostic>> {
    let file = path.display().to_string();
    let Some(root) = yaml::read(source, &file)? else { return Ok(FileValues::default()) };
    let base = path.parent().unwrap_or(Path::new(""));
    let mut reader = Reader::new(&file, source);
    let values = read_root(&mut reader, base, &root, environment);
    let problems = reader.finish();
    if problems.is_empty() { Ok(values) } else { Err(problems) }
}

fn read_root(r: &mut Reader<'_>, base: &Path, root: &Node, environment: Option<&str>) -> FileValues {
    let mut found = FileValues::default();
    let mut top = Sections::default();
    for entry in r.mapping(root, "the configuration").unwrap_or_default() {
        if &*entry.key.text == "nodes" {
            found.nodes = nodes(r, &entry.value);
        } else if &*entry.key.text == "recovery" {
            found.recovery = recovery(r, base, &entry.value);
        } else if &*entry.key.text == "ecs" {
            found.ecs = ecs(r, &entry.value);
        } else if &*entry.key.text == "kubernetes" {
            found.kubernetes = kubernetes(r, base, &entry.value);
        } else if &*entry.key.text == "sandbox" {
            found.sandbox = sandbox(r, base, &entry.value).unwrap_or_default();
        } else if &*entry.key.text == "signatures" {
            found.signatures = signatures(r, base, &entry.value);
        } else if &*entry.key.text != "environments" && !sections(r, base, &entry.key.text, &entry.value, &mut top) {
            value(r, base, entry, &mut found.values, true);
        }
    }
    top.check(r);
    let mut chosen = top.clone();
    if let Some(environments) = root.get("environments") {
        for entry in r.mapping(environments, "`environments`").unwrap_or_default() {
            let name = entry.key.text.to_string();
            // Every environment is checked, so that a slip shows before the day it is needed.
            let (mut values, mut own) = (BTreeMap::new(), Sections::default());
            let mut own_nodes = None;
            let mut own_recovery = None;
            let mut own_ecs = None;
            let mut own_kubernetes = None;
            let mut own_sandbox = None;
            let mut own_signatures = None;
            for inner in r.mapping(&entry.value, &format!("the environment `{name}`")).unwrap_or_default() {
                if &*inner.key.text == "nodes" {
                    own_nodes = Some(nodes(r, &inner.value));
                } else if &*inner.key.text == "recovery" {
                    own_recovery = Some(recovery(r, base, &inner.value));
                } else if &*inner.key.text == "ecs" {
                    own_ecs = Some(ecs(r, &inner.value));
                } else if &*inner.key.text == "kubernetes" {
                    own_kubernetes = Some(kubernetes(r, base, &inner.value));
                } else if &*inner.key.text == "sandbox" {
                    own_sandbox = sandbox(r, base, &inner.value);
                } else if &*inner.key.text == "signatures" {
                    own_signatures = Some(signatures(r, base, &inner.value));
                } else if !sections(r, base, &inner.key.text, &inner.value, &mut own) {
                    value(r, base, inner, &mut values, false);
                }
            }
            let own = top.under(own);
            own.check(r);
            if environment == Some(&name) {
                found.values.extend(values);
                chosen = own;
                found.nodes = own_nodes.unwrap_or(found.nodes);
                found.recovery = own_recovery.unwrap_or(found.recovery);
                found.ecs = own_ecs.unwrap_or(found.ecs);
                found.kubernetes = own_kubernetes.unwrap_or(found.kubernetes);
                found.sandbox = own_sandbox.unwrap_or(found.sandbox);
                found.signatures = own_signatures.unwrap_or(found.signatures);
            }
            found.environments.push(name);
        }
    }
    found.notify = chosen.config();
    found
}

fn value(r: &mut Reader<'_>, base: &Path, entry: &Entry, values: &mut BTreeMap<&'static str, Found>, top: bool) {
    let name = &*entry.key.text;
    let Some(key) = keys::find(name) else {
        let sections = SECTIONS.into_iter().filter(|name| top || *name != "environments");
        let known = keys::ALL.iter().map(|key| key.name).chain(sections);
        let hint = match closest(name, known.clone()) {
            _ if top && matches!(name, "workflow" | "tasks") => {
                "`pitcrew.yaml` holds settings; give a workflow's file another name".to_owned()
            }
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the keys are {}", known.map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ")),
        };
        return r.problem(entry.key.at, format!("unknown key `{name}`"), Some(hint));
    };
    let Some(scalar) = entry.value.as_scalar() else {
        let message = format!("`{name}` must have one value, found {}", entry.value.describe());
        return r.problem(entry.value.at, message, Some(key.about.to_owned()));
    };
    let mut text = scalar.text.to_string();
    if let Err(wrong) = key.kind.check(&text) {
        let message = format!("`{name}` {wrong}");
        match key.kind {
            // The line may hold a password.
            Kind::Store => r.secret_problem(entry.value.at, message, None),
            _ => r.problem(entry.value.at, message, None),
        }
        return;
    }
    if key.kind == Kind::Path {
        text = absolute(base, &text).display().to_string();
    }
    values.insert(key.name, Found { text, line: entry.value.at.line });
}

/// A path of the file: relative ones start at `base`, and `~/` is the home directory.
pub fn absolute(base: &Path, text: &str) -> PathBuf {
    if let Some(rest) = text.strip_prefix("~/")
        && let Some(home) = super::home()
    {
        return home.join(rest);
    }
    base.join(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(source: &str, environment: Option<&str>) -> FileValues {
        read(source, Path::new("/etc/pitcrew.yaml"), environment).unwrap()
    }

    #[test]
    fn an_environment_wins_over_the_top_and_paths_start_at_the_file() {
        let source = "data_dir: data\nparallelism: 4\nenvironments:\n  prod:\n    parallelism: 64\n  test: {}\n";
        let text = |v: &FileValues, key| v.values.get(key).map(|f| (f.text.clone(), f.line));
        let plain = values(source, None);
        assert_eq!(text(&plain, "data_dir"), Some(("/etc/data".into(), 1)));
        assert_eq!(text(&plain, "parallelism"), Some(("4".into(), 2)));
        assert_eq!(text(&values(source, Some("prod")), "parallelism"), Some(("64".into(), 5)));
        assert_eq!(plain.environments, ["prod", "test"]);
        assert!(values("# nothing\n", None).values.is_empty());
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_place_also_in_an_environment_that_is_not_used() {
        let source = "paralelism: 3\nlisten: here\nenvironments:\n  prod: {auth: maybe}\nstore: mysql://u:secret@h/d\n";
        let problems = read(source, Path::new("p.yaml"), None).unwrap_err();
        insta::assert_snapshot!(pitcrew_lang::render_all(&problems, false), @r"
        p.yaml:1:1: error: unknown key `paralelism`
          |
        1 | paralelism: 3
          | ^^^^^^^^^^
        hint: did you mean `parallelism`?

        p.yaml:2:9: error: `listen` must be an address such as `127.0.0.1:8793`, found `here`
          |
        2 | listen: here
          |         ^^^^

        p.yaml:4:16: error: `auth` must be `true` or `false`, found `maybe`
          |
        4 |   prod: {auth: maybe}
          |                ^^^^^

        p.yaml:5:8: error: `store` is not right: `mysql://` is no database that pitcrew knows: use a path, `sqlite:PATH` or `postgres://…`
        ");
    }
}
