//! Pitcrew's own language: YAML with templates, compiled to the one [`Workflow`] that the engine knows.
//!
//! [`parse`] checks everything that can be checked before a run: names, types, templates, params, circles. It
//! reports all problems of a file at once, each with its place and what was probably meant; nothing that is written
//! is ever ignored. [`template`] renders what depends on a run, [`params`] checks what a run is given, and [`graph`]
//! draws. Nothing here does IO.

pub mod cel;
mod decode;
pub mod diagnostic;
pub mod ecs;
pub mod event;
pub mod graph;
pub mod params;
pub mod place;
pub mod quantity;
mod resolve;
pub mod schema;
mod schema_check;
pub mod tekton;
pub mod template;
pub mod triggers;
pub mod yaml;

use pitcrew_core::ir::{BackendKind, Workflow};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use diagnostic::{Diagnostic, Severity, render_all};
pub use params::{ParamError, from_cli, from_text, resolve_params};
pub use quantity::{parse_cpu, parse_duration, parse_gpus, parse_memory};
pub use template::{Evaluator, Rendering, Variables};

/// What the caller knows and the language must not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// The actions that `uses:` may name.
    pub actions: &'a [ActionInfo],
    /// The channels that `notify` may name; others are warned of. `None`: not known here.
    pub channels: Option<&'a [String]>,
    /// The backends that a task may run on. `None`: all that the language knows.
    pub backends: Option<&'a [BackendKind]>,
}

/// A built-in action, as the language sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionInfo {
    pub name: String,
    /// A JSON Schema for `with`.
    pub with_schema: Value,
    pub on_hosts: OnHosts,
    /// A worker can run it: it is a process that needs nothing that only the server has.
    pub on_workers: bool,
}

/// Whether something runs on another machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnHosts {
    /// It runs on the server's, whatever `defaults` say.
    #[default]
    Never,
    /// Where the task says.
    Possibly,
    /// It needs one to be named.
    Always,
}

/// A workflow that is right, with where it came from.
#[derive(Debug, Clone)]
pub struct Compiled {
    pub workflow: Workflow,
    /// SHA-256 of `source`, in hexadecimal: names this version of the workflow.
    pub hash: String,
    /// The document's own text; compiling it again gives the same workflow.
    pub source: String,
    pub warnings: Vec<Diagnostic>,
}

/// Compiles all workflows of one file (one per YAML document).
///
/// `file` is only a name for messages. The error holds every problem found, by place; it is never empty.
pub fn parse(source: &str, file: &str, options: &Options<'_>) -> Result<Vec<Compiled>, Vec<Diagnostic>> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let mut reporter = diagnostic::Reporter::new(file, source);
    let documents = yaml::load::load(source, &mut reporter);
    if documents.is_empty() && reporter.errors() == 0 {
        let hint = "a workflow begins with `workflow: name` and has `tasks:`";
        reporter.error_hint(diagnostic::Place { line: 1, column: 1, length: 1 }, "the file holds no workflow", hint);
    }
    let mut compiled: Vec<(Workflow, &str)> = Vec::new();
    for document in &documents {
        let Some(decoded) = decode::document(&document.root, options, &mut reporter) else { continue };
        let name_at = decoded.name_at;
        if let Some(workflow) = resolve::resolve(decoded, &mut reporter) {
            if compiled.iter().any(|(other, _)| other.id == workflow.id) {
                reporter.error(name_at, format!("the workflow `{}` is there twice in this file", workflow.id));
            }
            compiled.push((workflow, document.text));
        }
    }
    let failed = reporter.errors() > 0;
    let found = reporter.finish();
    if failed {
        return Err(found);
    }
    Ok(compiled
        .into_iter()
        .enumerate()
        .map(|(number, (workflow, text))| Compiled {
            workflow,
            hash: hash(text),
            source: text.to_owned(),
            warnings: if number == 0 { found.clone() } else { Vec::new() },
        })
        .collect())
}

/// Names a version of a source text.
pub fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
