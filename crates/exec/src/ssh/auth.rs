//! Signing in: which keys are offered, and what a refusal means.
//!
//! Invariant: at most [`MOST_OFFERS`] keys are offered to a host, as most end the connection after six; SHA-1 signs
//! nothing. Keys that were named for the place are the only ones; without any, those of `~/.ssh` and of the agent are.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{MethodKind, MethodSet};
use tokio::net::UnixStream;

use super::client::{Client, Seen};
use super::config_file::HostSettings;
use super::connect::Setup;
use super::error::{Fault, clean};
use super::hostkey::{fingerprint, told};
use super::key::{Mark, PrivateKeyText};
use crate::place::SshPlace;

const MOST_OFFERS: usize = 5;
/// An agent answers at once, or waits for a person.
const AGENT_PATIENCE: Duration = Duration::from_secs(5);
/// The largest file that may be a key.
const LARGEST: u64 = 64 << 10;

/// Where private keys come from.
#[async_trait]
pub trait KeySource: Send + Sync {
    /// The keys for the host number `hop` on the way: those of `place.jump` come first, the place itself is last. None:
    /// there are none but those of the agent and of `~/.ssh`. With `refresh` the ones before were refused, and are
    /// looked up anew, past any cache.
    async fn keys(&self, place: &SshPlace, hop: usize, refresh: bool) -> Result<Vec<PrivateKeyText>, KeyError>;
}

/// A key that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct KeyError {
    /// A sentence without secrets.
    pub words: String,
    /// Waiting and trying again cannot help.
    pub lasting: bool,
}

impl From<KeyError> for Fault {
    fn from(KeyError { words, lasting }: KeyError) -> Self {
        Fault::Key { words, lasting }
    }
}

/// No keys but those of the agent and of `~/.ssh`.
pub struct NoKeys;

#[async_trait]
impl KeySource for NoKeys {
    async fn keys(&self, _: &SshPlace, _: usize, _: bool) -> Result<Vec<PrivateKeyText>, KeyError> {
        Ok(Vec::new())
    }
}

/// What can be offered to a host.
pub struct Offers {
    keys: Vec<Key>,
    /// Those that a [`KeySource`] has.
    mark: Mark,
    agent: Option<Agent>,
    /// Tried after the agent.
    defaults: Vec<Key>,
    /// Why some are not among them.
    left_out: Vec<String>,
    /// They come from a [`KeySource`], which may have newer ones.
    refreshable: bool,
}

struct Key {
    key: Arc<PrivateKey>,
    origin: String,
}

struct Agent {
    client: AgentClient<UnixStream>,
    keys: Vec<PublicKey>,
}

impl Offers {
    /// Looks the keys up and reads them, before anything is connected.
    pub async fn gather(place: &SshPlace, hop: usize, settings: &HostSettings, setup: &Setup) -> Result<Offers, Fault> {
        let (named, mark) = named(place, hop, setup, false).await?;
        let refreshable = !named.is_empty();
        let mut offers =
            Offers { keys: named, mark, agent: None, defaults: Vec::new(), left_out: Vec::new(), refreshable };
        if offers.refreshable {
            return Ok(offers);
        }
        let mut public = Vec::new();
        for file in &settings.identity_files {
            offers.read_file(file, true).await;
            public.extend(public_half(file).await);
        }
        let agent = settings.identity_agent.clone().unwrap_or_else(|| setup.agent.clone());
        if let Some(socket) = agent {
            match ask_agent(&socket).await {
                Ok(mut agent) => {
                    if settings.identities_only {
                        agent.keys.retain(|key| public.iter().any(|known| known.key_data() == key.key_data()));
                    }
                    offers.agent = Some(agent);
                }
                Err(why) => offers.left_out.push(why),
            }
        }
        if settings.identity_files.is_empty() {
            for name in ["id_ed25519", "id_ecdsa", "id_rsa"] {
                let file = setup.home.join(".ssh").join(name);
                offers.read_file(&file, false).await;
            }
        }
        Ok(offers)
    }

    async fn read_file(&mut self, file: &Path, is_named: bool) {
        match read_file(file).await {
            Ok(Some(key)) if is_named => self.keys.push(key),
            Ok(Some(key)) => self.defaults.push(key),
            Ok(None) => {}
            Err(why) => self.left_out.push(why),
        }
    }
}

/// The keys that were named for the place.
async fn named(place: &SshPlace, hop: usize, setup: &Setup, refresh: bool) -> Result<(Vec<Key>, Mark), Fault> {
    let texts = setup.keys.keys(place, hop, refresh).await?;
    let mark = Mark::of(&texts);
    let read = move || {
        let read = |text: PrivateKeyText| Ok(Key { key: Arc::new(text.decode()?), origin: text.origin });
        Ok((texts.into_iter().take(MOST_OFFERS).map(read).collect::<Result<_, Fault>>()?, mark))
    };
    // An encrypted key takes a CPU for a while.
    tokio::task::spawn_blocking(read).await.map_err(|error| Fault::Config(error.to_string()))?
}

