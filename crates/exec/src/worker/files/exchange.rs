//! The files of a run, between servers with data directories of their own: the one that goes on takes what another has.
//!
//! Each remembers, beside the files, what it last took from each other one, and what it last gave away. A path that they
//! changed and this one did not, since, is taken; one that both changed stays as it is here. Invariants: what was given
//! counts as given only when whoever took it says so, with the digest of what was offered; what a taking wrote that was
//! cut off is never taken for a change that was made here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::scan::Index;
use super::tree::unfinished;
use super::{KeptError, PARTS, hex};
use crate::worker::protocol::{Changes, File, Manifest};

/// Lies beside the parts.
const FILE: &str = "exchanged.json";

type Files = BTreeMap<String, File>;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Exchanged {
    /// What others have from here.
    given: Files,
    /// By data directory: what it has, as far as this one knows.
    from: BTreeMap<String, Files>,
    /// By data directory: what it asked for last.
    offered: BTreeMap<String, Files>,
    /// By data directory: what a taking that did not come to its end was about to write; `None`: to remove.
    taking: BTreeMap<String, BTreeMap<String, Option<File>>>,
}

impl Exchanged {
    /// What is damaged is as good as nothing: then more is taken for changed than is.
    fn read(run: &Path) -> io::Result<Exchanged> {
        match std::fs::read(run.join(FILE)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Exchanged::default()),
            Err(error) => Err(error),
        }
    }

    fn write(&self, run: &Path) -> io::Result<()> {
        let temporary = run.join(unfinished());
        std::fs::write(&temporary, serde_json::to_vec(self)?)?;
        std::fs::rename(&temporary, run.join(FILE))
    }

    /// Before anything else is asked: what lies here says how far a taking came.
    fn settle(&mut self, here: &Manifest) {
        for (from, taking) in std::mem::take(&mut self.taking) {
            let base = self.from.entry(from).or_default();
            for (path, to) in taking {
                match (here.files.get(&path) == to.as_ref(), to) {
                    (true, Some(file)) => drop(base.insert(path, file)),
                    (true, None) => drop(base.remove(&path)),
                    (false, _) => {}
                }
            }
        }
    }

    fn news(&self, from: &str, here: &Manifest, there: &Manifest) -> Changes {
        let nothing = Files::new();
        let base = self.from.get(from).unwrap_or(&nothing);
        let is_seen = |path: &str| !here.is_hidden(path) && !there.is_hidden(path);
        let is_taken = |(path, file): &(&String, &File)| {
            let (mine, was) = (here.files.get(*path), base.get(*path));
            let is_news = mine != Some(*file) && was != Some(*file);
            is_news && is_seen(path) && (mine == was || (mine.is_some() && mine == self.given.get(*path)))
        };
        let is_removed = |(path, was): &(&String, &File)| {
            !there.files.contains_key(*path) && is_seen(path) && here.files.get(*path) == Some(*was)
        };
        Changes {
            put: there.files.iter().filter(is_taken).map(|(path, file)| (path.clone(), file.clone())).collect(),
            removed: base.iter().filter(is_removed).map(|(path, _)| path.clone()).collect(),
        }
    }

    /// All that `from` has is here.
    fn took(&mut self, from: &str, there: Manifest) {
        self.taking.remove(from);
        let before = self.from.remove(from).unwrap_or_default();
        // Nothing was said of these.
        let hidden: Files = before.into_iter().filter(|(path, _)| there.is_hidden(path)).collect();
        let mut base = there.files;
        base.extend(hidden);
        self.from.insert(from.to_owned(), base);
    }
}

/// Whether there is any file of the run here.
pub fn has_files(run: &Path) -> io::Result<bool> {
    let mut open: Vec<_> = PARTS.iter().map(|part| run.join(part)).collect();
    while let Some(dir) = open.pop() {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => open.push(entry.path()),
                false => return Ok(true),
            }
        }
    }
    Ok(false)
}

/// What it is called when it is confirmed.
pub fn digest_of(manifest: &Manifest) -> io::Result<String> {
    Ok(hex(Sha256::digest(serde_json::to_vec(&manifest.files)?)))
}

/// What the run has here, for the data directory `to`.
pub fn offer(run: &Path, to: &str, now: Timestamp) -> Result<Manifest, KeptError> {
    if !run.exists() {
        // It was deleted, perhaps, and is not made anew.
        return Ok(Manifest::default());
    }
    let manifest = super::manifest(run, now)?;
    let mut exchanged = Exchanged::read(run)?;
    exchanged.offered.insert(to.to_owned(), manifest.files.clone());
    exchanged.write(run)?;
    Ok(manifest)
}

