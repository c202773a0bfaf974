//! Building an environment where it will stay.
//!
//! Invariant: the caller holds the exclusive lock, and the marker is written last, after everything else is on the
//! disk; whatever a killed builder left is removed first.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use serde_json::json;

use super::requirements::Requirements;
use super::{Interpreter, Place, PythonError, io_error};
use crate::git::without_credentials;
use crate::{program, whole};

/// An installer that says nothing for so long gets a line, so that nobody believes it hangs.
const SILENCE: Duration = Duration::from_secs(15);
const TAIL_LINES: usize = 15;

pub(super) fn build(
    place: &Place,
    interpreter: &Interpreter,
    requirements: &Requirements,
    path: &str,
    progress: &mut dyn FnMut(&str),
) -> Result<(), PythonError> {
    let dir = &place.dir;
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(io_error(format!("cannot remove the unfinished `{}`", dir.display())))?;
    }
    let uv = program::find("uv", path, Path::new("/"));
    let names: Vec<&str> = requirements.packages().collect();
    progress(&format!(
        "making a Python {} environment by {}: {}",
        interpreter.version,
        if uv.is_some() { "uv" } else { "pip" },
        if names.is_empty() { "no packages".to_owned() } else { names.join(", ") },
    ));
    make_venv(dir, interpreter, uv.as_deref(), progress)?;
    if !requirements.is_empty() {
        install(dir, requirements, uv.as_deref(), progress)?;
    }
    let installed = installed(dir);
    let marker = json!({
        "python": interpreter, "requirements": requirements.text(), "installed": installed,
    });
    progress(&format!("the environment is ready: {} packages", installed.len()));
    let what = format!("cannot write `{}`", place.marker().display());
    whole::write(&place.marker(), format!("{marker:#}\n").as_bytes()).map_err(io_error(what))
}

fn make_venv(
    dir: &Path,
    interpreter: &Interpreter,
    uv: Option<&Path>,
    progress: &mut dyn FnMut(&str),
) -> Result<(), PythonError> {
    let mut command = match uv {
        Some(uv) => {
            let mut command = clean(Command::new(uv));
            command.args(["venv", "--quiet", "--no-project", "--python"]).arg(&interpreter.executable);
            command
        }
        None => {
            let mut command = clean(Command::new(&interpreter.executable));
            command.args(["-m", "venv"]);
            command
        }
    };
    command.arg(dir);
    let (status, tail) = run(&mut command, progress, |_| false)?;
    if status.success() {
        return Ok(());
    }
    let text = tail.join("\n");
    if ["ensurepip", "No module named venv", "No module named 'venv'"].iter().any(|sign| text.contains(sign)) {
        let name = interpreter.executable.display().to_string();
        return Err(PythonError::NoVenv { interpreter: name, minor: interpreter.minor() });
    }
    Err(PythonError::Install { what: "making the Python environment".into(), hint: hint(&text), tail: text })
}

fn install(
    dir: &Path,
    requirements: &Requirements,
    uv: Option<&Path>,
    progress: &mut dyn FnMut(&str),
) -> Result<(), PythonError> {
    let python = dir.join("bin/python");
    let mut command = match uv {
        Some(uv) => {
            let mut command = clean(Command::new(uv));
            command.args(["pip", "install", "--no-progress", "--python"]).arg(&python);
            command
        }
        None => {
            let mut command = clean(Command::new(&python));
            // Compiling everything takes longer than installing it; Python compiles what is imported, once.
            command.args(["-m", "pip", "install", "--no-compile", "--no-input", "--progress-bar=off"]);
            command.arg("--disable-pip-version-check");
            command
        }
    };
    let write = |name: &str, text: String| {
        let file = dir.join(name);
        fs::write(&file, text).map_err(io_error(format!("cannot write `{}`", file.display()))).map(|()| file)
    };
    command.arg("-r").arg(write("requirements.txt", requirements.text())?);
    if let Some(constraints) = requirements.constraints() {
        command.arg("-c").arg(write("constraints.txt", constraints)?);
    }
    let (status, tail) = run(&mut command, progress, is_progress)?;
    if status.success() {
        return Ok(());
    }
    let text = tail.join("\n");
    Err(PythonError::Install { what: "installing the Python requirements".into(), hint: hint(&text), tail: text })
}

