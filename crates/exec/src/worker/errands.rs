//! What the server wants done on the machine of a worker, beside attempts: a check, a look, a reset, a reboot.
//!
//! An errand is a script with a name of its own, done once by that name: before it begins it is written down, and synced; how
//! it ended is told until the server says that it heard of it, and remembered long after, so whatever comes late or twice
//! finds it done. What changes nothing is neither written down nor remembered. Of one that was under way when the worker ended it is said that nobody knows. Repairs are done where the
//! owner of the machine allowed them, and are refused, for certain, everywhere else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::protocol::{Errand, ErrandDone, ErrandEnd};
use crate::limited::limited;
use crate::whole;

/// What every worker does that knows errands at all: it changes nothing.
pub const ASK: &str = "ask";
pub const RESET_GPU: &str = "reset_gpu";
pub const REBOOT: &str = "reboot";
/// Errands that are remembered.
const MOST: usize = 128;
/// Bytes that are kept of what one prints.
const MOST_TEXT: u64 = 1 << 20;
const LONGEST: Duration = Duration::from_secs(3600);

/// Those of a worker.
pub struct Errands {
    dir: PathBuf,
    /// Kinds that it does.
    may: Vec<String>,
    known: BTreeMap<String, Known>,
    order: u64,
    ended: mpsc::UnboundedSender<ErrandDone>,
}

struct Known {
    order: u64,
    end: Option<ErrandEnd>,
    is_heard: bool,
}

/// In a file.
#[derive(Serialize, Deserialize)]
struct Kept {
    id: String,
    order: u64,
    end: Option<ErrandEnd>,
}

impl Errands {
    /// With what an earlier process did, or began.
    pub fn open(dir: &Path, may: &[String], ended: mpsc::UnboundedSender<ErrandDone>) -> std::io::Result<Errands> {
        std::fs::create_dir_all(dir)?;
        let mut known = BTreeMap::new();
        for entry in std::fs::read_dir(dir)?.flatten() {
            let Ok(bytes) = std::fs::read(entry.path()) else { continue };
            let Ok(Kept { id, order, end }) = serde_json::from_slice(&bytes) else { continue };
            let why = "its worker, or its machine, ended while it was under way".to_owned();
            let end = end.or(Some(ErrandEnd::NotRun { why, certain: false }));
            known.insert(id, Known { order, end, is_heard: false });
        }
        let order = known.values().map(|known| known.order).max().unwrap_or(0);
        Ok(Errands { dir: dir.to_owned(), may: may.to_vec(), known, order, ended })
    }

    /// Begins what is new.
    pub fn take(&mut self, errands: Vec<Errand>) {
        for errand in errands {
            if self.known.contains_key(&errand.id) {
                continue;
            }
            self.order += 1;
            self.known.insert(errand.id.clone(), Known { order: self.order, end: None, is_heard: false });
            let why = match self.may.contains(&errand.kind) {
                true if errand.kind == ASK => None,
                true => self.keep(&errand.id, None).err().map(|error| format!("it cannot be written down: {error}")),
                false => Some(format!(
                    "this worker does no `{}`: `pitcrew worker --allow-repair` allows resets and reboots",
                    errand.kind
                )),
            };
            let ended = self.ended.clone();
            match why {
                Some(why) => {
                    drop(ended.send(ErrandDone { id: errand.id, end: ErrandEnd::NotRun { why, certain: true } }));
                }
                None => drop(tokio::spawn(async move {
                    let end = run(&errand.script, Duration::from_millis(errand.within_ms).min(LONGEST)).await;
                    // Nobody listens when the worker ends; the next one finds it begun.
                    let _ = ended.send(ErrandDone { id: errand.id, end });
                })),
            }
        }
        self.forget();
    }

    pub fn ended(&mut self, done: ErrandDone) {
        let is_kept = self.file(&done.id).exists();
        if is_kept && let Err(error) = self.keep(&done.id, Some(&done.end)) {
            tracing::warn!("cannot write down how an errand ended: {error}");
        }
        if let Some(known) = self.known.get_mut(&done.id) {
            known.end = Some(done.end);
        }
    }

    /// The server knows how these ended.
    pub fn heard(&mut self, ids: &[String]) {
        for id in ids {
            // Under a name of its own each time, what changes nothing is never asked for again.
            if !self.file(id).exists() {
                self.known.remove(id);
            } else if let Some(known) = self.known.get_mut(id) {
                known.is_heard = true;
            }
        }
    }

    /// What the server has to hear.
    pub fn news(&self) -> Vec<ErrandDone> {
        let unheard = self.known.iter().filter(|(_, known)| !known.is_heard);
        unheard.filter_map(|(id, known)| Some(ErrandDone { id: id.clone(), end: known.end.clone()? })).collect()
    }

    fn file(&self, id: &str) -> PathBuf {
        let digest: String = Sha256::digest(id).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(format!("{digest}.json"))
    }