/// A file that is missing is none; one that others can read is not used.
async fn read_file(file: &Path) -> Result<Option<Key>, String> {
    let path = file.to_owned();
    let read = move || {
        use std::os::unix::fs::PermissionsExt as _;
        let shown = path.display();
        let failed = |error: std::io::Error| format!("`{shown}`: {error}");
        let meta = match std::fs::metadata(&path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(format!("others can read `{shown}` ({mode:04o}): `chmod 600 {shown}`"));
        }
        if !meta.is_file() || meta.len() > LARGEST {
            return Err(format!("`{shown}` is no file of a key"));
        }
        let text = zeroize::Zeroizing::new(std::fs::read_to_string(&path).map_err(failed)?);
        let key = PrivateKeyText::new(&text, format!("`{shown}`")).decode().map_err(|fault| fault.to_string())?;
        Ok(Some(Key { key: Arc::new(key), origin: format!("`{shown}`") }))
    };
    tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?
}

async fn public_half(file: &Path) -> Option<PublicKey> {
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    tokio::fs::read_to_string(PathBuf::from(name)).await.ok()?.trim().parse().ok()
}

async fn ask_agent(socket: &Path) -> Result<Agent, String> {
    let shown = socket.display();
    let ask = async {
        let mut client = AgentClient::connect_uds(socket).await.map_err(|error| error.to_string())?;
        let all = client.request_identities().await.map_err(|error| error.to_string())?;
        let plain = |identity| match identity {
            AgentIdentity::PublicKey { key, .. } => Some(key),
            AgentIdentity::Certificate { .. } => None,
        };
        // A key in hardware waits for somebody to touch it.
        let usable = |key: &PublicKey| {
            matches!(key.algorithm(), Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. })
        };
        let keys = all.into_iter().filter_map(plain).filter(usable).collect();
        Ok::<_, String>(Agent { client, keys })
    };
    match tokio::time::timeout(AGENT_PATIENCE, ask).await {
        Ok(asked) => asked.map_err(|why| format!("the agent at `{shown}` cannot be asked: {why}")),
        Err(_) => Err(format!("the agent at `{shown}` does not answer")),
    }
}

/// Who signs in where.
pub struct Login<'a> {
    pub host: &'a str,
    pub user: &'a str,
    pub place: &'a SshPlace,
    pub hop: usize,
    pub setup: &'a Setup,
    pub seen: &'a Seen,
}

/// What came of one key.
enum Answer {
    In,
    /// `true`: the host wants something more than the key.
    Refused(MethodSet, bool),
}