/// Variables that would lead an installer elsewhere than into the environment.
fn clean(mut command: Command) -> Command {
    for name in ["PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "PIP_TARGET", "PIP_PREFIX", "PIP_USER"] {
        command.env_remove(name);
    }
    command.env_remove("PIP_REQUIRE_VIRTUALENV").env("PYTHONUNBUFFERED", "1").env("NO_COLOR", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Of what installers print, the lines that tell how far they are.
fn is_progress(line: &str) -> bool {
    const PIP: [&str; 7] =
        ["Collecting ", "Downloading ", "Building ", "Installing ", "Successfully ", "WARNING: Retrying", "ERROR"];
    const UV: [&str; 6] = ["Resolved ", "Prepared ", "Installed ", "Built ", "Building ", "Downloading "];
    let line = line.trim_start();
    PIP.iter().chain(&UV).any(|start| line.starts_with(start))
}

/// Runs an installer; returns how it ended and its last lines.
fn run(
    command: &mut Command,
    progress: &mut dyn FnMut(&str),
    shown: fn(&str) -> bool,
) -> Result<(ExitStatus, Vec<String>), PythonError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let what = || format!("cannot run `{name}`");
    let mut child = command.spawn().map_err(io_error(what()))?;
    let (sender, lines) = mpsc::channel();
    let readers = [
        child.stdout.take().map(|stream| read_lines(stream, sender.clone())),
        child.stderr.take().map(|stream| read_lines(stream, sender.clone())),
    ];
    drop(sender);
    let mut tail = VecDeque::new();
    let mut silent = 0;
    loop {
        match lines.recv_timeout(SILENCE) {
            Ok(line) => {
                silent = 0;
                let line = without_credentials(&line).into_owned();
                if shown(&line) {
                    // pip adds the path of our own file to every package.
                    progress(line.split(" (from -r").next().unwrap_or(&line).trim());
                }
                if tail.len() == TAIL_LINES {
                    tail.pop_front();
                }
                tail.push_back(line);
            }
            Err(RecvTimeoutError::Timeout) => {
                silent += SILENCE.as_secs();
                progress(&format!("still at work, silent for {silent} s"));
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    for reader in readers.into_iter().flatten() {
        let _ = reader.join();
    }
    let status = child.wait().map_err(io_error(what()))?;
    Ok((status, tail.into_iter().filter(|line: &String| !line.trim().is_empty()).collect()))
}

fn read_lines(stream: impl Read + Send + 'static, lines: Sender<String>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            if lines.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    })
}

/// What to do about a failure that an installer tells in its own words.
fn hint(text: &str) -> String {
    const NETWORK: [&str; 9] = [
        "Temporary failure in name resolution",
        "Name or service not known",
        "Connection refused",
        "Network is unreachable",
        "Failed to establish a new connection",
        "dns error",
        "error sending request",
        "Read timed out",
        "Connection reset",
    ];
    let found = |signs: &[&str]| signs.iter().any(|sign| text.contains(sign));
    if found(&NETWORK) {
        ": the package index cannot be reached; check the network, or name another index \
         (`PIP_INDEX_URL` for pip, `UV_DEFAULT_INDEX` for uv)"
            .into()
    } else if found(&["No space left on device"]) {
        ": the disk is full".into()
    } else {
        String::new()
    }
}

/// What is installed, as `name==version`, from the names of the packages' own directories.
fn installed(dir: &Path) -> Vec<String> {
    let subdirectories = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<String> = subdirectories(&dir.join("lib"))
        .flat_map(|python| subdirectories(&python.join("site-packages")).collect::<Vec<_>>())
        .filter_map(|path| {
            let (name, version) = path.file_name()?.to_str()?.strip_suffix(".dist-info")?.rsplit_once('-')?;
            Some(format!("{name}=={version}"))
        })
        .collect();
    found.sort();
    found
}
