//! Requirements as declared, brought to one form: the same set of packages gives the same text.
//!
//! Invariant: everything that decides what gets installed is in [`Requirements::identity`], except for what the
//! package index offers on the day. What cannot be told by text (a directory's content) is refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{EnvRequest, PythonError, hex};

/// A set of requirements, with the files they refer to read in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Requirements {
    packages: BTreeSet<String>,
    constraints: BTreeSet<String>,
    /// Lines for the installer itself, in their order.
    options: Vec<String>,
    /// Of local archives: path and SHA-256.
    archives: BTreeSet<(PathBuf, String)>,
}

impl Requirements {
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    /// The text of a requirements file.
    pub fn text(&self) -> String {
        self.options.iter().chain(&self.packages).map(|line| format!("{line}\n")).collect()
    }

    /// The text of a file of constraints, if there are any.
    pub fn constraints(&self) -> Option<String> {
        (!self.constraints.is_empty()).then(|| self.constraints.iter().map(|line| format!("{line}\n")).collect())
    }

    pub fn packages(&self) -> impl Iterator<Item = &str> {
        self.packages.iter().map(String::as_str)
    }

    /// Packages and constraints, as they are normalised.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.packages.iter().chain(&self.constraints).map(String::as_str)
    }

    /// What tells this set from every other.
    pub fn identity(&self) -> Vec<String> {
        let mut parts = vec!["1".to_owned(), self.text(), self.constraints().unwrap_or_default()];
        parts.extend(self.archives.iter().map(|(path, sum)| format!("{} {sum}", path.display())));
        parts
    }
}

/// The name that a normalised line begins with; of an archive's path, nothing.
pub(super) fn name(line: &str) -> &str {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(line.len());
    &line[..end]
}

pub(super) fn collect(request: &EnvRequest) -> Result<Requirements, PythonError> {
    let mut collector = Collector::default();
    for entry in &request.requirements {
        collector.add_text(entry, Path::new("."), "requirements", Role::Packages)?;
    }
    for file in &request.requirements_files {
        collector.add_file(file, Role::Packages)?;
    }
    Ok(collector.found)
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Packages,
    Constraints,
}

#[derive(Default)]
struct Collector {
    found: Requirements,
    seen: Vec<PathBuf>,
}

impl Collector {
    fn add_file(&mut self, file: &Path, role: Role) -> Result<(), PythonError> {
        let problem = |e: std::io::Error| {
            PythonError::Requirement(format!("cannot read the requirements file `{}`: {e}", file.display()))
        };
        let real = file.canonicalize().map_err(problem)?;
        if self.seen.contains(&real) {
            return Ok(());
        }
        let text = fs::read_to_string(&real).map_err(problem)?;
        let dir = real.parent().unwrap_or(Path::new("/")).to_owned();
        self.seen.push(real);
        self.add_text(&text, &dir, &file.display().to_string(), role)
    }

    fn add_text(&mut self, text: &str, dir: &Path, from: &str, role: Role) -> Result<(), PythonError> {
        for (number, line) in logical_lines(text) {
            self.add_line(&line, dir, role)
                .map_err(|message| PythonError::Requirement(format!("{from}:{number}: {message}")))?;
        }
        Ok(())
    }

    fn add_line(&mut self, line: &str, dir: &Path, role: Role) -> Result<(), String> {
        let nested = |e: PythonError| e.to_string();
        if let Some(file) = option_value(line, "-r", "--requirement") {
            return self.add_file(&dir.join(file), role).map_err(nested);
        }
        if let Some(file) = option_value(line, "-c", "--constraint") {
            return self.add_file(&dir.join(file), Role::Constraints).map_err(nested);
        }
        if option_value(line, "-e", "--editable").is_some() {
            return Err(changing(line));
        }
        if let Some(value) = option_value(line, "-f", "--find-links") {
            let value = if value.contains("://") { value.to_owned() } else { absolute(dir, value) };
            self.found.options.push(format!("--find-links {value}"));
            return Ok(());
        }
        if line.starts_with('-') {
            let option = line.split_whitespace().collect::<Vec<_>>().join(" ");
            if !self.found.options.contains(&option) {
                self.found.options.push(option);
            }
            return Ok(());
        }
        let line = match local_path(line, dir) {
            Some(path) if path.is_dir() => return Err(changing(line)),
            Some(path) => {
                let content = fs::read(&path).map_err(|e| format!("cannot read `{}`: {e}", path.display()))?;
                let text = path.display().to_string();
                self.found.archives.insert((path, hex(&Sha256::digest(content))));
                text
            }
            None => normalise(line)?,
        };
        match role {
            Role::Packages => self.found.packages.insert(line),
            Role::Constraints => self.found.constraints.insert(line),
        };
        Ok(())
    }
}

fn changing(line: &str) -> String {
    format!(
        "`{line}` is a directory whose content may change, and an environment is shared by its name; \
         list what it needs here, and reach its code by the working directory or `PYTHONPATH`"
    )
}

/// Lines without comments, with continued ones joined; each with the number of its first line.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut pending: Option<(usize, String)> = None;
    for (index, raw) in text.lines().enumerate() {
        let (number, mut line) = pending.take().unwrap_or((index + 1, String::new()));
        let continued = raw.strip_suffix('\\');
        line.push_str(without_comment(continued.unwrap_or(raw)));
        match continued {
            Some(_) => pending = Some((number, line + " ")),
            None => lines.push((number, line)),
        }
    }
    lines.extend(pending);
    lines.into_iter().map(|(n, line)| (n, line.trim().to_owned())).filter(|(_, line)| !line.is_empty()).collect()
}

