//! `pytest`: runs tests, and collects JUnit and coverage files.

use std::path::PathBuf;
use std::process::ExitCode;

use pitcrew_exec::python;
use serde::Deserialize;
use serde_json::{Value, json};

use super::notebook::{Environment, become_command, make_parent, python_schema};
use super::{Action, Job, read, write_outputs};

pub struct Pytest;

/// A text, or a list of texts.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub fn into_vec(self) -> Vec<String> {
        match self {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(list) => list,
        }
    }
}

#[derive(Deserialize)]
struct With {
    path: Option<OneOrMany>,
    #[serde(default)]
    args: Vec<String>,
    coverage: Option<OneOrMany>,
    coverage_xml: Option<PathBuf>,
    junit: Option<PathBuf>,
    workdir: Option<PathBuf>,
    #[serde(flatten)]
    environment: Environment,
}

impl Action for Pytest {
    fn name(&self) -> &'static str {
        "pytest"
    }

    fn schema(&self) -> Value {
        let texts = |description: &str| {
            json!({
                "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
                "description": description
            })
        };
        python_schema(
            &[],
            json!({
                "path": texts("Files or directories with tests, relative to `workdir`. Default: all of it."),
                "args": { "type": "array", "items": { "type": "string" }, "description": "More arguments for pytest." },
                "coverage": texts("Packages or directories whose coverage is measured."),
                "coverage_xml": { "type": "string", "description": "Where coverage goes. Default: `coverage.xml` beside `junit`." },
                "junit": { "type": "string", "description": "Where results go. Default: `results/junit.xml`." },
                "workdir": { "type": "string", "description": "Where pytest runs, relative to the workspace root." }
            }),
        )
    }

    fn execute(&self, job: Job) -> anyhow::Result<ExitCode> {
        let with: With = read(&job.with)?;
        let coverage = with.coverage.map(OneOrMany::into_vec).unwrap_or_default();
        let mut needs = python::PYTEST_REQUIREMENTS.to_vec();
        if !coverage.is_empty() {
            needs.extend(python::COVERAGE_REQUIREMENTS);
        }
        let env = with.environment.ensure(&needs, &job)?;
        let junit = with.junit.unwrap_or_else(|| "results/junit.xml".into());
        make_parent(&junit)?;
        let coverage_xml = with.coverage_xml.unwrap_or_else(|| junit.with_file_name("coverage.xml"));
        let mut outputs = json!({ "junit": junit });
        if !coverage.is_empty() {
            outputs["coverage"] = json!(coverage_xml);
        }
        write_outputs(&outputs)?;
        let run = python::Pytest {
            paths: with.path.map(OneOrMany::into_vec).unwrap_or_default().into_iter().map(PathBuf::from).collect(),
            args: with.args,
            junit,
            coverage_xml: (!coverage.is_empty()).then_some(coverage_xml),
            coverage,
            workdir: with.workdir,
        };
        become_command(run.command(&env, &job.scratch)?)
    }
}
