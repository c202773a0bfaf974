//! Containers of an engine: made, begun, followed, ended and removed.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::{Value, json};

use super::exec::Output;
use super::fault::{Fault, Kind};
use super::frames::Frames;
use super::tar::{self, Entry};
use super::{Engine, PATIENCE, escaped};

/// How long files may take on their way.
const MOVING: Duration = Duration::from_secs(600);
/// Bits of the mode of a file, as engines count them.
const IS_DIRECTORY: u32 = 1 << 31;
const IS_LINK: u32 = 1 << 27;

/// A container, as far as anybody here asks.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    pub id: String,
    /// With a `/` in front.
    pub name: String,
    pub state: State,
    #[serde(default)]
    network_settings: Network,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct State {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub status: String,
    #[serde(default)]
    pub running: bool,
    #[serde(default)]
    pub exit_code: i64,
    /// Something in it was ended because it had no memory left.
    #[serde(default, rename = "OOMKilled")]
    pub out_of_memory: bool,
    /// What the engine says went wrong.
    #[serde(default)]
    pub error: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Network {
    #[serde(rename = "IPAddress")]
    address: Option<String>,
    networks: Option<BTreeMap<String, Joined>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Joined {
    #[serde(rename = "IPAddress")]
    address: Option<String>,
}

/// A container in a list.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listed {
    pub id: String,
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
}

/// As an engine tells of a file.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Stat {
    mode: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
}

impl Container {
    /// Its address in the network of the engine, if it has one.
    pub fn address(&self) -> Option<&str> {
        let network = &self.network_settings;
        let joined = network.networks.iter().flatten().map(|(_, joined)| &joined.address);
        [&network.address].into_iter().chain(joined).flatten().map(String::as_str).find(|address| !address.is_empty())
    }
}

impl Engine {
    /// The container of this name or id.
    pub async fn container(&self, name: &str) -> Result<Container, Fault> {
        self.ask(Method::GET, &format!("/containers/{}/json", escaped(name)), None).await
    }

    /// Makes a container that does not run; gives its id.
    pub async fn create(&self, name: &str, body: &Value) -> Result<String, Fault> {
        let path = format!("/containers/create?name={}", escaped(name));
        let created: Created = self.ask(Method::POST, &path, Some(body)).await?;
        Ok(created.id)
    }

    /// Begins it; one that runs already goes on.
    pub async fn start(&self, name: &str) -> Result<(), Fault> {
        let path = self.versioned(&format!("/containers/{}/start", escaped(name)));
        let answer = self.0.send(Method::POST, &path, None, Some(MOVING)).await?;
        if answer.status().as_u16() == 304 {
            return Ok(());
        }
        self.taken(answer).await.map(drop)
    }

    /// Sends a signal to its first process. One that does not run is none that fails.
    pub async fn kill(&self, name: &str, signal: &str) -> Result<(), Fault> {
        let path = format!("/containers/{}/kill?signal={signal}", escaped(name));
        match self.whole(Method::POST, &path, None).await {
            Err(fault) if matches!(fault.kind, Kind::Conflict | Kind::NotFound) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Ends it if it runs, and forgets it with volumes that nobody named. One that is gone already is none that fails.
    pub async fn remove(&self, name: &str) -> Result<(), Fault> {
        let path = format!("/containers/{}?force=true&v=true", escaped(name));
        match self.whole(Method::DELETE, &path, None).await {
            Err(fault) if fault.kind == Kind::NotFound => Ok(()),
            // Somebody else is at it.
            Err(fault) if fault.kind == Kind::Conflict && fault.words.contains("already in progress") => Ok(()),
            other => other.map(drop),
        }
    }

    /// Containers that have all of these labels, also those that do not run.
    pub async fn labelled(&self, labels: &[String]) -> Result<Vec<Listed>, Fault> {
        let filters = escaped(&json!({ "label": labels }).to_string());
        self.ask(Method::GET, &format!("/containers/json?all=true&filters={filters}"), None).await
    }

    /// What it writes, from its start to its end.
    pub async fn output(&self, name: &str) -> Result<Output, Fault> {
        let path = self.versioned(&format!("/containers/{}/logs?follow=true&stdout=true&stderr=true", escaped(name)));
        let sent = self.0.send(Method::GET, &path, None, None);
        let late = |_| Fault::unknown(format!("{} did not begin to tell what the container writes", self.0.name));
        let answer = tokio::time::timeout(PATIENCE, sent).await.map_err(late)??;
        if !answer.status().is_success() {
            return match self.taken(answer).await {
                Err(fault) => Err(fault),
                Ok(_) => Err(Fault::unknown(format!("{} does not tell what the container writes", self.0.name))),
            };
        }
        Ok(Output::new(answer, Frames::default(), self.clone()))
    }

    /// Puts files below a directory of a container, which may run or not.
    pub async fn put(&self, name: &str, directory: &str, entries: &[Entry]) -> Result<(), Fault> {
        let path = format!("/containers/{}/archive?path={}", escaped(name), escaped(directory));
        let request = self.0.http.put(format!("{}{}", self.0.base, self.versioned(&path)));
        let request = request.header(CONTENT_TYPE, "application/x-tar").timeout(MOVING).body(tar::write(entries));
        let answer = request.send().await.map_err(|error| Fault::broken(&self.0.name, &error))?;
        self.taken(answer).await.map(drop)
    }

    /// Whether a path of a container is a directory, and no link to one.
    pub async fn stat(&self, name: &str, at: &str) -> Result<bool, Fault> {
        let path = format!("/containers/{}/archive?path={}", escaped(name), escaped(at));
        let answer = self.0.send(Method::HEAD, &self.versioned(&path), None, Some(PATIENCE)).await?;
        let told = answer.headers().get("x-docker-container-path-stat").and_then(|told| STANDARD.decode(told).ok());
        if !answer.status().is_success() {
            return self.taken(answer).await.map(|_| false);
        }
        let told: Stat = serde_json::from_slice(&told.unwrap_or_default()).unwrap_or_default();
        Ok(told.mode & IS_DIRECTORY != 0 && told.mode & IS_LINK == 0)
    }

    /// Files of a container: all below a path, whose names begin with the path's last part.
    pub async fn get(&self, name: &str, at: &str) -> Result<Vec<Entry>, Fault> {
        let path = format!("/containers/{}/archive?path={}", escaped(name), escaped(at));
        let answer = self.0.send(Method::GET, &self.versioned(&path), None, Some(MOVING)).await?;
        let bytes = self.taken(answer).await?;
        tar::read(&bytes).map_err(Fault::unknown)
    }
}
