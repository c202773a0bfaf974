//! One transfer, over as many connections as it takes: what it knows between them, and what it asks the host for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use super::sftp::{Kind, Refused, Session, Space};
use super::tree::{self, Tree};
use super::{Failure, Moved, digest, download, hex, size, upload};
use crate::local::blocking;
use crate::place::SshPlace;
use crate::spec::{Direction, Transfer};
use crate::ssh::remote::{Hosts, script};

/// Connections that are lost one after the other, without anything moved, before it is given up.
const TRIES: u32 = 5;
/// Files of a directory that are named in the log.
const NAMED: usize = 200;

/// What a transfer goes by; it is kept until it is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub transfer: Transfer,
    /// As [`crate::AttemptSpec::workdir`].
    pub workdir: PathBuf,
    pub begun: Timestamp,
}

/// See the module.
pub struct Job {
    pub hosts: Arc<dyn Hosts>,
    pub place: SshPlace,
    pub order: Order,
    /// That of the attempt on the host.
    pub name: String,
    /// Of the run on the host.
    pub workspace: String,
    /// Of the attempt, here.
    pub dir: PathBuf,
    pub progress: Progress,
    /// For the log.
    pub lines: UnboundedSender<String>,
    /// This host has no shell, or no program for digests.
    has_no_digest: AtomicBool,
    session: Mutex<Option<Arc<Session>>>,
    plan: tokio::sync::Mutex<Option<Plan>>,
}

/// What is to be moved, and how far that is.
struct Plan {
    tree: Tree,
    there: String,
    here: PathBuf,
    moved: Vec<Moved>,
}

/// What it came to.
#[derive(Debug, Serialize)]
pub struct Summary {
    bytes: u64,
    sha256: String,
    files: usize,
    /// Files that were there already.
    unchanged: usize,
    resumed_bytes: u64,
    seconds: f64,
}

/// Counts bytes.
#[derive(Default)]
pub struct Progress {
    total: AtomicU64,
    /// Of files that are there.
    settled: AtomicU64,
    /// Of the file that is under way.
    current: AtomicU64,
    files: AtomicU64,
}

impl Progress {
    /// So much of a file is there.
    pub fn go_on_at(&self, offset: u64) {
        self.current.store(offset, Relaxed);
    }

    pub fn moved(&self, bytes: u64) {
        self.current.fetch_add(bytes, Relaxed);
    }

    fn settle(&self, bytes: u64) {
        self.current.store(0, Relaxed);
        self.settled.fetch_add(bytes, Relaxed);
        self.files.fetch_add(1, Relaxed);
    }

    pub fn done(&self) -> u64 {
        self.settled.load(Relaxed) + self.current.load(Relaxed)
    }

    /// A line for the log, if more was done than `before`, in so much time.
    pub fn line(&self, before: u64, time: Duration) -> Option<String> {
        let (done, total) = (self.done(), self.total.load(Relaxed));
        let rate = done.checked_sub(before).filter(|more| *more > 0)? as f64 / time.as_secs_f64().max(0.001);
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100).min(100);
        Some(format!("{} of {} ({percent} %), {}/s", size(done), size(total), size(rate as u64)))
    }
}

impl Job {
    pub fn new(
        hosts: Arc<dyn Hosts>,
        place: SshPlace,
        order: Order,
        (name, workspace): (String, String),
        dir: PathBuf,
        lines: UnboundedSender<String>,
    ) -> Job {
        Job {
            hosts,
            place,
            order,
            name,
            workspace,
            dir,
            lines,
            progress: Progress::default(),
            has_no_digest: AtomicBool::new(false),
            session: Mutex::default(),
            plan: tokio::sync::Mutex::default(),
        }
    }

    /// The host, for messages.
    pub fn host(&self) -> String {
        self.place.to_string()
    }

    pub fn mode(&self) -> Option<u32> {
        self.order.transfer.mode
    }

