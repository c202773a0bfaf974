//! The files of a run, between the server and the workers that its tasks run on.
//!
//! Both sides say what they have by a [`Manifest`], bytes go by their SHA-256, and only those that the other side lacks.
//! What two workers changed at once is merged by path: of one path, the last change counts.
//!
//! Invariants: nothing that a manifest says leads out of the directory of its run, and nothing is written or read through
//! a link; a file appears whole, after its digest was compared, or not at all; no file is ever in memory.

mod depot;
mod exchange;
mod kept;
mod pipe;
mod scan;
mod tree;

use super::protocol::{File, Manifest};

pub use depot::{Depot, DepotError, LARGEST};
pub use exchange::{digest_of, has_files, lacking, news, offer, take, taken};
pub use kept::{KeptError, apply, blob, clear_incoming, manifest, stage};
pub use pipe::{Pipe, STILL, chunks, lively};

/// What of the directory of a run travels: the rest is of one machine.
pub const PARTS: [&str; 3] = ["workspace", "artifacts", "records"];
/// Names under which what is not whole yet lies beside what it will be.
const UNFINISHED: &str = ".pitcrew-part-";
/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;
/// The longest path, and the most entries of a run.
const LONGEST: usize = 4096;
const MOST: usize = 1_000_000;

/// Is it a path of a file of a run? The error is a sentence.
fn check(path: &str) -> Result<(), String> {
    let is_plain =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0') && part.len() <= 255;
    let mut parts = path.split('/');
    let first = parts.next().unwrap_or_default();
    let right = PARTS.contains(&first) && parts.clone().next().is_some() && parts.all(is_plain);
    match right && path.len() <= LONGEST {
        true => Ok(()),
        false => Err(format!("`{}` is no path of a file of a run", shown(path))),
    }
}

/// Does a link at `path` stay among the files of its run? The error is a sentence.
///
/// It may go up first, as far as its part of the run, and then only down. Each link of which that is true leads into its
/// part wherever the next one leads: going up begins where the link really lies. A link that went down and up again could
/// go up from somewhere else, by way of another link.
fn check_link(path: &str, to: &str) -> Result<(), String> {
    let problem = |what: &str| Err(format!("the link `{}` {what}, to `{}`", shown(path), shown(to)));
    if to.is_empty() || to.starts_with('/') || to.contains('\0') || to.len() > LONGEST {
        return problem("leads out of the files of the run");
    }
    // At depth 0 is what belongs to one machine.
    let mut depth = path.split('/').count() - 1;
    let mut goes_down = false;
    for part in to.split('/') {
        match part {
            "" | "." => {}
            ".." if goes_down => return problem("goes up again after it went down"),
            ".." if depth <= 1 => return problem("leads out of the files of the run"),
            ".." => depth -= 1,
            _ => goes_down = true,
        }
    }
    Ok(())
}

fn check_all(files: &std::collections::BTreeMap<String, File>) -> Result<(), String> {
    if files.len() > MOST {
        return Err(format!("more than {MOST} files do not travel"));
    }
    for (path, file) in files {
        check(path)?;
        match file {
            File::File { sha256, .. } => check_digest(sha256)?,
            File::Link { to } => check_link(path, to)?,
            File::Dir => {}
        }
    }
    Ok(())
}

/// A digest is part of a path, too.
fn check_digest(sha256: &str) -> Result<(), String> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    match sha256.len() == 64 && sha256.bytes().all(is_hex) {
        true => Ok(()),
        false => Err(format!("`{}` is no SHA-256", shown(sha256))),
    }
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Manifest {
    fn is_hidden(&self, path: &str) -> bool {
        let mut steps = std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(above, _)| above));
        !self.hidden.is_empty() && steps.any(|path| self.hidden.contains(path))
    }

    /// Is everything in it where files of a run may be? The error is a sentence.
    fn checked(self) -> Result<Manifest, String> {
        check_all(&self.files).map(|()| self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_and_no_link_leads_out_of_the_run() {
        for right in ["workspace/a", "artifacts/a/b.txt", "records/..a", "workspace/a b/ü"] {
            check(right).unwrap();
        }
        for wrong in [
            "",
            "workspace",
            "workspace/",
            "/workspace/a",
            "attempts/a",
            "workspace/../x",
            "workspace//a",
            "workspace/./a",
            "workspace/a/..",
            "../workspace/a",
            "workspace/a\0",
        ] {
            check(wrong).unwrap_err();
        }
        for (path, to) in [("workspace/a", "b"), ("workspace/a/b", "../c"), ("artifacts/x", "./y/./z/")] {
            check_link(path, to).unwrap();
        }
        for (path, to) in [
            ("workspace/a", "/etc/passwd"),
            ("workspace/a", "../artifacts/x"),
            ("workspace/a/b", "../../attempts"),
            ("workspace/a", "b/../../../x"),
            ("workspace/a", "b/../c"),
            ("workspace/a", ""),
        ] {
            check_link(path, to).unwrap_err();
        }
        check_digest(&"a".repeat(64)).unwrap();
        check_digest(&format!("../{}", "a".repeat(61))).unwrap_err();
    }
    #[test]
    fn whatever_links_there_are_none_leads_out_of_its_part() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut below = |limit: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as usize % limit
        };
        let mut resolved = 0;
        for _ in 0..60 {
            let dir = tempfile::tempdir().unwrap();
            let run = dir.path().canonicalize().unwrap().join("7");
            let part = run.join("workspace");
            std::fs::create_dir_all(part.join("a/b/c")).unwrap();
            let root = tree::Root::open(&run).unwrap();
            let mut links = Vec::new();
            for number in 0..12 {
                let at = ["workspace", "workspace/a", "workspace/a/b", "workspace/a/b/c"][below(4)];
                let path = format!("{at}/l{number}");
                let steps: Vec<String> = (0..=below(5))
                    .map(|_| match below(6) {
                        0..=2 => "..".to_owned(),
                        3 => ["a", "b", "c"][below(3)].to_owned(),
                        _ => format!("l{}", below(number + 1)),
                    })
                    .collect();
                if root.link(&path, &steps.join("/")).is_ok() {
                    links.push(path);
                }
            }
            for link in links {
                if let Ok(real) = run.join(&link).canonicalize() {
                    assert!(real.starts_with(&part), "{link} leads to {}", real.display());
                    resolved += 1;
                }
            }
        }
        assert!(resolved > 50, "{resolved}");
    }
}
