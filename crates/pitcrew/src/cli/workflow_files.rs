//! `validate` and `graph`: what can be said of workflow files, and of Tekton's, without running anything.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pitcrew_control::catalog;
use pitcrew_lang::tekton::is_tekton;
use pitcrew_lang::{Diagnostic, Severity, graph, render_all};
use serde_json::json;

use super::error::{INVALID, Invalid, invalid};
use super::load::Source;
use super::ui::Ui;
use super::{Output, format, load, tekton};

/// Check workflow files; nothing is run
#[derive(Debug, clap::Args)]
pub struct ValidateArgs {
    /// Workflow files, or files of Tekton's documents, which are one set together
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Draw a workflow's graph
#[derive(Debug, clap::Args)]
pub struct GraphArgs {
    /// The workflow file, or all files that a Pipeline of Tekton uses
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Which workflow, Pipeline or run, if there are several
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// `text` for the terminal, `mermaid` for documents, `svg` for a picture
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: GraphFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum GraphFormat {
    Text,
    Mermaid,
    Svg,
}

struct Checked {
    file: String,
    /// What is right in it, one sentence each.
    right: Vec<String>,
    /// Name and number of tasks.
    workflows: Vec<(String, usize)>,
    problems: Vec<Diagnostic>,
    /// Why there is nothing to check.
    unreadable: Option<String>,
}

impl Checked {
    fn of(path: &Path) -> Checked {
        let file = path.display().to_string();
        Checked { file, right: Vec::new(), workflows: Vec::new(), problems: Vec::new(), unreadable: None }
    }

    fn is_valid(&self) -> bool {
        self.unreadable.is_none() && self.problems.iter().all(|problem| problem.severity != Severity::Error)
    }

    fn errors(&self) -> usize {
        let errors = self.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        errors + usize::from(self.unreadable.is_some())
    }

    /// Takes the text as a file of workflows.
    fn native(&mut self, source: &str, channels: Option<&[String]>) {
        match catalog::compile_for(source, &self.file, channels) {
            Err(problems) => self.problems = problems,
            Ok(compiled) => {
                for compiled in compiled {
                    let (id, tasks) = (compiled.workflow.id.to_string(), compiled.workflow.tasks.len());
                    self.right.push(format!("`{id}` is valid, {}", format::plural(tasks as u64, "task")));
                    self.workflows.push((id, tasks));
                    self.problems.extend(compiled.warnings);
                }
            }
        }
    }
}

fn check(paths: &[PathBuf], channels: Option<&[String]>) -> anyhow::Result<Vec<Checked>> {
    let mut all = Vec::with_capacity(paths.len());
    let mut tektons = Vec::new();
    for path in paths {
        let mut checked = Checked::of(path);
        match load::text(path) {
            Err(error) if error.is::<Invalid>() => checked.unreadable = Some(error.to_string()),
            Err(error) => return Err(error),
            Ok(text) if is_tekton(&text) => tektons.push(Source { name: checked.file.clone(), text }),
            Ok(text) => checked.native(&text, channels),
        }
        all.push(checked);
    }
    let (found, problems) = if tektons.is_empty() { Default::default() } else { tekton::check(&tektons) };
    for found in found {
        if let Some(checked) = all.iter_mut().find(|checked| checked.file == found.file) {
            checked.right.push(found.sentence());
            checked.workflows.extend(found.workflow);
        }
    }
    for problem in problems {
        if let Some(checked) = all.iter_mut().find(|checked| checked.file == problem.file) {
            checked.problems.push(problem);
        }
    }
    Ok(all)
}

/// `channels` are those that `notify` may name, if the configuration could be read.
pub fn validate(args: &ValidateArgs, channels: Option<&[String]>, ui: Ui) -> anyhow::Result<ExitCode> {
    let checked = check(&args.files, channels)?;
    let errors: usize = checked.iter().map(Checked::errors).sum();
    if args.output.is_json() {
        let file = |checked: &Checked| {
            json!({
                "file": checked.file,
                "valid": checked.is_valid(),
                "workflows": checked.workflows.iter().map(|(id, tasks)| json!({"id": id, "tasks": tasks})).collect::<Vec<_>>(),
                "problems": checked.problems,
                "error": checked.unreadable,
            })
        };
        ui.json(&checked.iter().map(file).collect::<Vec<_>>())?;
    } else {
        for checked in &checked {
            if !checked.problems.is_empty() {
                ui.say(render_all(&checked.problems, ui.err.on));
            }
            if let Some(why) = &checked.unreadable {
                ui.say(format!("{} {why}\n", ui.err.red("error:")));
            }
            for right in checked.right.iter().filter(|_| checked.is_valid()) {
                ui.line(format!("{} {}: {right}", ui.out.green("✓"), checked.file))?;
            }
        }
        if errors > 0 {
            let files = checked.iter().filter(|checked| !checked.is_valid()).count() as u64;
            ui.say(format!("{} in {}", format::plural(errors as u64, "error"), format::plural(files, "file")));
        }
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::from(INVALID) })
}

pub fn graph(args: &GraphArgs, ui: Ui) -> anyhow::Result<ExitCode> {
    let name = args.workflow.as_deref();
    let sources = args.files.iter().map(|path| load::source(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let workflow = match (sources.iter().all(|source| is_tekton(&source.text)), args.files.as_slice()) {
        (true, _) => tekton::workflow(&sources, name)?,
        (false, [file]) => load::workflow(file, name, &ui)?.workflow,
        (false, _) => {
            return Err(invalid("a workflow is drawn from one file; only Tekton's documents may lie in several"));
        }
    };
    let drawing = graph::Graph::of(&workflow);
    let drawn = match args.format {
        GraphFormat::Text => graph::text::render(&drawing),
        GraphFormat::Mermaid => graph::mermaid::render(&drawing),
        GraphFormat::Svg => graph::svg::render(&drawing, &graph::svg::SvgOptions::default()),
    };
    ui.line(drawn.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
