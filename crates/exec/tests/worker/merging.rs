//! Two workers and the server's own tasks change the files of one run at random, while connections are cut, attempts are
//! lost and workers are killed. Each write has a value of its own, so what the server had of a path tells who did what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pitcrew_core::id::UNMAPPED;
use pitcrew_core::{AttemptId, RunKey, TaskId};
use pitcrew_exec::worker::Wire;
use pitcrew_exec::worker::files::{Depot, DepotError};

use crate::server::{CREDENTIAL, Server};

const PATHS: [&str; 4] = ["workspace/a", "workspace/b", "workspace/d/x", "artifacts/d/y"];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}

struct Machine {
    depot: Depot,
    dir: PathBuf,
    blobs: PathBuf,
    live: Vec<AttemptId>,
    /// What somebody removed here, and when an attempt was lost last.
    removed: BTreeSet<&'static str>,
    lost_at: usize,
    /// What is in doubt since then is not known yet; until it is, all that is made here counts among it.
    is_unsure: bool,
}

/// One write: by which attempt, when.
struct Written {
    by: Option<AttemptId>,
    at: usize,
}

struct World {
    random: Random,
    server: Server,
    wire: Wire,
    machines: Vec<Machine>,
    /// By value.
    written: BTreeMap<String, Written>,
    lost: BTreeMap<AttemptId, usize>,
    /// All values that the server had of a path, and since when it has the last.
    had: BTreeMap<&'static str, (BTreeSet<String>, Option<String>, usize)>,
    now: usize,
    attempts: u32,
    story: Vec<String>,
}

impl World {
    async fn new(seed: u64, dir: &std::path::Path) -> World {
        let server = Server::start(Duration::from_secs(600), Arc::new(tempfile::tempdir().unwrap())).await;
        let machines = (0..2).map(|number| {
            let root = dir.join(number.to_string());
            let (dir, blobs) = (root.join("runs/7"), root.join("blobs"));
            std::fs::create_dir_all(&dir).unwrap();
            let depot = Depot::new(blobs.clone(), 1 << 30);
            Machine { depot, dir, blobs, live: Vec::new(), removed: BTreeSet::new(), lost_at: 0, is_unsure: false }
        });
        World {
            random: Random(seed | 1),
            wire: Wire::new(&server.url, CREDENTIAL).unwrap(),
            server,
            machines: machines.collect(),
            written: BTreeMap::new(),
            lost: BTreeMap::new(),
            had: BTreeMap::new(),
            now: 0,
            attempts: 0,
            story: Vec::new(),
        }
    }

