//! Whether the key that a host shows is accepted.
//!
//! Invariant: a host of which any key is known gets no other one accepted, of whatever type: so nobody in between can
//! show a key of a type that was never seen. What is known decides which types are asked for first.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey};

use super::config_file::{ConfigFile, HostSettings};
use super::error::Fault;
use super::known_hosts::{self, KnownKey};
use super::pins::{HostKeyStore, Pin};
use crate::place::{HostKeys, SshPlace};

/// What is known of a host before it is asked.
#[derive(Debug, Clone)]
pub struct Known {
    /// The host, for messages.
    host: String,
    /// As files of known hosts and commands name it.
    name: String,
    port: u16,
    policy: HostKeys,
    keys: Vec<KnownKey>,
    pins: Vec<Pin>,
}

/// What to do with the key that a host shows.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Known,
    /// To be recorded before anything is sent.
    New,
    Refused(Fault),
}

impl Known {
    /// Reads the files, of which those that are missing know nothing. `name` is the one to look under, see
    /// [`host_name`].
    pub async fn load(
        host: &str,
        port: u16,
        name: String,
        policy: &HostKeys,
        files: &[PathBuf],
        store: &dyn HostKeyStore,
    ) -> Result<Known, Fault> {
        let failed = |why: String| Fault::HostKeyStore { host: host.to_owned(), why };
        let mut keys = Vec::new();
        for file in files {
            let text = match tokio::fs::read(file).await {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
                Err(error) => return Err(failed(format!("`{}`: {error}", file.display()))),
            };
            keys.extend(known_hosts::find(&text, &shown(file), &name));
        }
        let mut pins = store.pins().await.map_err(|error| failed(error.to_string()))?;
        pins.retain(|pin| pin.name == name);
        Ok(Known { host: host.to_owned(), name, port, policy: policy.clone(), keys, pins })
    }

    /// The name under which a new key is recorded.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn judge(&self, key: &PublicKey) -> Verdict {
        let same = |known: &PublicKey| known.key_data() == key.key_data();
        let got = told(key);
        if let Some(revoked) = self.keys.iter().find(|known| known.is_revoked && same(&known.key)) {
            let place = revoked.place.clone();
            return Verdict::Refused(Fault::HostKeyRevoked { host: self.host.clone(), got, place });
        }
        if let HostKeys::Pinned(expected) = &self.policy {
            if fingerprint(key) == expected.trim_end_matches('=') {
                return Verdict::Known;
            }
            let (host, expected) = (self.host.clone(), super::error::clean(expected));
            return Verdict::Refused(Fault::HostKeyNotPinned { host, expected, got });
        }
        let mut known = self.keys.iter().filter(|known| !known.is_revoked).map(|known| &known.key);
        let mut pinned = self.pins.iter().map(|pin| &pin.key);
        if known.any(same) || pinned.any(same) {
            return Verdict::Known;
        }
        if let Some(changed) = self.changed(key, got.clone()) {
            return Verdict::Refused(changed);
        }
        match self.policy {
            HostKeys::Strict => {
                let (host, name) = (self.host.clone(), self.as_argument());
                Verdict::Refused(Fault::HostKeyUnknown { host, got, name })
            }
            _ => Verdict::New,
        }
    }

    /// Other keys are known; told is one of the same type, if there is one.
    fn changed(&self, key: &PublicKey, got: String) -> Option<Fault> {
        let is_alike = |known: &PublicKey| known.algorithm() == key.algorithm();
        let of_files = self.keys.iter().filter(|known| !known.is_revoked);
        let of_files = of_files.map(|known| {
            let file = known.place.rsplit_once(" line ").map_or(known.place.as_str(), |(file, _)| file);
            let remedy = format!("`ssh-keygen -R '{}' -f {file}`", self.name);
            (is_alike(&known.key), format!("{} ({})", told(&known.key), known.place), remedy)
        });
        let of_pins = self.pins.iter().map(|pin| {
            let expected = format!("{} (pinned {:.0} for {})", told(&pin.key), pin.at, pin.who);
            (is_alike(&pin.key), expected, format!("`pitcrew ssh hosts forget {}`", self.as_argument()))
        });
        let (_, expected, remedy) = of_files.chain(of_pins).max_by_key(|(alike, ..)| *alike)?;
        let file = match key.algorithm() {
            Algorithm::Rsa { .. } => "rsa",
            Algorithm::Ecdsa { .. } => "ecdsa",
            _ => "ed25519",
        };
        Some(Fault::HostKeyChanged { host: self.host.clone(), expected, got, file, remedy })
    }

    /// Somebody else recorded another key since it was asked.
    pub fn overtaken(&self, key: &PublicKey, by: Pin) -> Fault {
        let known = Known { pins: vec![by], keys: Vec::new(), policy: HostKeys::AcceptNew, ..self.clone() };
        match known.judge(key) {
            Verdict::Refused(fault) => fault,
            Verdict::Known | Verdict::New => {
                Fault::HostKeyStore { host: self.host.clone(), why: "its record changed meanwhile; try again".into() }
            }
        }
    }

    /// Types to ask for: those of known keys first. SHA-1 is in none.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let known: Vec<Algorithm> = self
            .keys
            .iter()
            .filter(|known| !known.is_revoked)
            .map(|known| known.key.algorithm())
            .chain(self.pins.iter().map(|pin| pin.key.algorithm()))
            .collect();
        let mut all = offered();
        all.sort_by_key(|offered| !known.iter().any(|known| is_same_type(known, offered)));
        all
    }

    /// Whether the key is known by its fingerprint only, which tells no type.
    pub fn is_pinned(&self) -> bool {
        matches!(self.policy, HostKeys::Pinned(_))
    }

    /// The host, as a word of a command: `gpu-1`, `gpu-1:2222`.
    fn as_argument(&self) -> String {
        match (self.port, self.host.contains(':')) {
            (crate::place::SSH_PORT, _) => self.host.clone(),
            (port, false) => format!("{}:{port}", self.host),
            (port, true) => format!("'[{}]:{port}'", self.host),
        }
    }
}

