//! Parts on hosts that were away when their transfer ended. They are removed when those hosts can be reached again.
//!
//! Invariant: what is to be removed is one file here from before the attempt is over until it is gone there. Its name on
//! the host is that of an attempt that is over, so nobody writes it any more.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::Failure;
use super::sftp::{Refused, Session};
use crate::place::SshPlace;
use crate::ssh::remote::{Hosts, marks};

/// Between two tries, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Left {
    place: SshPlace,
    path: String,
}

/// Those of this store; dropping it puts them off until the next server.
pub struct Leftovers {
    dir: PathBuf,
    hosts: Arc<dyn Hosts>,
    poke: Arc<Notify>,
    task: Mutex<Option<AbortHandle>>,
}

impl Leftovers {
    /// Begins to remove what an earlier server left.
    pub fn new(dir: PathBuf, hosts: Arc<dyn Hosts>) -> Leftovers {
        let leftovers = Leftovers { dir, hosts, poke: Arc::default(), task: Mutex::default() };
        if !all(&leftovers.dir).is_empty() {
            leftovers.remove_soon();
        }
        leftovers
    }

    /// Has a part removed; `name` is that of the attempt.
    pub fn add(&self, name: &str, place: &SshPlace, path: &str) -> io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        let left = Left { place: place.clone(), path: path.to_owned() };
        marks::write(&self.dir, &format!("{name}.json"), &left)?;
        self.remove_soon();
        Ok(())
    }

    fn remove_soon(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        let sweep = || tokio::spawn(sweep(self.dir.clone(), self.hosts.clone(), self.poke.clone())).abort_handle();
        task.get_or_insert_with(sweep);
        self.poke.notify_one();
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

async fn sweep(dir: PathBuf, hosts: Arc<dyn Hosts>, poke: Arc<Notify>) {
    let mut pause = PAUSE.0;
    poke.notified().await;
    loop {
        let mut is_idle = true;
        for file in all(&dir) {
            let Ok(Some(left)) = marks::read::<Left>(&file) else { continue };
            let patience = Duration::from_secs(left.place.timeout_s.into()) * 2;
            match tokio::time::timeout(patience, remove(&*hosts, &left)).await {
                Ok(Ok(())) => {
                    let _ = std::fs::remove_file(&file);
                    pause = PAUSE.0;
                }
                Ok(Err(Failure::Lasting(words) | Failure::Passing(words))) => {
                    tracing::warn!("`{}` is left on `{}`: {words}", left.path, left.place);
                }
                Ok(Err(Failure::Link(_))) | Err(_) => is_idle = false,
            }
        }
        // What cannot be removed is tried again with the next one, or by the next server.
        if is_idle {
            poke.notified().await;
            pause = PAUSE.0;
        } else {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}

async fn remove(hosts: &dyn Hosts, left: &Left) -> Result<(), Failure> {
    let host = left.place.to_string();
    let what = format!("remove `{}`", left.path);
    let session = Session::open(hosts.sftp(&left.place).await?, &host).await.map_err(|e| e.to(&what, &host))?;
    session.remove(&left.path).await.map_err(|e: Refused| e.to(&what, &host))
}

fn all(dir: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    names.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json")).collect()
}
