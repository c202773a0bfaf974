//! Finding a Python interpreter, and knowing it: its real path, version and platform.
//!
//! Asking an interpreter costs tens of milliseconds, so the answer is kept, under a name made of everything that
//! the answer depends on. Invariant: a kept answer is used only while its file and its answer's file are unchanged.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{PythonError, hex, io_error};
use crate::{program, whole};

/// A Python interpreter that is installed here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreter {
    /// Not a link of a version manager, nor of a virtual environment, but the program itself.
    pub executable: PathBuf,
    /// As in `3.12.4`, with what marks a pre-release.
    pub version: String,
    /// As in `linux-x86_64`.
    pub platform: String,
}

impl Interpreter {
    pub(super) fn identity(&self) -> [&str; 3] {
        [self.executable.to_str().unwrap_or_default(), &self.version, &self.platform]
    }

    /// As in `3.12`.
    pub fn minor(&self) -> String {
        self.version.split('.').take(2).collect::<Vec<_>>().join(".")
    }
}

const PROBE: &str = "import json,sys,sysconfig
print(json.dumps({'executable': getattr(sys, '_base_executable', None) or sys.executable,
 'version': sys.version.split()[0], 'platform': sysconfig.get_platform()}))";

/// The interpreter that was asked for, or the first in `path`.
pub(super) fn find(asked: Option<&str>, path: &str, cache: &Path) -> Result<Interpreter, PythonError> {
    let is_version = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let (names, version) = match asked {
        Some(text) if text.contains('/') => (vec![text.to_owned()], None),
        Some(text) if is_version(text) => {
            let minor = text.split('.').take(2).collect::<Vec<_>>().join(".");
            (vec![format!("python{minor}"), "python3".into(), "python".into()], Some(text))
        }
        Some(text) => (vec![text.to_owned()], None),
        None => (vec!["python3".into(), "python".into()], None),
    };
    let mut others = Vec::new();
    for file in candidates(&names, path) {
        // A link of a version manager may stand for nothing: then the next one is tried.
        let Some(found) = identify(&file, cache)? else { continue };
        if fits(&found.version, version) {
            return Ok(found);
        }
        others.push(found.version);
    }
    others.dedup();
    let asked = match (asked, version) {
        (Some(_), Some(version)) => format!("version `{version}`"),
        (Some(name), None) => format!("`{name}`"),
        (None, _) => "`python3`".into(),
    };
    let found = if others.is_empty() { String::new() } else { format!(" (there is {})", others.join(", ")) };
    Err(PythonError::NoInterpreter { asked, found })
}

fn candidates(names: &[String], path: &str) -> Vec<PathBuf> {
    let here = Path::new(".");
    let mut files: Vec<PathBuf> = Vec::new();
    for name in names {
        if name.contains('/') {
            files.push(name.into());
            continue;
        }
        files.extend(path.split(':').filter_map(|dir| program::find(name, dir, here)));
    }
    files.retain(|file| program::is_executable(file));
    files
}

/// `3` fits 3.12.4, and so does `3.12`; `3.1` does not.
fn fits(version: &str, asked: Option<&str>) -> bool {
    asked.is_none_or(|asked| version == asked || version.strip_prefix(asked).is_some_and(|rest| rest.starts_with('.')))
}

fn identify(file: &Path, cache: &Path) -> Result<Option<Interpreter>, PythonError> {
    let dir = cache.join("interpreters");
    let kept = dir.join(format!("{}.json", fingerprint(file)));
    if let Some(known) = fs::read(&kept).ok().and_then(|text| serde_json::from_slice::<Interpreter>(&text).ok())
        && known.executable.exists()
    {
        return Ok(Some(known));
    }
    let Some(found) = ask(file) else { return Ok(None) };
    let what = || format!("cannot write `{}`", kept.display());
    fs::create_dir_all(&dir).map_err(io_error(what()))?;
    let text = serde_json::to_vec(&found).map_err(|e| io_error(what())(e.into()))?;
    whole::write(&kept, &text).map_err(io_error(what()))?;
    Ok(Some(found))
}

fn ask(file: &Path) -> Option<Interpreter> {
    let answer = Command::new(file)
        .args(["-I", "-S", "-c", PROBE])
        .env_remove("PYTHONHOME")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    serde_json::from_slice(&answer.stdout).ok()
}

/// Everything that the answer of this file depends on. A program answers by itself. A script is a version
/// manager's: what it starts is decided by variables, by files in the working directory and above, and by a
/// file of the manager's own.
fn fingerprint(file: &Path) -> String {
    let mut facts = vec![file.display().to_string()];
    let state =
        |file: &Path| fs::metadata(file).map(|m| format!("{}.{}.{}.{}", m.mtime(), m.mtime_nsec(), m.size(), m.ino()));
    facts.push(state(file).unwrap_or_default());
    if is_script(file) {
        let variables = ["PYENV_VERSION", "PYENV_ROOT", "ASDF_PYTHON_VERSION", "MISE_PYTHON_VERSION", "CONDA_PREFIX"];
        facts.extend(variables.map(|name| std::env::var(name).unwrap_or_default()));
        let here = std::env::current_dir().unwrap_or_default();
        let above =
            here.ancestors().flat_map(|dir| [".python-version", ".tool-versions", "mise.toml"].map(|n| dir.join(n)));
        let manager = file.parent().and_then(Path::parent).map(|root| root.join("version"));
        for file in above.chain(manager) {
            facts.extend(fs::read_to_string(file).ok());
        }
    }
    hex(&Sha256::digest(facts.join("\n"))[..12])
}

fn is_script(file: &Path) -> bool {
    use std::io::Read;
    let mut start = [0; 2];
    fs::File::open(file).and_then(|mut f| f.read_exact(&mut start)).is_ok_and(|()| start == *b"#!")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_matched_by_whole_parts() {
        assert!(fits("3.12.4", Some("3.12")) && fits("3.12.4", Some("3")) && fits("3.12.4", Some("3.12.4")));
        assert!(!fits("3.12.4", Some("3.1")) && !fits("3.12.4", Some("3.12.40")));
    }

    #[test]
    fn a_missing_interpreter_says_what_was_asked_and_what_to_install() {
        let cache = tempfile::tempdir().unwrap();
        let error = find(Some("3.99"), "/nonexistent", cache.path()).unwrap_err().to_string();
        assert_eq!(
            error,
            "no Python interpreter for version `3.99` is in `PATH`; install Python 3.9 or newer \
             (Debian and Ubuntu: `apt install python3 python3-venv`)"
        );
    }
}
