//! Which version of each path counts, and what follows from it: pure.
//!
//! The base is what the server had when it was asked last, or was told. What is other here than in the base was made by an
//! attempt here and is not at the server yet; it counts for as long as that attempt lives. Invariants:
//!
//! - What a bringing wrote is never taken for what an attempt made, wherever the bringing was cut off: what it is about to
//!   do is remembered before it does it.
//! - What an attempt left that was lost never takes the place of what somebody else brought to the server since.
//! - With no attempt alive here, here becomes what the server has.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::worker::files::scan::Found;
use crate::worker::protocol::{Changes, File, Manifest};

/// What is remembered of the directory of a run on a worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    #[serde(default)]
    base: BTreeMap<String, File>,
    /// What a bringing that did not come to its end was about to write; `None`: to remove.
    #[serde(default)]
    taking: BTreeMap<String, Option<File>>,
    /// What was other than the base when an attempt here was lost, as it was then. Others that lived then may have made
    /// it as well: it goes to the server with them, unless somebody else changed it there.
    #[serde(default)]
    doubt: BTreeMap<String, Option<File>>,
}

/// What to do here to have what the server has.
#[derive(Debug, Default, PartialEq)]
pub struct Steps {
    pub remove: Vec<String>,
    pub take: Vec<(String, File)>,
}

impl Memory {
    /// Before anything else is asked: what lies here says how far the last bringing came.
    pub fn settle(&mut self, here: &Found) {
        for (path, to) in std::mem::take(&mut self.taking) {
            if here.manifest.files.get(&path) == to.as_ref() {
                set(&mut self.base, path, to);
            }
        }
        self.doubt.retain(|path, as_it_was| here.manifest.files.get(path) == as_it_was.as_ref());
    }

    /// An attempt here was lost: of what is not at the server nobody knows whether it was that one's.
    pub fn lose(&mut self, here: &Found) {
        let files = &here.manifest.files;
        let paths: BTreeSet<&String> = files.keys().chain(self.base.keys()).collect();
        for path in paths {
            if files.get(path) != self.base.get(path) && !here.is_hidden(path) {
                self.doubt.insert(path.clone(), files.get(path).cloned());
            }
        }
    }

    pub fn has_doubt(&self) -> bool {
        !self.doubt.is_empty()
    }

    /// Whether what is here of this path was made here and counts, whatever the server has.
    fn is_own(&self, path: &str, here: &Found, there: &Manifest) -> bool {
        let base = self.base.get(path);
        let is_outdone = self.doubt.contains_key(path) && there.files.get(path) != base;
        here.manifest.files.get(path) != base && !is_outdone
    }

    /// What a bringing has to do; `is_alone`: no attempt lives here.
    pub fn steps(&self, here: &Found, there: &Manifest, is_alone: bool) -> Steps {
        let files = &here.manifest.files;
        let own: BTreeSet<&str> = match is_alone {
            true => BTreeSet::new(),
            false => files.keys().map(String::as_str).filter(|path| self.is_own(path, here, there)).collect(),
        };
        // What somebody makes here is not in the way of anything: a directory stays if something is in it.
        let is_in_the_way = |path: &str, file: &File| {
            let below = format!("{path}/");
            let is_full = own.range(below.as_str()..).next().is_some_and(|own| own.starts_with(&below));
            let mut above = std::iter::successors(path.rsplit_once('/'), |(above, _)| above.rsplit_once('/'));
            (is_full && *file != File::Dir)
                || above.any(|(above, _)| own.contains(above) && files.get(above) != Some(&File::Dir))
        };
        let may = |path: &str| !here.is_hidden(path) && (is_alone || !self.is_own(path, here, there));
        let gone = files.keys().filter(|path| !there.files.contains_key(*path));
        let news = there.files.iter().filter(|(path, file)| files.get(*path) != Some(file));
        Steps {
            remove: gone.filter(|path| may(path)).cloned().collect(),
            take: news
                .filter(|(path, file)| may(path) && !is_in_the_way(path, file))
                .map(|(path, file)| (path.clone(), file.clone()))
                .collect(),
        }
    }

    /// To be kept before the steps are done.
    pub fn begin(&mut self, steps: &Steps) {
        self.taking = steps.remove.iter().map(|path| (path.clone(), None)).collect();
        self.taking.extend(steps.take.iter().map(|(path, file)| (path.clone(), Some(file.clone()))));
    }

    /// The steps are done: the server had `there`.
    pub fn brought(&mut self, there: Manifest, is_alone: bool) {
        let base = std::mem::replace(&mut self.base, there.files);
        self.doubt.retain(|path, _| !is_alone && !self.taking.contains_key(path));
        self.taking = BTreeMap::new();
        for path in self.doubt.keys() {
            set(&mut self.base, path.clone(), base.get(path).cloned());
        }
    }

    /// What is other here than it was.
    pub fn changes(&self, here: &Found) -> Changes {
        let files = &here.manifest.files;
        let put = files.iter().filter(|(path, file)| self.base.get(*path) != Some(file));
        let removed = self.base.keys().filter(|path| !files.contains_key(*path) && !here.is_hidden(path));
        Changes {
            put: put.map(|(path, file)| (path.clone(), file.clone())).collect(),
            removed: removed.cloned().collect(),
        }
    }

    /// Takes out of `changes` what is in doubt and has changed at the server, which has `there` now.
    pub fn give_way(&self, changes: &mut Changes, there: &Manifest) {
        let stays = |path: &str| !self.doubt.contains_key(path) || there.files.get(path) == self.base.get(path);
        changes.put.retain(|path, _| stays(path));
        changes.removed.retain(|path| stays(path));
    }

