//! What the server writes down about a remote attempt, beside its log and its end.
//!
//! | file | is there |
//! |---|---|
//! | `sent.json` | from before the first byte of a start goes out: without it nothing ever began, and no host need be asked |
//! | `cancel.json` | once somebody asked it to end: it is asked until it ended, also after a restart of the server |
//! | `cursor.json` | how far the log was mirrored |
//!
//! Invariant: none of them holds a secret, each appears whole, and `exit.json` beside them ends what they say.

use std::io;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use pitcrew_core::state::Exit;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::log::Masker;
use crate::spec::AttemptSpec;
use crate::ssh::PrivateKeyText;
use crate::ssh::agent::Agent;
use crate::ssh::transfer::Order;

/// Keeps what must not be read from a disk.
pub trait Seal: Send + Sync + 'static {
    fn seal(&self, text: &str) -> io::Result<String>;

    /// What was sealed, by this process or an earlier one.
    fn open(&self, sealed: &str) -> io::Result<String>;
}

/// What is needed of a spec after its start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// Names of the steps.
    pub steps: Vec<String>,
    pub log_limit: u64,
    /// Files that were asked for.
    #[serde(default)]
    pub fetch: Vec<String>,
    /// For the log: what this host does not do for it.
    #[serde(default)]
    pub notices: Vec<String>,
    /// How long it took to reach the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_seconds: Option<f64>,
    /// What its log must not show, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masks: Option<String>,
    /// The key that it was lent, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// It moves files, and is no process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
}

impl Sent {
    const FILE: &str = "sent.json";

    pub fn of(spec: &AttemptSpec, agent: Option<&Agent>, seal: &dyn Seal) -> io::Result<Sent> {
        let limits = [(spec.limits.memory_bytes.is_some(), "memory"), (spec.limits.cpu_milli.is_some(), "CPU")];
        let unenforced = limits.iter().filter(|(wanted, _)| *wanted);
        let masks = match spec.masks.is_empty() {
            true => None,
            false => Some(seal.seal(&serde_json::to_string(&spec.masks)?)?),
        };
        Ok(Sent {
            steps: spec.steps.iter().map(|step| step.name.clone()).collect(),
            log_limit: spec.log_limit,
            fetch: spec.fetch.clone(),
            notices: unenforced
                .map(|(_, what)| format!("the limit on {what} is not enforced: the task runs on a host over SSH"))
                .collect(),
            connect_seconds: None,
            masks,
            key: agent.map(|agent| seal.seal(&agent.key()?)).transpose()?,
            order: None,
        })
    }

    /// What answers for the key that it was lent.
    pub fn agent(&self, seal: &dyn Seal) -> io::Result<Option<Agent>> {
        let Some(key) = &self.key else { return Ok(None) };
        let key = Zeroizing::new(seal.open(key)?);
        Agent::new(&PrivateKeyText::new(&key, "a key that was lent")).map(Some).map_err(io::Error::other)
    }

    /// What masks its log.
    pub fn masker(&self, seal: &dyn Seal) -> io::Result<Option<Arc<Masker>>> {
        let Some(masks) = &self.masks else { return Ok(None) };
        let masks: Vec<String> = serde_json::from_str(&seal.open(masks)?)?;
        Ok(Masker::new(masks.iter().map(String::as_str)).map(Arc::new))
    }

    pub fn read(dir: &Path) -> io::Result<Option<Sent>> {
        read(&dir.join(Self::FILE))
    }

    pub fn write(&self, dir: &Path) -> io::Result<()> {
        write(dir, Self::FILE, self)
    }
}

/// Somebody asked it to end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cancel {
    /// When the grace ends.
    pub until: Timestamp,
}

impl Cancel {
    const FILE: &str = "cancel.json";

    pub fn read(dir: &Path) -> io::Result<Option<Cancel>> {
        read(&dir.join(Self::FILE))
    }

    pub fn write(&self, dir: &Path) -> io::Result<()> {
        write(dir, Self::FILE, self)
    }
}

/// How far the log was mirrored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    /// Bytes of the log on the host.
    pub remote: u64,
    /// Bytes of the log here, made of those.
    pub here: u64,
    /// The log here reached its limit, and says so.
    #[serde(default)]
    pub full: bool,
}

impl Cursor {
    const FILE: &str = "cursor.json";

    pub fn read(dir: &Path) -> io::Result<Option<Cursor>> {
        read(&dir.join(Self::FILE))
    }

    pub fn write(&self, dir: &Path) -> io::Result<()> {
        write(dir, Self::FILE, self)
    }
}

/// Why an attempt that the host calls `word` did not run.
pub fn claimed(word: &str, place: &str) -> Exit {
    match word {
        "cancelled" => Exit::Cancelled,
        _ => Exit::start_failed(format!("its keeper on `{place}` did not begin in time")),
    }
}

/// What cannot be read as such a file was torn by a full disk or a loss of power, and counts as missing.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Writes such a file; it appears whole.
pub fn write(dir: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    std::fs::write(&temporary, serde_json::to_vec(value)?)?;
    std::fs::rename(temporary, dir.join(name))
}