/// The name of a host in records and files of known hosts: its address with the port, or what `HostKeyAlias` says.
pub fn host_name(place: &SshPlace, file: &ConfigFile) -> Result<String, Fault> {
    let settings = file.settings(&place.host, Some(&place.user), Some(place.port))?;
    Ok(name_of(&settings, &place.host, place.port))
}

pub fn name_of(settings: &HostSettings, host: &str, port: u16) -> String {
    match &settings.host_key_alias {
        Some(alias) => alias.to_ascii_lowercase(),
        None => known_hosts::name(settings.host_name.as_deref().unwrap_or(host), port),
    }
}

/// Every type that is taken.
fn offered() -> Vec<Algorithm> {
    let ecdsa = |curve| Algorithm::Ecdsa { curve };
    let rsa = |hash| Algorithm::Rsa { hash: Some(hash) };
    vec![
        Algorithm::Ed25519,
        ecdsa(EcdsaCurve::NistP256),
        ecdsa(EcdsaCurve::NistP384),
        ecdsa(EcdsaCurve::NistP521),
        rsa(HashAlg::Sha512),
        rsa(HashAlg::Sha256),
    ]
}

/// An RSA key is one whatever hash it signs with.
pub fn is_same_type(a: &Algorithm, b: &Algorithm) -> bool {
    let is_rsa = |kind: &Algorithm| matches!(kind, Algorithm::Rsa { .. });
    (is_rsa(a) && is_rsa(b)) || a == b
}

/// `SHA256:…`, as `ssh-keygen -l` prints it.
pub fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// `ED25519 SHA256:…`.
pub fn told(key: &PublicKey) -> String {
    let kind = match key.algorithm() {
        Algorithm::Ed25519 => "ED25519".to_owned(),
        Algorithm::Ecdsa { .. } => "ECDSA".to_owned(),
        Algorithm::Rsa { .. } => "RSA".to_owned(),
        other => super::error::clean(other.as_str()),
    };
    format!("{kind} {}", fingerprint(key))
}

fn shown(file: &Path) -> String {
    file.display().to_string()
}
