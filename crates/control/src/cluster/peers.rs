//! What servers of one database know of each other and ask each other about tasks on their own machines.
//!
//! Invariant: whoever asks proves that it holds the same `PITCREW_SECRET_KEY`; so a stranger who finds the address of a
//! server learns nothing from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use pitcrew_core::{RunKey, SignedDuration};
use pitcrew_exec::worker::OtherLogs;
use pitcrew_exec::worker::protocol::Manifest;
use pitcrew_exec::{Handle, LogChunk, Observation};
use pitcrew_store::{Store, StoreError};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::vault::Vault;

/// Below the address of a server; then the id of a data directory, and what is asked.
pub const ROOT: &str = "/api/pitcrew/v1/servers/homes";
/// Under which key of the settings each server writes where the tasks of its data directory can be asked about.
const HOMES: &str = "servers.homes";
/// Servers that can share one data directory, at most; older addresses are left out.
const MOST: usize = 8;
/// How often a server says that its data directory is still there, and after which time one is forgotten that nobody has.
const SAID: SignedDuration = SignedDuration::from_hours(24);
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(24 * 30);
const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(10);
/// How long bytes of a file may stand still.
const STILL: Duration = Duration::from_secs(120);
const ALIVE: Duration = Duration::from_secs(5);

/// Data directories by id.
pub type Homes = BTreeMap<String, Home>;

/// Where the tasks of a data directory can be asked about.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Said")]
pub struct Home {
    /// Addresses of servers that have it, the newest first.
    pub urls: Vec<String>,
    /// When one of them last said so, to a day; `None`: before anybody noted it.
    pub seen: Option<Timestamp>,
}

/// As it is written, and as it once was.
#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Urls(Vec<String>),
    Home { urls: Vec<String>, seen: Option<Timestamp> },
}

