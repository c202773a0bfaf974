//! `validate` and `graph`: what can be said of workflow files without running anything.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pitcrew_control::catalog;
use pitcrew_lang::{Diagnostic, Severity, graph, render_all};
use serde_json::json;

use super::error::{INVALID, Invalid};
use super::ui::Ui;
use super::{Output, format, load};

/// Check workflow files; nothing is run
#[derive(Debug, clap::Args)]
pub struct ValidateArgs {
    /// Workflow files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Draw a workflow's graph
#[derive(Debug, clap::Args)]
pub struct GraphArgs {
    /// The workflow file
    file: PathBuf,
    /// Which workflow, if the file holds several
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
    /// Name and number of tasks.
    workflows: Vec<(String, usize)>,
    problems: Vec<Diagnostic>,
    /// Why there is nothing to check.
    unreadable: Option<String>,
}

impl Checked {
    fn is_valid(&self) -> bool {
        self.unreadable.is_none() && self.problems.iter().all(|problem| problem.severity != Severity::Error)
    }

    fn errors(&self) -> usize {
        let errors = self.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        errors + usize::from(self.unreadable.is_some())
    }
}

fn check(path: &Path, channels: Option<&[String]>) -> anyhow::Result<Checked> {
    let file = path.display().to_string();
    let mut checked = Checked { file, workflows: Vec::new(), problems: Vec::new(), unreadable: None };
    match load::text(path) {
        Err(error) if error.is::<Invalid>() => checked.unreadable = Some(error.to_string()),
        Err(error) => return Err(error),
        Ok(source) => match catalog::compile_for(&source, &checked.file, channels) {
            Err(problems) => checked.problems = problems,
            Ok(compiled) => {
                for compiled in compiled {
                    checked.workflows.push((compiled.workflow.id.to_string(), compiled.workflow.tasks.len()));
                    checked.problems.extend(compiled.warnings);
                }
            }
        },
    }
    Ok(checked)
}

/// `channels` are those that `notify` may name, if the configuration could be read.
pub fn validate(args: &ValidateArgs, channels: Option<&[String]>, ui: Ui) -> anyhow::Result<ExitCode> {
    let checked = args.files.iter().map(|file| check(file, channels)).collect::<anyhow::Result<Vec<_>>>()?;
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
            for (id, tasks) in checked.workflows.iter().filter(|_| checked.is_valid()) {
                let line = format!("{}: `{id}` is valid, {}", checked.file, format::plural(*tasks as u64, "task"));
                ui.line(format!("{} {line}", ui.out.green("✓")))?;
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
    let compiled = load::workflow(&args.file, args.workflow.as_deref(), &ui)?;
    let drawing = graph::Graph::of(&compiled.workflow);
    let drawn = match args.format {
        GraphFormat::Text => graph::text::render(&drawing),
        GraphFormat::Mermaid => graph::mermaid::render(&drawing),
        GraphFormat::Svg => graph::svg::render(&drawing, &graph::svg::SvgOptions::default()),
    };
    ui.line(drawn.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
