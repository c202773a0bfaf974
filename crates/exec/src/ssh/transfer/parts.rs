//! The part of a file that is under way: its name, which the next session finds again, and what of it has to go.
//!
//! Invariant: where a part is, is written down before the part is made; whoever ends the attempt removes it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::tree::last;
use crate::ssh::remote::marks;

/// The longest name of a file nearly everywhere.
const LONGEST: usize = 255;

/// Where a part is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Here(PathBuf),
    There(String),
}

impl Part {
    const FILE: &str = "part.json";

    pub fn read(dir: &Path) -> io::Result<Option<Part>> {
        marks::read(&dir.join(Self::FILE))
    }

    pub fn write(&self, dir: &Path) -> io::Result<()> {
        marks::write(dir, Self::FILE, self)
    }

    /// It became the file, or was removed.
    pub fn forget(dir: &Path) {
        let _ = std::fs::remove_file(dir.join(Self::FILE));
    }
}

/// The part of a file on the host; `id` is that of the attempt.
pub fn there(file: &str, id: &str) -> String {
    let above = &file[..file.len() - last(file).len()];
    format!("{above}{}", name(last(file), id))
}

/// The part of a file here.
pub fn here(file: &Path, id: &str) -> PathBuf {
    let name_of_file = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    file.with_file_name(name(&name_of_file, id))
}

fn name(file: &str, id: &str) -> String {
    let ending = format!(".pitcrew-{id}.part");
    match file.len() + ending.len() <= LONGEST {
        true => format!("{file}{ending}"),
        // One file is under way at a time.
        false => ending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_lies_beside_its_file_whatever_that_is_called() {
        assert_eq!(there("/a b/-x\n", "1-ab"), "/a b/-x\n.pitcrew-1-ab.part");
        assert_eq!(there(&format!("/d/{}", "ü".repeat(120)), "1-ab"), "/d/.pitcrew-1-ab.part");
        assert_eq!(here(Path::new("/a/b"), "1-ab"), Path::new("/a/b.pitcrew-1-ab.part"));
    }
}