    fn there(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.server.runs.path().join("7").join(path)).ok()
    }

    fn here(&self, machine: usize, path: &str) -> Option<String> {
        std::fs::read_to_string(self.machines[machine].dir.join(path)).ok()
    }

    fn write(&mut self, dir: PathBuf, path: &str, by: Option<AttemptId>) {
        let value = format!("v{}", self.now);
        self.story.push(format!("{}: {value} to {path} in {}, by {by:?}", self.now, dir.display()));
        std::fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        std::fs::write(dir.join(path), &value).unwrap();
        self.written.insert(value, Written { by, at: self.now });
    }

    /// What the server has now follows from what it had, and from what `sender` may tell.
    fn check(&mut self, sender: Option<usize>) {
        for path in PATHS {
            let value = self.there(path);
            let (all, last, since) = self.had.entry(path).or_default();
            if value == *last {
                continue;
            }
            let said = format!("{path} became {value:?} after {last:?}:\n{}", self.story.join("\n"));
            match (&value, sender) {
                (Some(value), _) => {
                    assert!(all.insert(value.clone()), "something older came back: {said}");
                    let lost = self.written[value].by.as_ref().and_then(|by| self.lost.get(by));
                    assert!(lost.is_none_or(|lost| *since <= *lost), "a lost attempt undid something: {said}");
                }
                (None, Some(sender)) => {
                    assert!(self.machines[sender].removed.contains(path), "nobody removed it: {said}");
                }
                (None, None) => panic!("nobody sent anything: {said}"),
            }
            (*last, *since) = (value, self.now);
        }
    }

    async fn begin(&mut self, machine: usize) {
        self.attempts += 1;
        let id =
            AttemptId { run: RunKey(7), task: TaskId::new("t").unwrap(), map_index: UNMAPPED, number: self.attempts };
        let cut = (self.random.below(3) == 0).then(|| self.random.below(5));
        self.server.with(|s| s.cut = cut);
        let at = &self.machines[machine];
        let brought = at.depot.bring(&self.wire, &at.dir, &id).await;
        self.server.with(|s| s.cut = None);
        self.story.push(format!("{}: {id} brings to {machine}, {brought:?}", self.now));
        match brought {
            Ok(()) => {
                if self.machines[machine].live.is_empty() {
                    for path in PATHS {
                        assert_eq!(self.here(machine, path), self.there(path), "{path}:\n{}", self.story.join("\n"));
                    }
                }
                self.is_sure(machine);
                self.machines[machine].depot.begun(&id);
                self.machines[machine].live.push(id);
            }
            Err(DepotError::Later(_)) if cut.is_some() => {}
            Err(error) => panic!("{error}:\n{}", self.story.join("\n")),
        }
    }

    async fn end(&mut self, machine: usize, id: AttemptId) {
        let cut = (self.random.below(3) == 0).then(|| self.random.below(5));
        let loses_answer = self.random.below(4) == 0;
        self.server.with(|s| (s.cut, s.loses_answer) = (cut, loses_answer));
        let at = &self.machines[machine];
        self.story.push(format!("{}: {id} ends on {machine}", self.now));
        while let Err(error) = at.depot.send(&self.wire, &at.dir, &id).await {
            assert!(matches!(error, DepotError::Later(_)), "{error}:\n{}", self.story.join("\n"));
            self.server.with(|s| s.cut = None);
        }
        self.server.with(|s| (s.cut, s.loses_answer) = (None, false));
        self.machines[machine].depot.lost(&self.machines[machine].dir, &id);
        for path in PATHS {
            let Some(value) = self.here(machine, path) else { continue };
            let written = &self.written[&value];
            let at = &self.machines[machine];
            let is_its = written.by.as_ref() == Some(&id) && written.at > at.lost_at && !at.is_unsure;
            if is_its && !self.had.get(path).is_some_and(|(all, ..)| all.contains(&value)) {
                assert_eq!(self.there(path), Some(value), "{path}:\n{}", self.story.join("\n"));
            }
        }
        self.is_sure(machine);
        self.check(Some(machine));
    }

    fn is_sure(&mut self, machine: usize) {
        let at = &mut self.machines[machine];
        if std::mem::take(&mut at.is_unsure) {
            at.lost_at = self.now;
        }
    }

    async fn step(&mut self) {
        self.now += 1;
        let machine = self.random.below(2);
        let path = PATHS[self.random.below(PATHS.len())];
        let live = self.machines[machine].live.len();
        let one = (live > 0).then(|| self.random.below(live));
        match (self.random.below(12), one) {
            (0..=1, _) if live < 3 => self.begin(machine).await,
            (2, _) => {
                self.write(self.server.runs.path().join("7"), path, None);
                self.check(None);
            }
            (3..=6, Some(one)) => {
                let at = &self.machines[machine];
                self.write(at.dir.clone(), path, Some(at.live[one].clone()));
            }
            (7, Some(_)) => {
                self.story.push(format!("{}: {path} is removed on {machine}", self.now));
                let at = &mut self.machines[machine];
                at.removed.insert(path);
                let _ = std::fs::remove_file(at.dir.join(path));
            }
            (8, Some(one)) => {
                let now = self.now;
                let at = &mut self.machines[machine];
                let id = at.live.remove(one);
                at.lost_at = now;
                at.depot.lost(&at.dir, &id);
                self.story.push(format!("{now}: {id} is lost on {machine}"));
                if self.random.below(2) == 0 {
                    at.depot.note_loss(&at.dir, RunKey(7)).await;
                } else {
                    at.is_unsure = true;
                }
                self.lost.insert(id, now);
            }
            (9, _) => {
                // The worker is killed; what runs goes on, and the next one finds it.
                self.story.push(format!("{}: {machine} is killed", self.now));
                let at = &mut self.machines[machine];
                at.depot = Depot::new(at.blobs.clone(), 1 << 30);
                at.live.iter().for_each(|id| at.depot.begun(id));
            }
            (_, Some(one)) => {
                let id = self.machines[machine].live.remove(one);
                self.end(machine, id).await;
            }
            (_, None) => {}
        }
    }
}

#[tokio::test]
async fn nothing_older_ever_takes_the_place_of_something_newer() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    for seed in 1..=12u64 {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15), dir.path()).await;
        for _ in 0..100 {
            world.step().await;
        }
        for machine in 0..2 {
            while let Some(id) = world.machines[machine].live.pop() {
                world.now += 1;
                world.end(machine, id).await;
            }
        }
    }
}