    /// The server has these changes.
    pub fn sent(&mut self, changes: &Changes) {
        for (path, file) in &changes.put {
            self.tell(path, Some(file.clone()));
        }
        for path in &changes.removed {
            self.tell(path, None);
        }
    }

    fn tell(&mut self, path: &str, to: Option<File>) {
        set(&mut self.base, path.to_owned(), to);
        self.doubt.remove(path);
        self.taking.remove(path);
    }

    /// The digests of which the server has bytes.
    pub fn digests(&self) -> impl Iterator<Item = &str> {
        self.base.values().filter_map(File::digest)
    }
}

fn set(files: &mut BTreeMap<String, File>, path: String, to: Option<File>) {
    match to {
        Some(file) => drop(files.insert(path, file)),
        None => drop(files.remove(&path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(entries: &[(&str, &str)]) -> Manifest {
        let file = |to: &str| File::Link { to: to.to_owned() };
        Manifest {
            files: entries.iter().map(|(path, to)| ((*path).to_owned(), file(to))).collect(),
            ..Manifest::default()
        }
    }

    fn found(entries: &[(&str, &str)]) -> Found {
        Found { manifest: manifest(entries), ..Found::default() }
    }

    fn after(base: &[(&str, &str)]) -> Memory {
        Memory { base: manifest(base).files, ..Memory::default() }
    }

    fn taken(steps: &Steps) -> Vec<&str> {
        steps.take.iter().map(|(path, _)| path.as_str()).collect()
    }

    #[test]
    fn what_a_task_here_changed_is_kept_and_the_rest_follows_the_server() {
        let memory =
            after(&[("same", "1"), ("theirs", "1"), ("ours", "1"), ("both", "1"), ("gone", "1"), ("kept", "1")]);
        let here = found(&[
            ("same", "1"),
            ("theirs", "1"),
            ("ours", "2"),
            ("both", "2"),
            ("gone", "1"),
            ("kept", "2"),
            ("new", "2"),
        ]);
        let there = manifest(&[("same", "1"), ("theirs", "3"), ("ours", "1"), ("both", "3"), ("fresh", "3")]);
        let steps = memory.steps(&here, &there, false);
        assert_eq!((&steps.remove[..], taken(&steps)), (&["gone".to_owned()][..], vec!["fresh", "theirs"]));
        let told = memory.changes(&here);
        assert!(told.put.keys().eq(["both", "kept", "new", "ours"]) && told.removed.is_empty());
        // With nobody alive here, nothing of it counts.
        let steps = memory.steps(&here, &there, true);
        assert_eq!((steps.remove.len(), taken(&steps)), (3, vec!["both", "fresh", "ours", "theirs"]));
    }

    #[test]
    fn a_bringing_that_was_cut_off_is_not_taken_for_what_a_task_made() {
        let mut memory = after(&[("a", "0"), ("b", "0"), ("c", "0")]);
        let here = found(&[("a", "0"), ("b", "0"), ("c", "0")]);
        let steps = memory.steps(&here, &manifest(&[("a", "1"), ("b", "1")]), false);
        memory.begin(&steps);
        // It took `a` and removed `c`; then a task wrote `b`, and the server got a newer `a`.
        let here = found(&[("a", "1"), ("b", "mine")]);
        memory.settle(&here);
        assert!(memory.changes(&here).put.keys().eq(["b"]) && memory.changes(&here).removed.is_empty());
        let steps = memory.steps(&here, &manifest(&[("a", "2"), ("b", "1")]), false);
        assert_eq!((steps.remove.len(), taken(&steps)), (0, vec!["a"]));
    }

    #[test]
    fn what_a_lost_attempt_left_gives_way_to_what_others_did_since() {
        let mut memory = after(&[("old", "0"), ("model", "0")]);
        let here = found(&[("model", "part"), ("log", "part")]);
        memory.lose(&here);
        // Another attempt here goes on and changes one of them; elsewhere the lost one's work was done again.
        let here = found(&[("model", "part"), ("log", "more"), ("mine", "1")]);
        memory.settle(&here);
        let there = manifest(&[("old", "1"), ("model", "whole"), ("log", "whole")]);
        let mut told = memory.changes(&here);
        memory.give_way(&mut told, &there);
        assert!(told.put.keys().eq(["log", "mine"]) && told.removed.is_empty());
        memory.sent(&told);
        assert!(memory.has_doubt());
        let steps = memory.steps(&here, &there, false);
        assert!(taken(&steps).contains(&"model") && taken(&steps).contains(&"old"));
        memory.brought(there, true);
        assert!(!memory.has_doubt());
    }

    #[test]
    fn what_cannot_be_looked_at_is_neither_removed_nor_written_to() {
        let memory = after(&[("workspace/d/a", "0"), ("workspace/b", "0")]);
        let hidden = ["workspace/d".to_owned()].into();
        let here = Found { manifest: Manifest { hidden, ..Manifest::default() }, ..Found::default() };
        assert_eq!(memory.changes(&here).removed, ["workspace/b"]);
        let there = manifest(&[("workspace/d/a", "1"), ("workspace/d", "1")]);
        assert_eq!(memory.steps(&here, &there, true), Steps::default());
    }

    #[test]
    fn a_directory_that_a_task_fills_gives_way_to_no_file() {
        let memory = Memory::default();
        let here = found(&[("workspace/out/x", "1"), ("workspace/f", "1")]);
        let there = manifest(&[("workspace/out", "2"), ("workspace/f/y", "2"), ("workspace/other/z", "2")]);
        assert_eq!(taken(&memory.steps(&here, &there, false)), ["workspace/other/z"]);
        assert_eq!(memory.steps(&here, &there, true).take.len(), 3);
    }
}