    fn say(&self, line: impl Into<String>) {
        let _ = self.lines.send(line.into());
    }

    /// Moves all of it, over as many connections as it takes.
    pub async fn carry_out(&self) -> Result<Summary, Failure> {
        let (mut tries, mut best) = (0, 0);
        loop {
            let words = match self.go_on().await {
                Ok(summary) => return Ok(summary),
                Err(Failure::Link(words)) => words,
                Err(failure) => return Err(failure),
            };
            *self.lock() = None;
            let reached = self.progress.done() + self.progress.files.load(Relaxed);
            if reached > best {
                (tries, best) = (0, reached);
            }
            tries += 1;
            if tries >= TRIES {
                return Err(Failure::Passing(format!("{words}; given up after {TRIES} tries without progress")));
            }
            // So that all of them outlast what one connect may take.
            let pause = Duration::from_secs(self.place.timeout_s.into()) / 10 * (1 << (tries - 1));
            self.say(format!("{words}; going on in {:.1} s", pause.as_secs_f64()));
            tokio::time::sleep(pause).await;
        }
    }

    /// Goes on where the last connection ended.
    async fn go_on(&self) -> Result<Summary, Failure> {
        let session = self.connect().await?;
        let mut plan = self.plan.lock().await;
        let plan = match &mut *plan {
            Some(plan) => {
                self.say(format!("connected again, going on with {} done", size(self.progress.done())));
                plan
            }
            empty => {
                let made = self.plan(&session).await?;
                self.announce(&made);
                empty.insert(made)
            }
        };
        self.make_dirs(&session, plan).await?;
        while let Some(item) = plan.tree.files.get(plan.moved.len()) {
            let (there, here) = (tree::joined(&plan.there, &item.name), tree::beneath(&plan.here, &item.name));
            let moved = match self.order.transfer.direction {
                Direction::Upload => upload::send(self, &session, &here, &there).await?,
                Direction::Download => download::fetch(self, &session, &there, &here).await?,
            };
            self.progress.settle(moved.bytes);
            if plan.moved.len() < NAMED {
                let name = if plan.tree.is_file { tree::last(&there) } else { &item.name };
                let what = match (moved.is_same, moved.resumed) {
                    (true, _) => "unchanged".to_owned(),
                    (false, 0) => size(moved.bytes),
                    (false, resumed) => format!("{}, {} of it before", size(moved.bytes), size(resumed)),
                };
                self.say(format!("`{name}`: {what}, SHA-256 {}", moved.sha256));
            }
            plan.moved.push(moved);
        }
        Ok(self.summary(plan))
    }

    async fn connect(&self) -> Result<Arc<Session>, Failure> {
        let stream = self.hosts.sftp(&self.place).await?;
        let host = self.host();
        let session = Session::open(stream, &host).await.map_err(|e| e.to("serve files", &host))?;
        let session = Arc::new(session);
        *self.lock() = Some(session.clone());
        Ok(session)
    }

