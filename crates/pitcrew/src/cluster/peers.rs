//! What servers of one database know of each other and ask each other about tasks on their own machines.
//!
//! Invariant: whoever asks proves that it holds the same `PITCREW_SECRET_KEY`; so a stranger who finds the address of a
//! server learns nothing from it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pitcrew_core::SignedDuration;
use pitcrew_exec::{Handle, LogChunk, Observation};
use pitcrew_store::{Store, StoreError};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
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
const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(10);

/// Data directories by id, with the addresses of servers that have them.
pub type Homes = BTreeMap<String, Vec<String>>;

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

/// Cheap to clone.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    store: Store,
    vault: Vault,
    client: OnceLock<Client>,
}

impl Peers {
    pub fn new(store: Store, vault: Vault) -> Peers {
        Peers(Arc::new(Inner { store, vault, client: OnceLock::new() }))
    }

    pub async fn homes(&self) -> Result<Homes, StoreError> {
        read(&self.0.store, HOMES).await
    }

    /// Writes down that the tasks of a data directory can be asked about there. Who writes at the same moment may undo
    /// it; so it is looked after now and then.
    pub async fn register(&self, home: &str, url: &str) -> Result<Homes, StoreError> {
        let mut homes = self.homes().await?;
        let urls = homes.entry(home.to_owned()).or_default();
        if !urls.iter().any(|known| known == url) {
            urls.insert(0, url.to_owned());
            urls.truncate(MOST);
            write(&self.0.store, HOMES, &homes).await?;
        }
        Ok(homes)
    }

    /// What was given up of a data directory: it runs, or will, somewhere else.
    pub async fn given_up(&self, home: &str) -> Result<Vec<Handle>, StoreError> {
        read(&self.0.store, &gone(home)).await
    }

    pub async fn give_up(&self, home: &str, handles: &[Handle]) -> Result<(), StoreError> {
        let mut all = self.given_up(home).await?;
        all.extend_from_slice(handles);
        write(&self.0.store, &gone(home), &all).await
    }

    /// These are ended.
    pub async fn took_back(&self, home: &str, ended: &[Handle]) -> Result<(), StoreError> {
        let mut all = self.given_up(home).await?;
        all.retain(|handle| !ended.contains(handle));
        write(&self.0.store, &gone(home), &all).await
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

    /// The answer of any server that has the data directory.
    async fn ask<A: DeserializeOwned>(&self, home: &str, what: &str, question: &impl Serialize) -> Result<A, String> {
        let homes = self.homes().await.map_err(|error| error.to_string())?;
        let mut why = "no server says that it has its data directory; set `advertise` on each server".to_owned();
        for url in homes.get(home).into_iter().flatten() {
            match self.ask_at(url, home, what, question).await {
                Ok(answer) => return Ok(answer),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    async fn ask_at<A: DeserializeOwned>(
        &self,
        url: &str,
        home: &str,
        what: &str,
        question: &impl Serialize,
    ) -> Result<A, String> {
        let word = self.word().map_err(|error| format!("{error:#}"))?;
        let client = self.client().map_err(|error| error.to_string())?;
        let request = client.post(format!("{url}{ROOT}/{home}/{what}")).bearer_auth(word).json(question);
        let answer = request.send().await.map_err(|error| match error.is_timeout() {
            true => format!("the server {url} does not answer"),
            false => format!("the server {url} cannot be reached"),
        })?;
        match answer.status() {
            StatusCode::OK => answer.json().await.map_err(|_| format!("the answer of the server {url} cannot be read")),
            StatusCode::UNAUTHORIZED => Err(format!(
                "the server {url} has another key: give each server the same `{}`",
                crate::vault::SECRET_KEY
            )),
            StatusCode::CONFLICT => Err(format!("the server {url} has another data directory now")),
            status => Err(format!("the server {url} answered with status {status}")),
        }
    }

    fn client(&self) -> Result<&Client, reqwest::Error> {
        if let Some(client) = self.0.client.get() {
            return Ok(client);
        }
        let client =
            Client::builder().redirect(Policy::none()).no_proxy().connect_timeout(CONNECT).timeout(ANSWER).build()?;
        Ok(self.0.client.get_or_init(|| client))
    }
}

fn gone(home: &str) -> String {
    format!("servers.gone.{home}")
}

/// What cannot be read is as good as not there: it is written anew by those whom it is about.
async fn read<T: DeserializeOwned + Default>(store: &Store, key: &str) -> Result<T, StoreError> {
    let text = store.setting(key).await?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

async fn write<T: Serialize>(store: &Store, key: &str, value: &T) -> Result<(), StoreError> {
    // Names, texts and numbers: nothing that JSON cannot hold.
    let text = serde_json::to_string(value).expect("it is always valid JSON");
    store.put_setting(key, &text).await
}