impl From<Said> for Home {
    fn from(said: Said) -> Home {
        match said {
            Said::Urls(urls) => Home { urls, seen: None },
            Said::Home { urls, seen } => Home { urls, seen },
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Observe {
    pub handles: Vec<Handle>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Cancel {
    pub handle: Handle,
    pub grace_ms: u64,
    /// Why its end is a loss, where nobody wants it to end.
    pub lost: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Log {
    pub handle: Handle,
    pub offset: u64,
    pub max_bytes: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct One {
    pub handle: Handle,
}

/// The files of a run, for the data directory `by`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Offer {
    pub run: RunKey,
    pub by: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Bytes {
    pub run: RunKey,
    pub sha256: String,
    /// Where they are, most likely: to look for them takes as long as the run has files.
    #[serde(default)]
    pub path: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Taken {
    pub run: RunKey,
    pub by: String,
    /// Of what was offered.
    pub digest: String,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    store: Store,
    vault: Vault,
    client: OnceLock<Client>,
    /// For answers that may take long.
    patient: OnceLock<Client>,
}

impl Peers {
    pub fn new(store: Store, vault: Vault) -> Peers {
        Peers(Arc::new(Inner { store, vault, client: OnceLock::new(), patient: OnceLock::new() }))
    }

    pub async fn homes(&self) -> Result<Homes, StoreError> {
        read(&self.0.store, HOMES).await
    }

    /// Writes down that the tasks of a data directory can be asked about there, and forgets those that nobody has had
    /// for long. Where nothing is new, nothing is written.
    pub async fn register(&self, home: &str, url: &str, now: Timestamp) -> Result<Homes, StoreError> {
        change(&self.0.store, HOMES, |homes: &mut Homes| {
            let mine = homes.entry(home.to_owned()).or_default();
            if !mine.urls.iter().any(|known| known == url) {
                mine.urls.insert(0, url.to_owned());
                mine.urls.truncate(MOST);
            }
            if mine.seen.is_none_or(|seen| now.duration_since(seen) >= SAID) {
                mine.seen = Some(now);
            }
            homes.values_mut().for_each(|home| home.seen = home.seen.or(Some(now)));
            homes.retain(|_, home| home.seen.is_some_and(|seen| now.duration_since(seen) < FORGOTTEN));
        })
        .await
    }

    /// What was given up of a data directory: it runs, or will, somewhere else.
    pub async fn given_up(&self, home: &str) -> Result<Vec<Handle>, StoreError> {
        read(&self.0.store, &gone(home)).await
    }

    pub async fn give_up(&self, home: &str, handles: &[Handle]) -> Result<(), StoreError> {
        let add = |all: &mut Vec<Handle>| {
            let fresh: Vec<Handle> = handles.iter().filter(|handle| !all.contains(handle)).cloned().collect();
            all.extend(fresh);
        };
        change(&self.0.store, &gone(home), add).await.map(drop)
    }

    /// These are ended.
    pub async fn took_back(&self, home: &str, ended: &[Handle]) -> Result<(), StoreError> {
        let keep = |all: &mut Vec<Handle>| all.retain(|handle| !ended.contains(handle));
        change(&self.0.store, &gone(home), keep).await.map(drop)
    }

    /// Notes for every other data directory that these runs are deleted, so that what it has of them goes.
    pub async fn note_deleted(&self, home: &str, runs: &[RunKey]) -> Result<(), StoreError> {
        for other in self.homes().await?.into_keys().filter(|other| other != home) {
            change(&self.0.store, &deleted(&other), |all: &mut BTreeSet<RunKey>| all.extend(runs)).await?;
        }
        Ok(())
    }

    /// Runs that are deleted, and of which the data directory may have something.
    pub async fn deleted(&self, home: &str) -> Result<BTreeSet<RunKey>, StoreError> {
        read(&self.0.store, &deleted(home)).await
    }

    pub async fn removed(&self, home: &str, runs: &BTreeSet<RunKey>) -> Result<(), StoreError> {
        let keep = |all: &mut BTreeSet<RunKey>| all.retain(|run| !runs.contains(run));
        change(&self.0.store, &deleted(home), keep).await.map(drop)
    }

    /// Whether somebody who says this word is a server of this database.
    pub fn is_one(&self, word: &str) -> bool {
        // Digests, so that the time it takes tells nothing about how much was right.
        let digest = |text: &str| Sha256::digest(text.as_bytes());
        self.word().is_ok_and(|ours| digest(&ours) == digest(word))
    }

    fn word(&self) -> anyhow::Result<String> {
        self.0.vault.word("servers ask each other")
    }

    pub async fn observe(&self, home: &str, handles: &[Handle]) -> Result<Vec<Observation>, String> {
        let answer: Vec<Observation> = self.ask(home, "observe", &Observe { handles: handles.to_vec() }).await?;
        match answer.len() == handles.len() {
            true => Ok(answer),
            false => Err("it gave an answer to another question".to_owned()),
        }
    }

    pub async fn cancel(
        &self,
        home: &str,
        handle: &Handle,
        grace: SignedDuration,
        lost: Option<&str>,
    ) -> Result<(), String> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(0);
        self.ask(home, "cancel", &Cancel { handle: handle.clone(), grace_ms, lost: lost.map(str::to_owned) }).await
    }

    pub async fn cleanup(&self, home: &str, handle: &Handle) -> Result<(), String> {
        self.ask(home, "cleanup", &One { handle: handle.clone() }).await
    }

    pub async fn log(&self, home: &str, handle: &Handle, offset: u64, max_bytes: usize) -> Result<LogChunk, String> {
        self.ask(home, "log", &Log { handle: handle.clone(), offset, max_bytes }).await
    }

    pub async fn log_size(&self, home: &str, handle: &Handle) -> Result<u64, String> {
        self.ask(home, "log-size", &One { handle: handle.clone() }).await
    }

    /// What the data directory has of a run, and the address of the server that says so; it is remembered there that `by`
    /// was told. `None`: that server lives, and somebody works with these files just now. A server that reads files takes
    /// its time, and one that hangs looks the same: whoever asks says how long that may be.
    pub async fn offer(
        &self,
        home: &str,
        run: RunKey,
        by: &str,
        patience: Duration,
    ) -> Result<Option<(String, Manifest)>, String> {
        let question = Offer { run, by: by.to_owned() };
        let (url, answer) = self.send(home, "files", &question, Some(patience)).await?;
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
            return Ok(None);
        }
        let manifest = answer.json().await.map_err(|_| unread(&url))?;
        Ok(Some((url, manifest)))
    }

    /// The bytes of a file that the server at `url` offered at this path, as they come.
    pub async fn bytes(
        &self,
        url: &str,
        home: &str,
        run: RunKey,
        sha256: &str,
        path: &str,
    ) -> Result<Response, String> {
        let question = Bytes { run, sha256: sha256.to_owned(), path: Some(path.to_owned()) };
        let answer = self.send_to(url, home, "bytes", &question, Some(STILL)).await?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            status => Err(format!("the server {url} answered with status {status}")),
        }
    }

    /// `by` has everything that was offered under this digest.
    pub async fn taken(&self, home: &str, run: RunKey, by: &str, digest: &str) -> Result<(), String> {
        self.ask(home, "taken", &Taken { run, by: by.to_owned(), digest: digest.to_owned() }).await
    }

    async fn ask<A: DeserializeOwned>(&self, home: &str, what: &str, question: &impl Serialize) -> Result<A, String> {
        let (url, answer) = self.send(home, what, question, None).await?;
        answer.json().await.map_err(|_| unread(&url))
    }

    /// The answer of any server that has the data directory, and the address of that. With `patience` for its first byte,
    /// the rest may take as long as it comes; then it may also be that the server is busy.
    async fn send(
        &self,
        home: &str,
        what: &str,
        question: &impl Serialize,
        patience: Option<Duration>,
    ) -> Result<(String, Response), String> {
        let homes = self.homes().await.map_err(|error| error.to_string())?;
        let mut why = "no server says that it has its data directory; set `advertise` on each server".to_owned();
        for url in homes.get(home).into_iter().flat_map(|home| &home.urls) {
            match self.send_to(url, home, what, question, patience).await {
                Ok(answer) => return Ok((url.clone(), answer)),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    async fn send_to(
        &self,
        url: &str,
        home: &str,
        what: &str,
        question: &impl Serialize,
        patience: Option<Duration>,
    ) -> Result<Response, String> {
        let word = self.word().map_err(|error| format!("{error:#}"))?;
        let client = self.client(patience.is_some()).map_err(|error| error.to_string())?;
        let request = client.post(format!("{url}{ROOT}/{home}/{what}")).bearer_auth(word).json(question);
        let silent = || format!("the server {url} does not answer");
        let answer = tokio::time::timeout(patience.unwrap_or(ANSWER), request.send()).await.map_err(|_| silent())?;
        let answer = answer.map_err(|error| match error.is_timeout() {
            true => silent(),
            false => format!("the server {url} cannot be reached"),
        })?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::SERVICE_UNAVAILABLE if patience.is_some() => Ok(answer),
            StatusCode::UNAUTHORIZED => Err(format!(
                "the server {url} has another key: give each server the same `{}`",
                crate::vault::SECRET_KEY
            )),
            StatusCode::CONFLICT => Err(format!("the server {url} has another data directory now")),
            status => Err(format!("the server {url} answered with status {status}")),
        }
    }

    fn client(&self, patient: bool) -> Result<&Client, reqwest::Error> {
        let kept = if patient { &self.0.patient } else { &self.0.client };
        if let Some(client) = kept.get() {
            return Ok(client);
        }
        let client = Client::builder().redirect(Policy::none()).no_proxy().connect_timeout(CONNECT);
        let client = match patient {
            // Each part may take its time, all of them as long as they take; a machine that is gone is noticed.
            true => {
                client.read_timeout(STILL).tcp_keepalive(ALIVE).tcp_keepalive_interval(ALIVE).tcp_keepalive_retries(4)
            }
            false => client.timeout(ANSWER),
        };
        let client = client.build()?;
        Ok(kept.get_or_init(|| client))
    }
}

/// What a server that led before has of the logs of workers.
#[async_trait]
impl OtherLogs for Peers {
    async fn log(&self, home: &str, handle: &Handle, offset: u64, max_bytes: usize) -> Result<LogChunk, String> {
        Peers::log(self, home, handle, offset, max_bytes).await
    }

    async fn log_size(&self, home: &str, handle: &Handle) -> Result<u64, String> {
        Peers::log_size(self, home, handle).await
    }
}

fn unread(url: &str) -> String {
    format!("the answer of the server {url} cannot be read")
}

fn gone(home: &str) -> String {
    format!("servers.gone.{home}")
}

fn deleted(home: &str) -> String {
    format!("servers.deleted.{home}")
}

/// What cannot be read is as good as not there: it is written anew by those whom it is about.
fn parsed<T: DeserializeOwned + Default>(text: Option<&str>) -> T {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

async fn read<T: DeserializeOwned + Default>(store: &Store, key: &str) -> Result<T, StoreError> {
    Ok(parsed(store.setting(key).await?.as_deref()))
}

/// Changes a value; of changes at the same moment none is lost. Gives what then is.
async fn change<T: DeserializeOwned + Default + Serialize>(
    store: &Store,
    key: &str,
    how: impl Fn(&mut T),
) -> Result<T, StoreError> {
    loop {
        let before = store.setting(key).await?;
        let mut value: T = parsed(before.as_deref());
        how(&mut value);
        // Names, texts and numbers: nothing that JSON cannot hold.
        let after = serde_json::to_string(&value).expect("it is always valid JSON");
        if before.as_deref() == Some(after.as_str()) || store.swap_setting(key, before.as_deref(), &after).await? {
            return Ok(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use pitcrew_store::StoreUrl;

    use super::*;
    use crate::paths::DataDir;

    fn vault() -> (tempfile::TempDir, Vault) {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(&DataDir::open(dir.path()).unwrap(), &|_| None).unwrap();
        (dir, vault)
    }

    #[tokio::test]
    async fn data_directories_are_forgotten_when_nobody_has_had_them_for_long() {
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        store.put_setting(HOMES, r#"{"old":["http://a"],"mine":["http://b"]}"#).await.unwrap();
        let (_dir, vault) = vault();
        let peers = Peers::new(store.clone(), vault);
        let day = |day: i64| Timestamp::from_second(1_700_000_000 + day * 86_400).unwrap();
        let homes = peers.register("mine", "http://c", day(0)).await.unwrap();
        assert_eq!(homes["mine"].urls, ["http://c", "http://b"]);
        assert_eq!(homes["old"], Home { urls: vec!["http://a".to_owned()], seen: Some(day(0)) });
        // Within a day there is nothing to write.
        let written = store.setting(HOMES).await.unwrap();
        peers.register("mine", "http://b", day(0) + SignedDuration::from_hours(23)).await.unwrap();
        assert_eq!(store.setting(HOMES).await.unwrap(), written);
        peers.register("mine", "http://b", day(29)).await.unwrap();
        let homes = peers.register("mine", "http://b", day(31)).await.unwrap();
        assert!(homes.keys().eq(["mine"]), "{homes:?}");
    }

    #[tokio::test]
    async fn of_changes_at_the_same_moment_none_is_lost() {
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        let (_dir, vault) = vault();
        let peers = Peers::new(store, vault);
        peers.register("one", "http://a", Timestamp::UNIX_EPOCH).await.unwrap();
        peers.register("two", "http://b", Timestamp::UNIX_EPOCH).await.unwrap();
        let noting = (0..20).map(|run| {
            let peers = peers.clone();
            tokio::spawn(async move { peers.note_deleted("one", &[RunKey(run)]).await.unwrap() })
        });
        for noted in futures::future::join_all(noting).await {
            noted.unwrap();
        }
        assert_eq!(peers.deleted("two").await.unwrap().len(), 20);
        assert_eq!(peers.deleted("one").await.unwrap().len(), 0);
        peers.removed("two", &(1..20).map(RunKey).collect()).await.unwrap();
        assert_eq!(peers.deleted("two").await.unwrap(), BTreeSet::from([RunKey(0)]));
    }
}