    fn keep(&self, id: &str, end: Option<&ErrandEnd>) -> std::io::Result<()> {
        let order = self.known.get(id).map_or(0, |known| known.order);
        whole::write(&self.file(id), &serde_json::to_vec(&Kept { id: id.to_owned(), order, end: end.cloned() })?)?;
        // The name of the file as well: the next thing that happens may be a reboot.
        std::fs::File::open(&self.dir)?.sync_all()
    }

    /// The oldest that are over.
    fn forget(&mut self) {
        while self.known.len() > MOST {
            let over = self.known.iter().filter(|(_, known)| known.end.is_some() && known.is_heard);
            let Some(id) = over.min_by_key(|(_, known)| known.order).map(|(id, _)| id.clone()) else { return };
            self.known.remove(&id);
            let _ = std::fs::remove_file(self.file(&id));
        }
    }
}

async fn run(script: &str, within: Duration) -> ErrandEnd {
    let late = || ErrandEnd::NotRun { why: format!("it took longer than {} s", within.as_secs()), certain: false };
    tokio::time::timeout(within, shell(&limited(script, within))).await.unwrap_or_else(|_| late())
}

async fn shell(script: &str) -> ErrandEnd {
    let child = tokio::process::Command::new("/bin/sh")
        .arg("-s")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return ErrandEnd::NotRun { why: format!("`/bin/sh` cannot be run: {error}"), certain: true },
    };
    let input = child.stdin.take();
    let write = async {
        if let Some(mut input) = input {
            // A script that wants no more input has its reasons; its end tells them.
            let _ = input.write_all(script.as_bytes()).await;
        }
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ((), stdout, stderr) = tokio::join!(write, text_of(stdout), text_of(stderr));
    match child.wait().await {
        Ok(status) => ErrandEnd::Ran { code: status.code(), stdout, stderr },
        Err(error) => ErrandEnd::NotRun { why: error.to_string(), certain: false },
    }
}

async fn text_of(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What came before an error is still something; and what is too much is read, so that nobody waits.
        let _ = (&mut pipe).take(MOST_TEXT).read_to_end(&mut bytes).await;
        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errand(id: &str, kind: &str, script: &str) -> Errand {
        Errand { id: id.to_owned(), kind: kind.to_owned(), script: script.to_owned(), within_ms: 60_000 }
    }

    fn open(dir: &Path, may: &[&str]) -> (Errands, mpsc::UnboundedReceiver<ErrandDone>) {
        let (sender, ended) = mpsc::unbounded_channel();
        let may: Vec<String> = may.iter().map(|kind| (*kind).to_owned()).collect();
        (Errands::open(dir, &may, sender).unwrap(), ended)
    }

    #[tokio::test]
    async fn an_errand_is_done_once_whatever_is_said_how_often() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("done");
        let (mut errands, mut ended) = open(&dir.path().join("kept"), &[ASK, REBOOT]);
        let reboot = errand("inc-1/s21/3", REBOOT, &format!("echo x >>'{}'; echo told; exit 3", file.display()));
        errands.take(vec![reboot.clone(), reboot.clone()]);
        assert!(errands.news().is_empty(), "it is under way");
        errands.ended(ended.recv().await.unwrap());
        let news = errands.news();
        let end = ErrandEnd::Ran { code: Some(3), stdout: "told\n".to_owned(), stderr: String::new() };
        assert_eq!(news, [ErrandDone { id: "inc-1/s21/3".to_owned(), end }]);
        errands.heard(&["inc-1/s21/3".to_owned()]);
        errands.take(vec![reboot.clone()]);
        assert!(errands.news().is_empty());
        // Also by the next process, which tells it once more.
        let (mut errands, _ended) = open(&dir.path().join("kept"), &[ASK, REBOOT]);
        errands.take(vec![reboot]);
        assert_eq!(errands.news(), news);
        assert_eq!(std::fs::read_to_string(file).unwrap(), "x\n");
    }

    #[tokio::test]
    async fn of_one_that_was_under_way_nobody_knows_and_it_is_not_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("done");
        let wait = errand("a", REBOOT, &format!("echo x >>'{}'; exec sleep 1000", file.display()));
        let (mut errands, _ended) = open(&dir.path().join("kept"), &[REBOOT]);
        errands.take(vec![wait.clone()]);
        let (mut errands, _ended) = open(&dir.path().join("kept"), &[REBOOT]);
        errands.take(vec![wait]);
        let [ErrandDone { end: ErrandEnd::NotRun { certain: false, .. }, .. }] = &errands.news()[..] else {
            panic!("{:?}", errands.news())
        };
    }

    #[tokio::test]
    async fn what_is_not_allowed_is_refused_for_certain() {
        let dir = tempfile::tempdir().unwrap();
        let (mut errands, mut ended) = open(dir.path(), &[ASK]);
        errands.take(vec![errand("a", RESET_GPU, "exit 0")]);
        let ErrandEnd::NotRun { why, certain: true } = ended.recv().await.unwrap().end else { panic!() };
        assert!(why.contains("--allow-repair"), "{why}");
    }
}
