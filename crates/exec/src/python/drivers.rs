//! The commands that do Python work in an environment: run a notebook, convert one, run tests.
//!
//! The drivers are Python files inside this program; they are written to the attempt's scratch directory, so that
//! the environment, which outlives this version of the program, holds nothing of ours.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Map, Value};

use super::Env;

/// What running a notebook needs.
pub const NOTEBOOK_REQUIREMENTS: &[&str] = &["papermill>=2.6,<3", "nbclient>=0.10,<1", "ipykernel>=6.29,<8"];
/// What converting one needs.
pub const CONVERT_REQUIREMENTS: &[&str] = &["nbconvert>=7.16,<8"];
/// What running tests needs.
pub const PYTEST_REQUIREMENTS: &[&str] = &["pytest>=8,<10"];
/// What measuring the coverage of tests needs besides.
pub const COVERAGE_REQUIREMENTS: &[&str] = &["pytest-cov>=5,<8"];

const DRIVERS: [(&str, &str); 5] = [
    ("notebook.py", include_str!("drivers/notebook.py")),
    ("notebook_input.py", include_str!("drivers/notebook_input.py")),
    ("notebook_kernel.py", include_str!("drivers/notebook_kernel.py")),
    ("notebook_progress.py", include_str!("drivers/notebook_progress.py")),
    ("convert.py", include_str!("drivers/convert.py")),
];

/// One run of a notebook. Exit codes: 0 all cells ran, 1 a cell failed, 2 the input is wrong, 124 a cell ran too
/// long, 128 + N the kernel was killed by signal N, 143 the run was told to stop.
#[derive(Debug, Clone, Default)]
pub struct NotebookRun {
    pub notebook: PathBuf,
    /// The executed notebook, written also when a cell fails.
    pub output: PathBuf,
    pub parameters: Map<String, Value>,
    /// `None`: `python3`, the environment's own.
    pub kernel: Option<String>,
    /// Where the kernel runs; `None`: the working directory.
    pub workdir: Option<PathBuf>,
    pub cell_timeout: Option<Duration>,
    /// JSON with the time of every cell; `None`: `figures.json` beside the output.
    pub figures: Option<PathBuf>,
}

impl NotebookRun {
    /// `scratch` is a private directory of the attempt.
    pub fn command(&self, env: &Env, scratch: &Path) -> io::Result<Command> {
        let mut command = driver("notebook.py", env, scratch)?;
        if !self.parameters.is_empty() {
            let file = scratch.join("parameters.json");
            fs::write(&file, serde_json::to_vec(&self.parameters)?)?;
            command.arg("--parameters").arg(file);
        }
        if let Some(kernel) = &self.kernel {
            command.arg(format!("--kernel={kernel}"));
        }
        if let Some(limit) = self.cell_timeout {
            command.arg(format!("--cell-timeout={}", limit.as_secs_f64()));
        }
        for (name, path) in [("--workdir", &self.workdir), ("--figures", &self.figures)] {
            if let Some(path) = path {
                command.arg(name).arg(operand(path));
            }
        }
        command.arg(operand(&self.notebook)).arg(operand(&self.output));
        Ok(command)
    }
}

/// An executed notebook to one HTML file that needs no network.
#[derive(Debug, Clone, Default)]
pub struct Conversion {
    pub notebook: PathBuf,
    pub output: PathBuf,
    /// Leave the code out.
    pub hide_input: bool,
    /// An nbconvert template; `None`: `lab`.
    pub template: Option<String>,
}

impl Conversion {
    /// `scratch` is a private directory of the attempt.
    pub fn command(&self, env: &Env, scratch: &Path) -> io::Result<Command> {
        let mut command = driver("convert.py", env, scratch)?;
        if self.hide_input {
            command.arg("--hide-input");
        }
        if let Some(template) = &self.template {
            command.arg(format!("--template={template}"));
        }
        command.arg(operand(&self.notebook)).arg(operand(&self.output));
        Ok(command)
    }
}

/// One run of pytest. Its exit codes are pytest's own: 0 passed, 1 failed, 2 broken off, 5 no tests found.
#[derive(Debug, Clone, Default)]
pub struct Pytest {
    /// Relative to `workdir`.
    pub paths: Vec<PathBuf>,
    pub args: Vec<String>,
    pub junit: PathBuf,
    /// Packages or directories whose coverage is measured; empty: none is.
    pub coverage: Vec<String>,
    /// Of coverage, in Cobertura's XML.
    pub coverage_xml: Option<PathBuf>,
    pub workdir: Option<PathBuf>,
}

impl Pytest {
    /// `scratch` is a private directory of the attempt.
    pub fn command(&self, env: &Env, scratch: &Path) -> io::Result<Command> {
        let mut command = python(env);
        command.args(["-m", "pytest", "-p", "no:cacheprovider"]).args(&self.args);
        // The working directory may be another one.
        command.arg("--junitxml").arg(std::path::absolute(&self.junit)?);
        for source in &self.coverage {
            command.arg(format!("--cov={source}"));
        }
        if !self.coverage.is_empty() {
            command.arg("--cov-report=term");
            if let Some(file) = &self.coverage_xml {
                let file = std::path::absolute(file)?;
                file.parent().map_or(Ok(()), fs::create_dir_all)?;
                command.arg(format!("--cov-report=xml:{}", file.display()));
            }
        }
        command.args(self.paths.iter().map(|path| operand(path)));
        command
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("COVERAGE_FILE", std::path::absolute(scratch)?.join("coverage"));
        if let Some(workdir) = &self.workdir {
            command.current_dir(workdir);
        }
        Ok(command)
    }
}

/// A path that cannot be taken for an option.
fn operand(path: &Path) -> PathBuf {
    if path.as_os_str().as_encoded_bytes().starts_with(b"-") { Path::new(".").join(path) } else { path.to_owned() }
}

fn driver(name: &str, env: &Env, scratch: &Path) -> io::Result<Command> {
    let dir = scratch.join("drivers");
    fs::create_dir_all(&dir)?;
    for (name, text) in DRIVERS {
        fs::write(dir.join(name), text)?;
    }
    let mut command = python(env);
    command.arg(dir.join(name)).arg("--scratch").arg(scratch);
    Ok(command)
}

/// The environment's interpreter, with the environment's programs first in `PATH` as if it were activated.
fn python(env: &Env) -> Command {
    let mut command = Command::new(&env.python);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", env.bin().display())).env("VIRTUAL_ENV", &env.dir);
    command.env_remove("PYTHONHOME").env("PYTHONUNBUFFERED", "1");
    command
}
