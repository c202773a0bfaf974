//! Reads workflow files, and refuses what is none before anything is made or started.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pitcrew_control::catalog;
use pitcrew_lang::{Compiled, render_all};
use pitcrew_store::{Store, WorkflowRow};
use serde_json::{Map, Value};

use super::error::{BadFile, invalid, refused};
use super::format;
use super::ui::Ui;

/// The most bytes that are read of a file; the language has its own, lower budgets.
const MAX_BYTES: u64 = 64 << 20;

/// A text and what it is called in messages.
pub struct Source {
    pub name: String,
    pub text: String,
}

/// The text of a file; `-` is stdin.
pub fn source(path: &Path) -> anyhow::Result<Source> {
    if path.as_os_str() != "-" {
        return Ok(Source { name: path.display().to_string(), text: text(path)? });
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(invalid(format!("stdin is too large: more than {} MiB", MAX_BYTES >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|_| invalid("stdin is no text: what is run is YAML in UTF-8"))?;
    Ok(Source { name: "stdin".to_owned(), text })
}

/// The text of a file, or why it has none.
pub fn text(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    if path.is_dir() {
        return Err(invalid(format!("`{shown}` is a directory\nhint: name a workflow file{}", example_in(path))));
    }
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => similar(path),
            _ => String::new(),
        };
        let reason = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            _ => error.to_string(),
        };
        return Err(invalid(format!("cannot read `{shown}`: {reason}{hint}")));
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(invalid(format!("`{shown}` is too large for a workflow file: more than {} MiB", MAX_BYTES >> 20)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        invalid(format!("{shown}:{line}: this is not a text file: a workflow is YAML in UTF-8"))
    })
}

/// The workflows of a file. Warnings are shown, errors returned.
pub fn workflows(path: &Path, ui: &Ui) -> anyhow::Result<Vec<Compiled>> {
    let source = text(path)?;
    let compiled = catalog::compile(&source, &path.display().to_string()).map_err(BadFile)?;
    for warnings in compiled.iter().map(|compiled| &compiled.warnings).filter(|warnings| !warnings.is_empty()) {
        ui.say(render_all(warnings, ui.err.on).trim_end());
    }
    Ok(compiled)
}

/// The one workflow that is meant: the only one of the file, or the one named.
pub fn workflow(path: &Path, name: Option<&str>, ui: &Ui) -> anyhow::Result<Compiled> {
    let mut compiled = workflows(path, ui)?;
    let names = compiled.iter().map(|c| format!("`{}`", c.workflow.id)).collect::<Vec<_>>().join(", ");
    let shown = path.display();
    match name {
        Some(name) => compiled
            .into_iter()
            .find(|compiled| compiled.workflow.id.as_str() == name)
            .ok_or_else(|| invalid(format!("`{shown}` holds no workflow `{name}`; it holds {names}"))),
        None if compiled.len() == 1 => Ok(compiled.remove(0)),
        None => {
            Err(invalid(format!("`{shown}` holds several workflows: {names}\nhint: choose one with `--workflow NAME`")))
        }
    }
}

/// Stores the definition of a workflow that is run from its file.
///
/// What a server knows under that name from its folder stays as it is: a file that is only tried out must not become
/// what is run by schedule.
pub async fn register(store: &Store, path: &Path, compiled: &Compiled, now: Timestamp) -> anyhow::Result<()> {
    let workflow = &compiled.workflow;
    let path = std::path::absolute(path)?.display().to_string();
    let known = store.workflow(&workflow.id).await?.filter(|row| row.active);
    let row = WorkflowRow {
        id: workflow.id.clone(),
        active: false,
        next_run: known.as_ref().and_then(|row| row.next_run),
        path,
        version: compiled.hash.clone(),
        description: workflow.description.clone(),
        tags: workflow.tags.clone(),
        schedule: workflow.schedule.as_ref().map(|schedule| schedule.describe()),
        is_paused: false,
    };
    store.put_workflow(&row, &compiled.source, now).await?;
    if let Some(known) = known
        && let Some(source) = store.version_source(&known.id, &known.version).await?
    {
        store.put_workflow(&known, &source, now).await?;
    }
    Ok(())
}

fn yaml_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .take(1000)
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"))
        .collect();
    files.sort();
    files
}

fn example_in(dir: &Path) -> String {
    match yaml_files(dir).first() {
        Some(file) => format!(", such as `{}`", file.display()),
        None => String::new(),
    }
}

fn similar(path: &Path) -> String {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let files = yaml_files(dir);
    let names = files.iter().filter_map(|file| file.file_name()?.to_str());
    let wanted = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match pitcrew_lang::diagnostic::closest(wanted, names) {
        Some(found) => format!("\nhint: did you mean `{}`?", path.with_file_name(found).display()),
        None => String::new(),
    }
}

/// The entries of a JSON or YAML file that maps names to something; `what` names it in messages.
pub fn object(path: &Path, what: &str) -> anyhow::Result<Map<String, Value>> {
    let text = text(path)?;
    let name = path.display().to_string();
    let root = pitcrew_lang::yaml::read(&text, &name).map_err(BadFile)?;
    let value = match root {
        None => Value::Null,
        Some(root) => {
            root.to_json().map_err(|(at, why)| invalid(format!("{name}:{}:{}: {why}", at.line, at.column)))?
        }
    };
    match value {
        Value::Object(entries) => Ok(entries),
        _ => Err(invalid(format!("`{name}` holds no {what}: expected a mapping of names to values"))),
    }
}

/// Writes a document to a file that only its user can read, or to stdout; `what` is the word for one entry.
pub fn export(ui: &Ui, document: &Map<String, Value>, file: Option<&Path>, what: &str) -> anyhow::Result<()> {
    let Some(file) = file else { return ui.json(document) };
    let text = serde_json::to_string_pretty(document)? + "\n";
    let mut options = std::fs::OpenOptions::new();
    let written = options.write(true).create(true).truncate(true).mode(0o600).open(file);
    written
        .and_then(|mut open| open.write_all(text.as_bytes()))
        .map_err(|error| refused(format!("cannot write `{}`: {error}", file.display())))?;
    ui.say(format!("wrote {} to `{}`", format::plural(document.len() as u64, what), file.display()));
    Ok(())
}