/// A `#` begins a comment at the start or after a blank; elsewhere it belongs to a URL.
fn without_comment(line: &str) -> &str {
    let hash =
        line.char_indices().find(|&(i, c)| c == '#' && line[..i].chars().next_back().is_none_or(char::is_whitespace));
    hash.map_or(line, |(i, _)| &line[..i])
}

fn option_value<'a>(line: &'a str, short: &str, long: &str) -> Option<&'a str> {
    let rest = match line.strip_prefix(long) {
        Some(rest) if rest.starts_with(['=', ' ', '\t']) => &rest[1..],
        _ => line.strip_prefix(short).filter(|_| !line.starts_with("--"))?,
    };
    Some(rest.trim())
}

fn absolute(dir: &Path, path: &str) -> String {
    std::path::absolute(dir.join(path)).unwrap_or_else(|_| dir.join(path)).display().to_string()
}

/// The file or directory that a requirement means, when it means one.
fn local_path(line: &str, dir: &Path) -> Option<PathBuf> {
    let target = line.split_once(" @ ").map_or(line, |(_, target)| target.trim());
    let target = target.split_once(';').map_or(target, |(path, _)| path.trim());
    let path = match target.strip_prefix("file:") {
        Some(path) => path.strip_prefix("//").unwrap_or(path),
        None if target.contains("://") => return None,
        None => target,
    };
    let looks_local =
        path != target || path.starts_with(['.', '/']) || path.ends_with(".whl") || path.ends_with(".tar.gz");
    // Extras (`./x.whl[all]`) belong to the installer, not to the path.
    let path = path.split_once('[').map_or(path, |(path, _)| path);
    looks_local.then(|| PathBuf::from(absolute(dir, path)))
}

/// `Num_Py >= 2 , < 3` and `num-py>=2,<3` are the same requirement.
fn normalise(line: &str) -> Result<String, String> {
    let (line, hashes) = line.split_once(" --").map_or((line, None), |(line, rest)| (line, Some(rest)));
    let name_end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))).unwrap_or(line.len());
    let (name, rest) = line.split_at(name_end);
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(format!("`{line}` does not begin with the name of a package"));
    }
    let name = name.to_ascii_lowercase().split(['-', '_', '.']).filter(|s| !s.is_empty()).collect::<Vec<_>>().join("-");
    let (version, marker) = rest.split_once(';').map_or((rest, None), |(version, marker)| (version, Some(marker)));
    let mut text = match version.trim().strip_prefix('@') {
        Some(url) => format!("{name} @ {}", url.trim()),
        None => format!("{name}{}", version.split_whitespace().collect::<String>()),
    };
    if let Some(marker) = marker {
        text.push_str(" ; ");
        text.push_str(&marker.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    if let Some(hashes) = hashes {
        text.push_str(" --");
        text.push_str(&hashes.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> Result<Requirements, PythonError> {
        collect(&EnvRequest { requirements: lines.iter().map(|l| (*l).to_owned()).collect(), ..Default::default() })
    }

    #[test]
    fn the_same_set_has_the_same_identity_however_it_is_written() {
        let one = of(&["Num_Py >= 2 , < 3", "pandas", "zope.interface ; python_version  > '3'"]).unwrap();
        let other = of(&["zope-interface; python_version > '3'\n# a comment\npandas  # why", "num-py>=2,<3"]).unwrap();
        assert_eq!(one.identity(), other.identity());
        assert_ne!(one.identity(), of(&["num-py>=2,<4", "pandas"]).unwrap().identity());
        assert_eq!(one.text(), "num-py>=2,<3\npandas\nzope-interface ; python_version > '3'\n");
    }

    #[test]
    fn files_are_read_in_with_what_they_refer_to() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("base.txt", "numpy\n-r main.txt\n");
        write("limits.txt", "numpy<3\n");
        write(
            "main.txt",
            "-r base.txt\n--constraint=limits.txt\npkg @ https://x/y#egg=pkg\nhashed==1 \\\n  --hash=sha256:00\n",
        );
        write("local.whl", "wheel");
        let request = |name: &str| EnvRequest { requirements_files: vec![dir.path().join(name)], ..Default::default() };
        let found = collect(&request("main.txt")).unwrap();
        assert_eq!(found.text(), "hashed==1 --hash=sha256:00\nnumpy\npkg @ https://x/y#egg=pkg\n");
        assert_eq!(found.constraints().as_deref(), Some("numpy<3\n"));

        write("wheel.txt", "./local.whl\n");
        let before = collect(&request("wheel.txt")).unwrap().identity();
        write("local.whl", "changed");
        assert_ne!(collect(&request("wheel.txt")).unwrap().identity(), before, "the archive's content counts");
    }

    #[test]
    fn what_cannot_be_cached_by_name_or_read_is_refused_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("r.txt");
        let refused = |text: &str| {
            fs::write(&file, text).unwrap();
            let request = EnvRequest { requirements_files: vec![file.clone()], ..Default::default() };
            collect(&request).unwrap_err().to_string()
        };
        assert!(refused("numpy\n-e .\n").contains("r.txt:2: `-e .` is a directory"));
        assert!(refused(".\n").contains("r.txt:1: `.` is a directory"));
        assert!(refused("-r nowhere.txt").contains("nowhere.txt"));
        assert!(refused("=1.0").contains("does not begin with the name of a package"));
    }
}