impl Login<'_> {
    /// Offers one key after the other; says which one it was, and which ones had been looked up then.
    pub async fn sign_in(&self, handle: &mut Handle<Client>, mut offers: Offers) -> Result<(String, Mark), Fault> {
        let mut tried = Tried { left_out: std::mem::take(&mut offers.left_out), ..Tried::default() };
        if let Some(key) = self.offer_keys(handle, &offers.keys, &mut tried).await? {
            return Ok((key, offers.mark));
        }
        if let Some(agent) = &mut offers.agent {
            for key in std::mem::take(&mut agent.keys) {
                let shown = format!("{} of the agent", told(&key));
                if !tried.may(&key) {
                    continue;
                }
                let Some(hash) = self.hash(handle, &key, &mut tried).await? else { continue };
                tried.offered.push(shown.clone());
                let sent = handle.authenticate_publickey_with(self.user, key, hash, &mut agent.client).await;
                let answer = match sent {
                    Ok(answer) => self.answer(answer, &tried)?,
                    Err(error) => {
                        tried.left_out.push(format!("the agent does not sign with {shown}: {error}"));
                        continue;
                    }
                };
                if self.is_in(answer, &mut tried)? {
                    return Ok((shown, offers.mark));
                }
            }
        }
        if let Some(key) = self.offer_keys(handle, &offers.defaults, &mut tried).await? {
            return Ok((key, offers.mark));
        }
        if offers.refreshable {
            // The key may have been replaced since it was looked up.
            let (newer, mark) = named(self.place, self.hop, self.setup, true).await?;
            if let Some(key) = self.offer_keys(handle, &newer, &mut tried).await? {
                return Ok((key, mark));
            }
        }
        Err(self.refused(tried))
    }

    async fn offer_keys(
        &self,
        handle: &mut Handle<Client>,
        keys: &[Key],
        tried: &mut Tried,
    ) -> Result<Option<String>, Fault> {
        for Key { key, origin } in keys {
            if !tried.may(key.public_key()) {
                continue;
            }
            let shown = format!("{} of {origin}", told(key.public_key()));
            let Some(hash) = self.hash(handle, key.public_key(), tried).await? else { continue };
            tried.offered.push(shown.clone());
            let signed = PrivateKeyWithHashAlg::new(key.clone(), hash);
            let sent = handle.authenticate_publickey(self.user, signed).await;
            let answer = sent.map_err(|error| self.broke(&error.to_string()))?;
            let answer = self.answer(answer, tried)?;
            if self.is_in(answer, tried)? {
                return Ok(Some(shown));
            }
        }
        Ok(None)
    }

    /// With what the key signs here; `None`: the host takes no hash that can be trusted.
    async fn hash(
        &self,
        handle: &Handle<Client>,
        key: &PublicKey,
        tried: &mut Tried,
    ) -> Result<Option<Option<HashAlg>>, Fault> {
        if !key.algorithm().is_rsa() {
            return Ok(Some(None));
        }
        match handle.best_supported_rsa_hash().await {
            Ok(Some(Some(hash))) => Ok(Some(Some(hash))),
            Ok(Some(None)) => {
                let why = "the host takes it only with SHA-1, which is broken: use an Ed25519 key";
                tried.left_out.push(format!("{}: {why}", told(key)));
                Ok(None)
            }
            // It does not say; whoever takes SHA-2 at all takes this one.
            Ok(None) => Ok(Some(Some(HashAlg::Sha512))),
            Err(error) => Err(self.broke(&error.to_string())),
        }
    }

    fn answer(&self, answer: AuthResult, tried: &Tried) -> Result<Answer, Fault> {
        match answer {
            AuthResult::Success => Ok(Answer::In),
            // So russh tells a connection that ended, too.
            AuthResult::Failure { remaining_methods, partial_success: false } if remaining_methods.is_empty() => {
                let said = self.seen.ended();
                if said.contains("Too many authentication failures") {
                    return Err(self.key_refused(&tried.offered.join(", ")));
                }
                Err(self.broke(&said))
            }
            AuthResult::Failure { remaining_methods, partial_success } => {
                Ok(Answer::Refused(remaining_methods, partial_success))
            }
        }
    }

    fn is_in(&self, answer: Answer, tried: &mut Tried) -> Result<bool, Fault> {
        match answer {
            Answer::In => Ok(true),
            Answer::Refused(methods, true) => {
                Err(Fault::WantsMore { host: self.host.to_owned(), user: self.user.to_owned(), wants: list(&methods) })
            }
            Answer::Refused(methods, false) if !methods.contains(&MethodKind::PublicKey) => Err(Fault::NoKeysTaken {
                host: self.host.to_owned(),
                user: self.user.to_owned(),
                wants: list(&methods),
            }),
            Answer::Refused(..) => {
                tried.refused = true;
                Ok(false)
            }
        }
    }

    fn refused(&self, tried: Tried) -> Fault {
        if !tried.refused {
            let looked = match tried.left_out.is_empty() {
                true => "name one (`key`), or make one in `~/.ssh`".to_owned(),
                false => tried.left_out.join("; "),
            };
            return Fault::NoKey { host: self.host.to_owned(), user: self.user.to_owned(), looked };
        }
        let mut offered = tried.offered.join(", ");
        for why in tried.left_out {
            offered.push_str("; not offered: ");
            offered.push_str(&why);
        }
        self.key_refused(&offered)
    }

    fn key_refused(&self, offered: &str) -> Fault {
        Fault::KeyRefused { host: self.host.to_owned(), user: self.user.to_owned(), offered: offered.to_owned() }
    }

    fn broke(&self, why: &str) -> Fault {
        let said = self.seen.ended();
        let why = if said.is_empty() { clean(why) } else { said };
        Fault::Broke { host: self.host.to_owned(), stage: "the login", why }
    }
}

#[derive(Default)]
struct Tried {
    /// As they are told.
    offered: Vec<String>,
    fingerprints: Vec<String>,
    /// Why some were not offered.
    left_out: Vec<String>,
    refused: bool,
}

impl Tried {
    /// It was not offered yet, and more may be.
    fn may(&mut self, key: &PublicKey) -> bool {
        let fingerprint = fingerprint(key);
        let may = self.fingerprints.len() < MOST_OFFERS && !self.fingerprints.contains(&fingerprint);
        if may {
            self.fingerprints.push(fingerprint);
        }
        may
    }
}

fn list(methods: &MethodSet) -> String {
    let names: Vec<String> = methods.iter().map(|method| format!("`{}`", String::from(method))).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
