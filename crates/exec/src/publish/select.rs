//! Which files are meant: paths, directories and patterns, all below the run's root.
//!
//! Invariant: the real place of every selected file is below the real root; a link that leads out is an error.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::{MANIFEST, PublishError, io_error};

/// A file to publish.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selected {
    pub path: PathBuf,
    /// At the target, with `/`.
    pub name: String,
}

pub(super) fn select(root: &Path, patterns: &[String]) -> Result<Vec<Selected>, PublishError> {
    let root = root.canonicalize().map_err(io_error(format!("cannot open `{}`", root.display())))?;
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for pattern in patterns {
        let mut matched = false;
        for Selected { path, name } in matches(&root, pattern)? {
            matched = true;
            if name == MANIFEST {
                return refuse(format!("`{name}` is the name of the manifest; publish the file under another name"));
            }
            if let Some(other) = found.get(&name).filter(|other| **other != path) {
                let (a, b) = (other.display(), path.display());
                return refuse(format!(
                    "`{a}` and `{b}` would both be published as `{name}`; name their directory instead"
                ));
            }
            found.insert(name, path);
        }
        if !matched {
            return refuse(format!("`{pattern}` matches no file"));
        }
    }
    if found.is_empty() {
        return refuse("no files to publish were named".into());
    }
    Ok(found.into_iter().map(|(name, path)| Selected { path, name }).collect())
}

fn refuse<T>(why: String) -> Result<T, PublishError> {
    Err(PublishError::Request(why))
}

fn matches(root: &Path, pattern: &str) -> Result<Vec<Selected>, PublishError> {
    let mut parts = Vec::new();
    for component in Path::new(pattern).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::CurDir => {}
            _ => return refuse(format!("`{pattern}` leads out of the run's directory; name files inside it")),
        }
    }
    let fixed = parts.iter().take_while(|part| !part.contains(['*', '?'])).count();
    let start = parts[..fixed].iter().fold(root.to_owned(), |dir, part| dir.join(part));
    if fs::symlink_metadata(&start).is_err() {
        return Ok(Vec::new());
    }
    check_inside(root, &start)?;
    let mut files = Vec::new();
    if start.is_file() {
        if fixed == parts.len() {
            let name = parts[fixed - 1].clone();
            files.push(Selected { path: start, name });
        }
        return Ok(files);
    }
    walk(root, &start, "", &mut files)?;
    let rest: Vec<&str> = parts[fixed..].iter().map(String::as_str).collect();
    // A directory by its name alone means all that is in it.
    files.retain(|file| rest.is_empty() || fits(&rest, &file.name.split('/').collect::<Vec<_>>()));
    Ok(files)
}

fn check_inside(root: &Path, path: &Path) -> Result<(), PublishError> {
    let real = path.canonicalize().map_err(io_error(format!("cannot open `{}`", path.display())))?;
    if real.starts_with(root) {
        return Ok(());
    }
    refuse(format!("`{}` is a link out of the run's directory", path.display()))
}

fn walk(root: &Path, dir: &Path, prefix: &str, files: &mut Vec<Selected>) -> Result<(), PublishError> {
    let cannot = || io_error(format!("cannot read the directory `{}`", dir.display()));
    for entry in fs::read_dir(dir).map_err(cannot())? {
        let entry = entry.map_err(cannot())?;
        let path = entry.path();
        let Ok(part) = entry.file_name().into_string() else {
            return refuse(format!("`{}` has a name that is not UTF-8", path.display()));
        };
        let name = if prefix.is_empty() { part } else { format!("{prefix}/{part}") };
        let kind = entry.file_type().map_err(cannot())?;
        if kind.is_dir() {
            walk(root, &path, &name, files)?;
        } else if kind.is_symlink() {
            check_inside(root, &path)?;
            // A link to a directory could lead round in a circle; its files are found at their own place.
            if path.is_file() {
                files.push(Selected { path, name });
            }
        } else if kind.is_file() {
            files.push(Selected { path, name });
        }
    }
    Ok(())
}

/// `**` stands for any directories, also none; a name that begins with a dot is like any other.
fn fits(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((&"**", after)), rest) => {
            fits(after, name) || rest.is_some_and(|(_, deeper)| after.is_empty() || fits(pattern, deeper))
        }
        (Some((part, after)), Some((first, rest))) => fits_part(part.as_bytes(), first.as_bytes()) && fits(after, rest),
        (Some(_), None) => false,
    }
}

fn fits_part(pattern: &[u8], name: &[u8]) -> bool {
    // The place after the last `*`, and how much of the name that star stands for so far.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    (p, n) = (after, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(root: &Path, patterns: &[&str]) -> Result<Vec<String>, String> {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        let files = select(root, &patterns).map_err(|e| e.to_string())?;
        Ok(files.into_iter().map(|file| file.name).collect())
    }

    #[test]
    fn paths_directories_and_patterns_name_files() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for file in ["r/a.html", "r/b.json", "r/deep/er/c.html", "d.txt"] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), file).unwrap();
        }
        let ok = |patterns: &[&str]| names(root, patterns).unwrap();
        assert_eq!(ok(&["r"]), ["a.html", "b.json", "deep/er/c.html"]);
        assert_eq!(ok(&["./r/a.html", "d.txt"]), ["a.html", "d.txt"]);
        assert_eq!(ok(&["r/*.html"]), ["a.html"]);
        assert_eq!(ok(&["r/**/*.html"]), ["a.html", "deep/er/c.html"]);
        assert_eq!(ok(&["**"]).len(), 4);
        assert_eq!(ok(&["r/**"]), ok(&["r"]));
        assert_eq!(ok(&["?.t*t", "*/b.js?n"]), ["d.txt", "r/b.json"]);
        assert!(names(root, &["r/*.pdf"]).unwrap_err().contains("`r/*.pdf` matches no file"));
        assert!(names(root, &["nowhere"]).unwrap_err().contains("matches no file"));
        fs::write(root.join("a.html"), "other").unwrap();
        assert!(names(root, &["a.html", "r"]).unwrap_err().contains("would both be published as `a.html`"));
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("secret"));
        fs::create_dir_all(root.join("r")).unwrap();
        fs::write(&outside, "s").unwrap();
        fs::write(root.join("in"), "i").unwrap();
        for bad in ["../secret", "/etc/passwd", "r/../../secret"] {
            assert!(names(&root, &[bad]).unwrap_err().contains("leads out"), "{bad}");
        }
        std::os::unix::fs::symlink(root.join("in"), root.join("r/inner")).unwrap();
        assert_eq!(names(&root, &["r"]).unwrap(), ["inner"]);
        std::os::unix::fs::symlink(&outside, root.join("r/link")).unwrap();
        for bad in ["r", "r/link", "**"] {
            assert!(names(&root, &[bad]).unwrap_err().contains("is a link out"), "{bad}");
        }
    }
}
