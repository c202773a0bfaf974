//! From what a backend found to what the engine believes: declared outputs are read, parsed and required here.

use std::collections::BTreeMap;
use std::path::Path;

use pitcrew_core::engine::Report;
use pitcrew_core::ir::{OutputDecl, OutputParse, OutputSource, Task, Work};
use pitcrew_core::state::Exit;
use pitcrew_exec::{Ended, Place};
use serde_json::Value;

/// The most bytes of one output.
const MAX: u64 = 1 << 20;

/// What the engine is told about an attempt that ended. `root` is where files named by outputs lie, if they lie here;
/// `place` is the other machine that it ran on; `render` renders names of files.
pub(super) fn report(
    task: &Task,
    ended: Ended,
    root: Option<&Path>,
    place: Option<&Place>,
    render: &dyn Fn(&str) -> Result<String, String>,
) -> Report {
    let mut outputs: BTreeMap<String, Value> = ended.outputs;
    let mut problems = ended.output_problems;
    let files = match root {
        Some(root) => Files::Here(root),
        None => Files::Brought(&ended.files),
    };
    if ended.exit.is_success() {
        for decl in &task.outputs {
            match declared(decl, &mut outputs, ended.stdout.as_deref(), files, render) {
                Ok(Some(value)) => drop(outputs.insert(decl.name.clone(), value)),
                Ok(None) if decl.required => problems.push(format!("the output `{}` is missing", decl.name)),
                Ok(None) => {}
                Err(problem) => problems.push(format!("the output `{}`: {problem}", decl.name)),
            }
        }
    }
    let success = ended.exit.is_success();
    let steps = match &task.work {
        Work::Steps(steps) => steps.len(),
        Work::Noop | Work::Action { .. } | Work::Pod { .. } => 1,
    };
    Report {
        error: (success && !problems.is_empty()).then(|| problems.join("\n")),
        message: if success {
            String::new()
        } else {
            message(&ended.exit, ended.failed_step.as_deref().filter(|_| steps > 1), place, &ended.tail)
        },
        exit: ended.exit,
        started_at: ended.started_at,
        at: ended.at,
        held: false,
        outputs: if success || task.keeps_outputs() { outputs } else { BTreeMap::new() },
    }
}

/// The last lines of a failure, with the step if there are several, and the host if it is another.
fn message(exit: &Exit, step: Option<&str>, place: Option<&Place>, tail: &str) -> String {
    let mut what = match step {
        Some(step) => format!("step `{step}`: {exit}"),
        None => exit.to_string(),
    };
    match place {
        Some(Place::Ssh(place)) if !what.contains(&place.host) => what.push_str(&format!(" (on `{place}`)")),
        Some(Place::Worker(place)) => what.push_str(&format!(" (on `{}`)", place.name)),
        Some(Place::Ecs(place)) => what.push_str(&format!(" (in the ECS cluster `{}`)", place.cluster)),
        Some(Place::Ssh(_) | Place::Kubernetes(_)) | None => {}
    }
    if tail.is_empty() { what } else { format!("{}\n{what}", tail.trim_end()) }
}

/// Where the files of an attempt are.
#[derive(Clone, Copy)]
enum Files<'a> {
    Here(&'a Path),
    /// With its end.
    Brought(&'a BTreeMap<String, String>),
}

fn declared(
    decl: &OutputDecl,
    named: &mut BTreeMap<String, Value>,
    stdout: Option<&str>,
    files: Files<'_>,
    render: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Option<Value>, String> {
    let text = match &decl.from {
        OutputSource::Named => match named.remove(&decl.name) {
            Some(Value::String(text)) => text,
            // It came as JSON and has its type.
            other => return Ok(other),
        },
        OutputSource::Stdout => match stdout {
            Some(text) => text.to_owned(),
            None => return Ok(None),
        },
        OutputSource::File(path) => {
            let path = render(path)?;
            let root = match files {
                Files::Here(root) => root,
                Files::Brought(files) => return files.get(&path).map(|text| parse(decl.parse, text)).transpose(),
            };
            let path = root.join(path);
            match std::fs::metadata(&path) {
                Ok(meta) if meta.len() > MAX => {
                    return Err(format!("`{}` has more than {MAX} bytes; make it an artifact", path.display()));
                }
                Ok(_) => std::fs::read_to_string(&path)
                    .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(format!("cannot read `{}`: {error}", path.display())),
            }
        }
    };
    parse(decl.parse, &text).map(Some)
}

fn parse(how: OutputParse, text: &str) -> Result<Value, String> {
    match how {
        OutputParse::Text => {
            let text = text.strip_suffix('\n').unwrap_or(text);
            Ok(Value::String(text.strip_suffix('\r').unwrap_or(text).to_owned()))
        }
        OutputParse::Json => serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}")),
        OutputParse::Yaml => pitcrew_lang::yaml::to_json(text).map_err(|error| format!("it is not YAML: {error}")),
        OutputParse::Lines => {
            Ok(text.lines().filter(|line| !line.trim().is_empty()).map(|line| Value::from(line.trim_end())).collect())
        }
    }
}
