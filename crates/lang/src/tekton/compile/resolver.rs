//! References by a resolver: `taskRef: {resolver: git, params: […]}`.
//!
//! What a resolver gives becomes one of the bundle's documents under its own name, and the reference one by that name, so the compiler
//! knows of names alone. A reference that nothing could be found for stays as a name that no document has, with the reason:
//! there is no reference that is passed over.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::tekton::run::container::{items, text};
use crate::tekton::substitute::{Replacements, params, text_of};

/// What a reference asks of its resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `cluster`, `git`, …
    pub resolver: String,
    /// `Task`, `Pipeline` or `StepAction`.
    pub kind: &'static str,
    pub params: BTreeMap<String, String>,
}

impl Asked {
    /// `None`: it is no reference by a resolver.
    pub fn of(reference: &Value, kind: &'static str, known: &Replacements) -> Option<Asked> {
        let resolver = reference["resolver"].as_str().filter(|name| !name.is_empty())?;
        let filled = known.fill_value(&reference["params"]);
        let params = items(&filled).iter().map(|param| (text(param, "name"), text_of(&param["value"]))).collect();
        Some(Asked { resolver: resolver.to_owned(), kind, params })
    }

    pub fn param(&self, name: &str) -> &str {
        self.params.get(name).map(String::as_str).unwrap_or_default()
    }

    /// What the bundle calls it while nothing is found for it; no document has such a name.
    pub fn title(&self) -> String {
        let params: Vec<String> = self.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} ({})", self.resolver, params.join(", "))
    }

    /// One whose params are not all known cannot be asked.
    pub fn is_known(&self) -> Result<(), String> {
        match self.params.iter().find(|(_, value)| value.contains("$(")) {
            Some((name, value)) => Err(format!("its param `{name}`, `{value}`, is not known before the run")),
            None => Ok(()),
        }
    }
}

/// Finds what a reference by a resolver means. An error is a clause about why it cannot.
pub type Resolve<'r> = &'r dyn Fn(&Asked) -> Result<Value, String>;

/// What is known of a run before anything of it runs, for the params of its resolvers.
pub fn known(run: &Value, declared: &Value) -> Replacements {
    let given = params::given(&run["spec"]["params"]);
    let own = params::resolve(declared, &given).unwrap_or_default();
    let mut known = params::replacements(&params::overlay(&given, &own));
    let (metadata, context) = (&run["metadata"], if run["kind"] == "TaskRun" { "taskRun" } else { "pipelineRun" });
    for field in ["name", "namespace", "uid"] {
        let value = text(metadata, field);
        if !value.is_empty() {
            known.text(format!("context.{context}.{field}"), value);
        }
    }
    known
}

/// The resolver `cluster`: an object by its kind, name and namespace, here one that was applied or that a file gives.
/// `home`: the namespace of a reference that names none; `usual`: that of documents that name none.
pub fn in_cluster<'d>(asked: &Asked, documents: &'d [Value], home: &str, usual: &str) -> Result<&'d Value, String> {
    let name = asked.param("name");
    if name.is_empty() {
        return Err("its param `name` is missing".to_owned());
    }
    let kind = asked.param("kind");
    if !kind.is_empty() && !kind.eq_ignore_ascii_case(asked.kind) {
        return Err(format!("its param `kind` is `{kind}`, and here stands a {}", asked.kind));
    }
    let namespace = Some(asked.param("namespace")).filter(|named| !named.is_empty()).unwrap_or(home);
    let of = |document: &Value| document["metadata"]["namespace"].as_str().unwrap_or(usual) == namespace;
    let is_it = |document: &&Value| document["kind"] == asked.kind && document["metadata"]["name"] == name;
    let found = documents.iter().filter(is_it).find(|document| of(document));
    found.ok_or_else(|| format!("there is no {} `{name}` in the namespace `{namespace}`", asked.kind))
}

/// A reference by name in the place of one by a resolver.
pub fn by_name(reference: &Value, name: &str) -> Value {
    let mut plain = json!({ "name": name });
    if let Some(kind) = reference.get("kind") {
        plain["kind"] = kind.clone();
    }
    plain
}
