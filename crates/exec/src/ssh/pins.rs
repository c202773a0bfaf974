//! Host keys that were accepted at first use, each with when and for whom.
//!
//! They are kept in a file of this server's data directory, in the form of OpenSSH's known hosts. A server that shares
//! its store with others has a file of its own: each has seen for itself what it trusts. Invariant: a name whose key is
//! recorded gets no second one but by [`HostKeyStore::remove`] first.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use jiff::Timestamp;
use russh::keys::PublicKey;

use crate::whole;

/// A recorded key.
#[derive(Debug, Clone, PartialEq)]
pub struct Pin {
    /// The host, as files of known hosts name it: `gpu-1`, `[gpu-1]:2222`.
    pub name: String,
    pub key: PublicKey,
    pub at: Timestamp,
    /// For whom: a user, a connection.
    pub who: String,
}

/// Where accepted host keys are kept.
#[async_trait]
pub trait HostKeyStore: Send + Sync {
    /// All of them, in the order in which they were accepted.
    async fn pins(&self) -> io::Result<Vec<Pin>>;

    /// Records a key, unless another one is recorded for the name: that one is returned, and stays.
    async fn add(&self, pin: Pin) -> io::Result<Option<Pin>>;

    /// Forgets a host; says how many keys it had.
    async fn remove(&self, name: &str) -> io::Result<usize>;
}

/// Pins in a file.
#[derive(Debug, Clone)]
pub struct PinFile(PathBuf);

impl PinFile {
    /// Its directory is made when the first key is recorded.
    pub fn new(file: impl Into<PathBuf>) -> PinFile {
        PinFile(file.into())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let file = self.0.clone();
        let named = move |error: io::Error| io::Error::new(error.kind(), format!("`{}`: {error}", file.display()));
        let file = self.0.clone();
        tokio::task::spawn_blocking(move || work(&file)).await.map_err(io::Error::other)?.map_err(named)
    }
}

#[async_trait]
impl HostKeyStore for PinFile {
    async fn pins(&self) -> io::Result<Vec<Pin>> {
        self.blocking(read).await
    }

    async fn add(&self, pin: Pin) -> io::Result<Option<Pin>> {
        self.blocking(move |file| {
            let _lock = lock(file)?;
            let mut pins = read(file)?;
            let mut of_host = pins.iter().filter(|known| known.name == pin.name);
            if let Some(first) = of_host.clone().next() {
                let is_known = of_host.any(|known| known.key.key_data() == pin.key.key_data());
                return Ok((!is_known).then(|| first.clone()));
            }
            pins.push(pin);
            write(file, &pins).map(|()| None)
        })
        .await
    }

    async fn remove(&self, name: &str) -> io::Result<usize> {
        let name = name.to_owned();
        self.blocking(move |file| {
            if !file.exists() {
                return Ok(0);
            }
            let _lock = lock(file)?;
            let mut pins = read(file)?;
            let before = pins.len();
            pins.retain(|pin| pin.name != name);
            if pins.len() < before {
                write(file, &pins)?;
            }
            Ok(before - pins.len())
        })
        .await
    }
}

/// Held until it is dropped, against other processes too.
fn lock(file: &Path) -> io::Result<File> {
    let dir = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let lock = File::options().create(true).truncate(false).write(true).open(file.with_extension("lock"))?;
    lock.lock()?;
    Ok(lock)
}

fn read(file: &Path) -> io::Result<Vec<Pin>> {
    match fs::read_to_string(file) {
        Ok(text) => text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
            .map(|(at, line)| {
                // A file of our own: to pass over what is damaged would be to trust a host a second time.
                parse(line).ok_or_else(|| {
                    io::Error::new(ErrorKind::InvalidData, format!("line {} is damaged: remove it", at + 1))
                })
            })
            .collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// `NAME TYPE BASE64 pinned TIME for WHO`.
fn parse(line: &str) -> Option<Pin> {
    let (name, rest) = line.split_once(' ')?;
    let (key, comment) = rest.split_once(" pinned ")?;
    let (at, who) = comment.split_once(" for ")?;
    Some(Pin { name: name.to_owned(), key: key.parse().ok()?, at: at.parse().ok()?, who: who.to_owned() })
}

fn write(file: &Path, pins: &[Pin]) -> io::Result<()> {
    let mut text = String::from("# Host keys that Pitcrew accepted at first use: `pitcrew ssh hosts`.\n");
    for Pin { name, key, at, who } in pins {
        let mut key = key.clone();
        key.set_comment("");
        let key = key.to_openssh().map_err(io::Error::other)?;
        let plain = |text: &str| text.replace(|c: char| c.is_control(), " ");
        let name = name.replace(|c: char| c.is_control() || c == ' ', "");
        text.push_str(&format!("{name} {} pinned {at} for {}\n", key.trim(), plain(who)));
    }
    whole::write(file, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(name: &str, last: char, who: &str) -> Pin {
        let key = format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5z{last}");
        let at = "2026-11-22T14:00:00Z".parse().unwrap();
        Pin { name: name.into(), key: key.parse().unwrap(), at, who: who.into() }
    }

    #[tokio::test]
    async fn the_first_key_of_a_host_stays_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ssh/known_hosts");
        let pins = PinFile::new(&file);
        assert_eq!((pins.pins().await.unwrap(), pins.remove("h").await.unwrap()), (vec![], 0));
        let first = pin("[h]:22 22", 'C', "me\n@revoked * x");
        let kept = pin("[h]:2222", 'C', "me @revoked * x");
        assert_eq!(pins.add(first.clone()).await.unwrap(), None);
        assert_eq!(pins.add(kept.clone()).await.unwrap(), None);
        assert_eq!(pins.add(pin("[h]:2222", 'D', "you")).await.unwrap(), Some(kept.clone()));
        assert_eq!(pins.pins().await.unwrap(), std::slice::from_ref(&kept));
        assert_eq!(pins.remove("[h]:2222").await.unwrap(), 1);
        let all = (0..20).map(|n| pins.add(pin(&format!("h{n}"), 'C', "me")));
        assert!(futures::future::join_all(all).await.iter().all(|added| added.as_ref().unwrap().is_none()));
        assert_eq!(pins.pins().await.unwrap().len(), 20);
        std::fs::write(&file, "h ssh-ed25519 AAAA cut").unwrap();
        assert!(pins.add(kept).await.unwrap_err().to_string().contains("line 1 is damaged"));
    }
}