/// The data directory `by` has all that was offered to it under this digest.
pub fn taken(run: &Path, by: &str, digest: &str) -> Result<(), KeptError> {
    let mut exchanged = Exchanged::read(run)?;
    let offered = Manifest { files: exchanged.offered.remove(by).unwrap_or_default(), ..Manifest::default() };
    if digest_of(&offered)? != digest {
        return Err(KeptError::Refused("what was taken is not what was offered last".to_owned()));
    }
    if !run.exists() {
        return Ok(());
    }
    exchanged.given = offered.files.clone();
    exchanged.from.insert(by.to_owned(), offered.files);
    Ok(exchanged.write(run)?)
}

/// What has to be done here to have what the data directory `from` has of the run.
pub fn news(run: &Path, from: &str, there: &Manifest, now: Timestamp) -> Result<Changes, KeptError> {
    super::check_all(&there.files).map_err(KeptError::Refused)?;
    let here = super::manifest(run, now)?;
    let mut exchanged = Exchanged::read(run)?;
    exchanged.settle(&here);
    Ok(exchanged.news(from, &here, there))
}

/// Digests of the bytes that these changes need, and that are not here; each with a path where whoever offered them has them.
pub fn lacking(run: &Path, changes: &Changes) -> Result<BTreeMap<String, String>, KeptError> {
    let index = Index::read(run)?;
    let by_digest = index.by_digest();
    let incoming = run.join("incoming");
    let mut asked = BTreeSet::new();
    let mut lacking = BTreeMap::new();
    for (path, file) in &changes.put {
        if let File::File { sha256, .. } = file
            && asked.insert(sha256.as_str())
            && !by_digest.contains_key(sha256.as_str())
            && !incoming.join(sha256).exists()
        {
            lacking.insert(sha256.clone(), path.clone());
        }
    }
    Ok(lacking)
}