    async fn plan(&self, session: &Session) -> Result<Plan, Failure> {
        let (host, transfer) = (self.host(), &self.order.transfer);
        let target = tree::target(&transfer.there, &session.home, &self.workspace, &self.place, &self.order.workdir);
        let (mut there, there_is_dir) = target.map_err(Failure::Lasting)?;
        let mut here = transfer.here.clone();
        let tree = match transfer.direction {
            Direction::Upload => {
                let root = here.clone();
                let tree = blocking(move || Ok(tree::here(&root))).await.unwrap_or_else(|e| Err(self.unwritten(&e)))?;
                let found = session.stat(&there).await.map_err(|e| e.to(&format!("look at `{there}`"), &host))?;
                let into = tree.is_file && found.is_some_and(|found| found.kind == Kind::Directory);
                if there_is_dir || into {
                    let name = here.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
                        Failure::Lasting(format!("`{}` has no name of its own: write one after `to`", here.display()))
                    })?;
                    there = tree::joined(&there, name);
                }
                tree
            }
            Direction::Download => {
                let tree = tree::there(session, &there, &host).await?;
                if tree::is_dir(&here) || (tree.is_file && here.is_dir()) {
                    here.push(tree::last(&there));
                }
                tree
            }
        };
        self.progress.total.store(tree.bytes(), Relaxed);
        Ok(Plan { tree, there, here, moved: Vec::new() })
    }

    fn announce(&self, plan: &Plan) {
        let (there, here) = (format!("`{}` on `{}`", plan.there, self.place), format!("`{}`", plan.here.display()));
        let (from, to) = match self.order.transfer.direction {
            Direction::Upload => (here, there),
            Direction::Download => (there, here),
        };
        let what = match plan.tree.is_file {
            true => size(plan.tree.bytes()),
            false => format!("{} files, {}", plan.tree.files.len(), size(plan.tree.bytes())),
        };
        self.say(format!("{from} ({what}) to {to}"));
        plan.tree.left_out.iter().take(NAMED).for_each(|line| self.say(line.as_str()));
    }

    /// Makes the directories of the target.
    async fn make_dirs(&self, session: &Session, plan: &Plan) -> Result<(), Failure> {
        let host = self.host();
        let root = |path: &str| if plan.tree.is_file { upload::above(path).to_owned() } else { path.to_owned() };
        if self.order.transfer.direction == Direction::Download {
            let root = match plan.tree.is_file {
                true => plan.here.parent().map(Path::to_owned).unwrap_or_default(),
                false => plan.here.clone(),
            };
            let dirs: Vec<PathBuf> = plan.tree.dirs.iter().map(|name| plan.here.join(name)).collect();
            let about = root.clone();
            let made = blocking(move || std::iter::once(&root).chain(&dirs).try_for_each(std::fs::create_dir_all));
            return made.await.map_err(|e| download::unwritten(&about, &e));
        }
        let cannot = |path: &str, e: Refused| e.to(&format!("make the directory `{path}`"), &host);
        if self.place.workdir.is_none() {
            // As the keeper makes it: nobody else's business.
            let base = format!("{}/.pitcrew", session.home);
            session.make_dir(&base, Some(0o700)).await.map_err(|e| cannot(&base, e))?;
        }
        session.make_dirs(&root(&plan.there), &host).await?;
        for name in &plan.tree.dirs {
            let path = tree::joined(&plan.there, name);
            session.make_dir(&path, None).await.map_err(|e| cannot(&path, e))?;
        }
        Ok(())
    }

    fn summary(&self, plan: &Plan) -> Summary {
        let sum = |of: fn(&Moved) -> u64| plan.moved.iter().map(of).sum();
        let sha256 = match (plan.tree.is_file, plan.moved.first()) {
            (true, Some(moved)) => moved.sha256.clone(),
            // That of what `sha256sum` would say of them, in this order.
            _ => {
                let mut digest = digest();
                for (item, moved) in plan.tree.files.iter().zip(&plan.moved) {
                    digest.update(format!("{}  {}\n", moved.sha256, item.name).as_bytes());
                }
                hex(digest)
            }
        };
        let time = crate::clock::now().duration_since(self.order.begun).as_secs_f64();
        Summary {
            bytes: sum(|moved| moved.bytes),
            sha256,
            files: plan.moved.len(),
            unchanged: plan.moved.iter().filter(|moved| moved.is_same).count(),
            resumed_bytes: sum(|moved| moved.resumed),
            seconds: (time.max(0.0) * 1000.0).round() / 1000.0,
        }
    }

    /// The SHA-256 of a file on the host, or of its first bytes; `None`: the host has no shell, or no program for it.
    pub async fn digest_there(&self, path: &str, first: Option<u64>) -> Result<Option<String>, Failure> {
        if self.has_no_digest.load(Relaxed) {
            return Ok(None);
        }
        let errand = script::digest_file(path, first);
        let found = match self.hosts.run(&self.place, &errand.command, &errand.input).await {
            Ok(ran) => script::digest_of(&ran.stdout, &errand.mark),
            // No command is run for this user.
            Err(e) if e.lasting => None,
            Err(e) => return Err(e.into()),
        };
        self.has_no_digest.store(found.is_none(), Relaxed);
        Ok(found)
    }

    /// The SHA-256 of a file on the host, by reading it where there is no other way.
    pub async fn whole_digest_there(&self, session: &Session, path: &str, length: u64) -> Result<String, Failure> {
        if let Some(found) = self.digest_there(path, None).await? {
            return Ok(found);
        }
        self.say(format!("`{}` has no `sha256sum`: reading the file back", self.place.host));
        let read = download::digest_by_reading(session, path, length).await;
        read.map_err(|e| e.to(&format!("read `{path}`"), &self.host()))
    }

    /// Puts a part in the place of its file.
    pub async fn replace_there(&self, session: &Session, part: &str, to: &str) -> Result<(), Failure> {
        let host = self.host();
        let cannot = |e: Refused| e.to(&format!("replace `{to}`"), &host);
        if session.replace(part, to).await.map_err(cannot)? {
            return Ok(());
        }
        let errand = script::replace(part, to);
        match self.hosts.run(&self.place, &errand.command, &errand.input).await {
            Ok(ran) if script::is_done(&ran.stdout, &errand.mark) => Ok(()),
            Err(e) if !e.lasting => Err(e.into()),
            // Never a moment without a file at the target, so no removal first.
            Ok(_) | Err(_) => session.rename(part, to).await.map_err(cannot),
        }
    }

    /// Removes a file of the host.
    pub async fn remove_there(&self, path: &str) -> Result<(), Failure> {
        // First in the session that wrote it: what is still on its way comes before. It may hang, and then another does.
        let mut failure = Failure::Link("it does not answer".to_owned());
        let kept = self.lock().take();
        for session in [kept, None] {
            let remove = async {
                let session = match session {
                    Some(session) => session,
                    None => self.connect().await?,
                };
                session.remove(path).await.map_err(|e| e.to(&format!("remove `{path}`"), &self.host()))
            };
            match tokio::time::timeout(Duration::from_secs(self.place.timeout_s.into()), remove).await {
                Ok(Err(Failure::Link(words))) => failure = Failure::Link(words),
                Ok(other) => return other,
                Err(_) => {}
            }
        }
        Err(failure)
    }

    /// The host has no room for it.
    pub fn full(&self, dir: &str, space: Space, needed: u64) -> Failure {
        Failure::Lasting(format!(
            "the disk of `{}` is full (`{dir}`: {} free of {}, {} needed): free space there, then `pitcrew retry`",
            self.place,
            size(space.free),
            size(space.total),
            size(needed)
        ))
    }

    /// The directory of the attempt cannot be used.
    pub fn unwritten(&self, e: &io::Error) -> Failure {
        Failure::Passing(format!("cannot write in `{}`: {e}", self.dir.display()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Session>>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_when_there_is_some() {
        let progress = Progress::default();
        progress.total.store(4 << 20, Relaxed);
        assert_eq!(progress.line(0, Duration::from_secs(5)), None);
        progress.settle(1 << 20);
        progress.go_on_at(1 << 20);
        progress.moved(512 << 10);
        assert_eq!(progress.line(0, Duration::from_secs(5)).unwrap(), "2.5 MiB of 4.0 MiB (62 %), 512.0 KiB/s");
        // A file that is begun anew is no progress, nor is one that grew beyond what it was.
        let done = progress.done();
        progress.go_on_at(0);
        assert_eq!(progress.line(done, Duration::from_secs(5)), None);
        progress.moved(9 << 20);
        assert!(progress.line(done, Duration::ZERO).unwrap().contains("(100 %)"));
    }
}
