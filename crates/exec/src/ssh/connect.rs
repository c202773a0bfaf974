//! One connection: through the jump hosts to the host, its key checked at each, signed in at each.
//!
//! Invariants: what is given up is closed at once; a host opens no channel to us but to sockets that we asked it for; a connection knows the keys that it
//! was signed in with, so that one made with a key that was replaced is told from others.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::Disconnect;
use russh::client::Handle;
use russh::keys::PublicKey;

use super::auth::KeySource;
use super::client::{Client, Seen};
use super::config_file::{ConfigFile, HostSettings};
use super::error::{DialError, Fault};
use super::forward::Sockets;
use super::hostkey::{self, Known};
use super::key::Mark;
use super::pins::HostKeyStore;
use super::stage::{Stage, all_types};
use super::wire::Cut;
use crate::clock;
use crate::place::{HostKeys, SshPlace};

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Bytes of a command's output under way, where nobody says otherwise.
pub const WINDOW: u32 = 256 << 10;

/// What connecting needs beyond the place.
#[derive(Clone)]
pub struct Setup {
    pub keys: Arc<dyn KeySource>,
    pub pins: Arc<dyn HostKeyStore>,
    /// Where `.ssh` is.
    pub home: PathBuf,
    /// The socket of an agent.
    pub agent: Option<PathBuf>,
    /// Bytes of a command's output under way.
    pub window: u32,
}

/// The home directory of this process.
pub fn home() -> PathBuf {
    variable("HOME").unwrap_or_else(|| PathBuf::from("/nonexistent"))
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

impl Setup {
    /// With the home directory and the agent of this process.
    pub fn of_process(keys: Arc<dyn KeySource>, pins: Arc<dyn HostKeyStore>) -> Setup {
        Setup { keys, pins, home: home(), agent: variable("SSH_AUTH_SOCK"), window: WINDOW }
    }

    /// `~/.ssh/config`, as it is now.
    pub fn config_file(&self) -> Result<ConfigFile, Fault> {
        ConfigFile::load(&self.home)
    }

    pub(super) fn known_hosts(&self, settings: &HostSettings) -> Vec<PathBuf> {
        let mut files = settings.known_hosts.clone();
        if files.is_empty() {
            files = ["known_hosts", "known_hosts2"].map(|name| self.home.join(".ssh").join(name)).into();
        }
        files.push("/etc/ssh/ssh_known_hosts".into());
        files
    }
}

/// A connection that is signed in. Dropping it closes it, and the ways through jump hosts with it.
pub struct Connection {
    pub(super) handle: Handle<Client>,
    pub(super) seen: Arc<Seen>,
    pub(super) sockets: Sockets,
    pub facts: Facts,
    /// The keys that were looked up for this host.
    pub(super) mark: Mark,
    pub(super) _cut: Cut,
    /// The jump host that it goes through.
    pub(super) outer: Option<Box<Connection>>,
}

/// What was learnt while connecting.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// `ED25519 SHA256:…`.
    pub host_key: String,
    /// The host was not known before.
    pub is_new: bool,
    /// As the server names itself.
    pub software: String,
    /// Which key signed in.
    pub key: String,
    /// All of it, jump hosts included.
    pub took: Duration,
}

impl Connection {
    pub(super) fn handle(&self) -> &Handle<Client> {
        &self.handle
    }

    pub(super) fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// The keys that were looked up for it are still those that are looked up now; what cannot be looked up is no other.
    pub(super) fn rests_on(&self, basis: &Basis) -> bool {
        let mut on_the_way = std::iter::successors(Some(self), |connection| connection.outer.as_deref());
        // Outermost last, and first in the basis.
        basis.keys.iter().rev().all(|now| {
            let then = on_the_way.next().map(|connection| &connection.mark);
            now.is_none() || then.is_none() || now.as_ref() == then
        })
    }

    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Why it ended, in words.
    pub fn why_closed(&self) -> String {
        match self.seen.ended() {
            words if words.is_empty() => "the connection ended".to_owned(),
            words => words,
        }
    }

    /// Says goodbye, so that the host logs a clean end, and waits a moment for it to be sent.
    pub async fn close(mut self) {
        let _ = self.handle.disconnect(Disconnect::ByApplication, "", "").await;
        let _ = tokio::time::timeout(GOODBYE, &mut self.handle).await;
    }
}

/// Connects and signs in. Looks keys up first: without one, nothing is connected.
pub async fn connect(place: &SshPlace, setup: &Setup) -> Result<Connection, DialError> {
    let began = clock::instant();
    let file = setup.config_file()?;
    let mut connection: Option<Connection> = None;
    for (at, hop) in place.jump.iter().enumerate() {
        let reached = Stage::of(place, setup, at).reach(&file, connection.take()).await;
        connection = Some(reached.map_err(|fault| DialError { via: Some(hop.to_string()), fault })?);
    }
    let mut connection = Stage::of(place, setup, place.jump.len()).reach(&file, connection).await?;
    connection.facts.took = clock::instant() - began;
    Ok(connection)
}

/// What a sign-in rests on, hop by hop, the place itself last: while it is the same, so is the answer of the hosts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Basis {
    /// The keys that are looked up; `None`: they cannot be had.
    pub keys: Vec<Option<Mark>>,
    /// What is known of the hosts, and what `~/.ssh/config` says of them; `None`: it was not looked at.
    pub hosts: Option<Vec<String>>,
}

impl Basis {
    /// The keys as they are now; with `refresh` past any cache.
    pub async fn keys(place: &SshPlace, setup: &Setup, refresh: bool) -> Vec<Option<Mark>> {
        let mut marks = Vec::new();
        for hop in 0..=place.jump.len() {
            let keys = setup.keys.keys(place, hop, refresh).await;
            marks.push(keys.ok().map(|keys| Mark::of(&keys)));
        }
        marks
    }

    pub async fn hosts(place: &SshPlace, setup: &Setup) -> Vec<String> {
        let file = setup.config_file();
        let mut hosts = Vec::new();
        for hop in 0..=place.jump.len() {
            let known = match &file {
                Ok(file) => Stage::of(place, setup, hop).known(file).await,
                Err(fault) => Err(fault.clone()),
            };
            hosts.push(format!("{known:?}"));
        }
        hosts
    }
}

/// The key that a host shows, without signing in to it.
pub async fn scan(place: &SshPlace, setup: &Setup) -> Result<PublicKey, DialError> {
    let SshPlace { host, port, user, .. } = place;
    let direct = SshPlace { jump: Vec::new(), ..place.clone() };
    let stage = Stage::of(&direct, setup, 0);
    let settings = setup.config_file()?.settings(host, Some(user), Some(*port))?;
    let name = hostkey::name_of(&settings, host, *port);
    let known = Known::load(host, *port, name, &HostKeys::Strict, &[], setup.pins.as_ref()).await?;
    let terms = stage.terms(known, &settings);
    let stream = stage.stream(settings.host_name.as_deref().unwrap_or(host), None, terms.deadline).await?;
    match stage.greet(stream, &terms, &all_types).await {
        Ok(greeted) => Ok(greeted.key),
        Err((fault, seen)) => seen.key().ok_or_else(|| fault.into()),
    }
}
