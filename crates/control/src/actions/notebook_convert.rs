//! `notebook.convert`: turns an executed notebook into one HTML file, with nbconvert.

use std::path::PathBuf;
use std::process::ExitCode;

use pitcrew_exec::python::{self, Conversion};
use serde::Deserialize;
use serde_json::{Value, json};

use super::notebook::{Environment, become_command, make_parent, python_schema};
use super::{Action, Job, read, write_outputs};

pub struct NotebookConvert;

#[derive(Deserialize)]
struct With {
    notebook: PathBuf,
    output: Option<PathBuf>,
    #[serde(default)]
    hide_input: bool,
    template: Option<String>,
    #[serde(flatten)]
    environment: Environment,
}

impl Action for NotebookConvert {
    fn name(&self) -> &'static str {
        "notebook.convert"
    }

    fn schema(&self) -> Value {
        python_schema(
            &["notebook"],
            json!({
                "notebook": { "type": "string", "description": "The notebook, relative to the workspace root." },
                "output": { "type": "string", "description": "Default: beside the notebook, with `.html`." },
                "hide_input": { "type": "boolean", "description": "Leave the code out." },
                "template": { "type": "string", "description": "An nbconvert template. Default: `lab`." }
            }),
        )
    }

    fn execute(&self, job: Job) -> anyhow::Result<ExitCode> {
        let with: With = read(&job.with)?;
        let env = with.environment.ensure(python::CONVERT_REQUIREMENTS, &job)?;
        let output = with.output.unwrap_or_else(|| with.notebook.with_extension("html"));
        make_parent(&output)?;
        write_outputs(&json!({ "html": output }))?;
        let conversion =
            Conversion { notebook: with.notebook, output, hide_input: with.hide_input, template: with.template };
        become_command(conversion.command(&env, &job.scratch)?)
    }
}