/// Does what is to be done here to have what the data directory `from` has of the run: as things are now, since something
/// may have changed here while bytes came. [`KeptError::Missing`]: then bytes may be needed that nobody brought.
pub fn take(run: &Path, from: &str, there: Manifest, now: Timestamp) -> Result<(), KeptError> {
    super::check_all(&there.files).map_err(KeptError::Refused)?;
    let here = super::manifest(run, now)?;
    let mut exchanged = Exchanged::read(run)?;
    exchanged.settle(&here);
    let changes = exchanged.news(from, &here, &there);
    let put = changes.put.iter().map(|(path, file)| (path.clone(), Some(file.clone())));
    let removed = changes.removed.iter().map(|path| (path.clone(), None));
    exchanged.taking.insert(from.to_owned(), put.chain(removed).collect());
    exchanged.write(run)?;
    super::apply(run, &changes, now)?;
    exchanged.took(from, there);
    Ok(exchanged.write(run)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::worker::files::{blob, stage};

    fn put(run: &Path, path: &str, text: &str) {
        let file = run.join("workspace").join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    fn tree(run: &Path) -> Vec<(String, String)> {
        let found = crate::worker::files::manifest(run, clock::now()).unwrap();
        let text = |path: &String| std::fs::read_to_string(run.join(path)).unwrap();
        found.files.keys().map(|path| (path["workspace/".len()..].to_owned(), text(path))).collect()
    }

    /// `to` takes what `from` has, as servers do.
    fn take(to: (&Path, &str), from: (&Path, &str)) {
        let now = clock::now();
        let there = offer(from.0, to.1, now).unwrap();
        bytes_come(to.0, from, &there);
        let digest = digest_of(&there).unwrap();
        super::take(to.0, from.1, there, now).unwrap();
        taken(from.0, to.1, &digest).unwrap();
    }

    fn bytes_come(to: &Path, from: (&Path, &str), there: &Manifest) {
        let changes = news(to, from.1, there, clock::now()).unwrap();
        for (sha256, path) in lacking(to, &changes).unwrap() {
            stage(to, &sha256, &mut blob(from.0, &sha256, Some(&path)).unwrap().0).unwrap();
        }
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn what_others_changed_is_taken_and_what_was_done_here_stays() {
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let [a, b, c] = [(dirs[0].path(), "a"), (dirs[1].path(), "b"), (dirs[2].path(), "c")];
        assert!(!has_files(a.0).unwrap());
        for (path, text) in [("same", "1"), ("gone", "1"), ("deep/changed", "1")] {
            put(a.0, path, text);
        }
        assert!(has_files(a.0).unwrap());
        take(b, a);
        assert_eq!(tree(b.0), tree(a.0));
        // There it goes on, while something still runs here.
        std::fs::remove_file(b.0.join("workspace/gone")).unwrap();
        put(b.0, "deep/changed", "2 by b");
        put(b.0, "both", "by b");
        put(a.0, "late", "by a");
        put(a.0, "both", "by a");
        take(b, a);
        let all = [("both", "by b"), ("deep/changed", "2 by b"), ("late", "by a"), ("same", "1")];
        assert_eq!(tree(b.0), pairs(&all));
        // A third one goes on, and then the first one again, which never heard of what the second one did.
        take(c, b);
        put(c.0, "same", "3 by c");
        take(a, c);
        let all = [("both", "by b"), ("deep/changed", "2 by b"), ("gone", "1"), ("late", "by a"), ("same", "3 by c")];
        assert_eq!(tree(a.0), pairs(&all), "only a removal by way of a third one is not known");
        // Between two it is.
        take(b, a);
        std::fs::remove_file(b.0.join("workspace/late")).unwrap();
        take(a, b);
        assert!(!a.0.join("workspace/late").exists());
    }

    #[test]
    fn what_nobody_confirmed_was_not_given() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [a, b] = [(dirs[0].path(), "a"), (dirs[1].path(), "b")];
        put(a.0, "f", "1");
        offer(a.0, "b", clock::now()).unwrap();
        let error = taken(a.0, "b", &"0".repeat(64)).unwrap_err().to_string();
        assert!(error.contains("not what was offered"), "{error}");
        // It died on the way and has nothing: that is no removal.
        take(a, b);
        assert_eq!(tree(a.0), pairs(&[("f", "1")]));
        let odd = Manifest { files: [("../x".to_owned(), File::Dir)].into(), ..Manifest::default() };
        assert!(matches!(news(a.0, "b", &odd, clock::now()), Err(KeptError::Refused(_))));
    }

    #[test]
    fn a_run_that_is_not_there_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("7");
        let there = offer(&run, "b", clock::now()).unwrap();
        assert_eq!(there, Manifest::default());
        super::taken(&run, "b", &digest_of(&there).unwrap()).unwrap();
        assert!(!run.exists());
    }

    #[test]
    fn a_taking_that_was_cut_off_makes_no_change_of_its_own() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [a, b] = [(dirs[0].path(), "a"), (dirs[1].path(), "b")];
        put(a.0, "before", "1");
        put(a.0, "gone", "1");
        take(b, a);
        put(a.0, "before", "2");
        put(a.0, "early", "1");
        std::fs::remove_file(a.0.join("workspace/gone")).unwrap();
        let there = offer(a.0, "b", clock::now()).unwrap();
        bytes_come(b.0, a, &there);
        let mut cut = Exchanged::read(b.0).unwrap();
        let here = crate::worker::files::manifest(b.0, clock::now()).unwrap();
        let changes = cut.news("a", &here, &there);
        let put_all = changes.put.iter().map(|(path, file)| (path.clone(), Some(file.clone())));
        cut.taking.insert("a".to_owned(), put_all.chain([("workspace/gone".to_owned(), None)]).collect());
        cut.write(b.0).unwrap();
        crate::worker::files::apply(b.0, &changes, clock::now()).unwrap();
        // It died there, and something still runs at the other one, and here.
        for path in ["before", "early", "gone"] {
            put(a.0, path, "3");
        }
        put(b.0, "here", "by b");
        take(b, a);
        let all = [("before", "3"), ("early", "3"), ("gone", "3"), ("here", "by b")];
        assert_eq!(tree(b.0), pairs(&all));
    }

    #[test]
    fn what_changes_here_while_bytes_come_is_not_overwritten() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [a, b] = [(dirs[0].path(), "a"), (dirs[1].path(), "b")];
        put(a.0, "f", "1");
        take(b, a);
        put(a.0, "f", "2");
        let there = offer(a.0, "b", clock::now()).unwrap();
        bytes_come(b.0, a, &there);
        put(b.0, "f", "by b, meanwhile");
        super::take(b.0, "a", there, clock::now()).unwrap();
        assert_eq!(tree(b.0), pairs(&[("f", "by b, meanwhile")]));
    }

    #[test]
    fn what_may_not_be_looked_at_is_not_removed() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [a, b] = [(dirs[0].path(), "a"), (dirs[1].path(), "b")];
        put(a.0, "closed/f", "1");
        put(a.0, "open", "1");
        take(b, a);
        let mut there = offer(a.0, "b", clock::now()).unwrap();
        // As `a` sees it when a task closed the directory; whoever tests as root sees everything.
        let closed = there.files.remove("workspace/closed/f").unwrap();
        there.hidden.insert("workspace/closed".to_owned());
        super::take(b.0, "a", there.clone(), clock::now()).unwrap();
        assert_eq!(tree(b.0), pairs(&[("closed/f", "1"), ("open", "1")]));
        // It is open again, and the file is gone.
        there.hidden.clear();
        super::take(b.0, "a", there.clone(), clock::now()).unwrap();
        assert_eq!(tree(b.0), pairs(&[("open", "1")]));
        there.files.insert("workspace/closed/f".to_owned(), closed);
        let said = serde_json::to_string(&there).unwrap();
        assert!(!said.contains("hidden") && serde_json::from_str::<Manifest>(&said).unwrap() == there);
    }
}
