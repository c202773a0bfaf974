//! Keeps secrets in the database unreadable for whoever has only the database.
//!
//! A secret is sealed with ChaCha20-Poly1305 under one key of 32 bytes: derived from `PITCREW_SECRET_KEY`, or kept in
//! `secret.key` in the data directory, which only its user can read and which is made when the first secret is sealed.
//! Servers that share a database must share the key.
//!
//! Invariant: a sealed text carries a fingerprint of its key, so a wrong key and a damaged text are told apart; neither
//! the key nor an opened secret is ever part of an error.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};

use crate::paths::DataDir;

/// The environment variable that gives the key.
pub const SECRET_KEY: &str = "PITCREW_SECRET_KEY";

/// Shorter keys could be guessed.
const MIN_KEY_CHARS: usize = 32;
const FINGERPRINT: usize = 4;
/// Of what comes after it; a later form gets another one.
const PREFIX: &str = "v1:";

/// Seals and opens secrets. Cheap to clone.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    file: PathBuf,
    key: OnceLock<Key>,
}

struct Key {
    aead: LessSafeKey,
    fingerprint: [u8; FINGERPRINT],
    /// What [`Vault::word`] derives from.
    words: [u8; 32],
}

impl Vault {
    /// A vault with the key of `env`, if it has one, else with that of the data directory. Makes no file yet.
    pub fn new(data: &DataDir, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Vault> {
        let key = OnceLock::new();
        if let Some(text) = env(SECRET_KEY).filter(|text| !text.is_empty()) {
            if text.chars().count() < MIN_KEY_CHARS {
                bail!(
                    "`{SECRET_KEY}` must have at least {MIN_KEY_CHARS} characters; `openssl rand -base64 32` makes one"
                );
            }
            let _ = key.set(Key::derive(text.as_bytes()));
        }
        Ok(Vault(Arc::new(Inner { file: data.root().join("secret.key"), key })))
    }

    /// The secret as it may be stored: printable, different each time, and readable by [`Vault::open`] only.
    pub fn seal(&self, secret: &str) -> anyhow::Result<String> {
        let key = self.key(true)?;
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut sealed = secret.as_bytes().to_vec();
        let place = Nonce::assume_unique_for_key(nonce);
        let sealing = key.aead.seal_in_place_append_tag(place, Aad::from(PREFIX), &mut sealed);
        sealing.map_err(|_| anyhow::anyhow!("a secret of {} bytes is too long to be sealed", secret.len()))?;
        Ok(format!("{PREFIX}{}", BASE64.encode([&key.fingerprint[..], &nonce, &sealed].concat())))
    }

    /// The secret that was sealed.
    pub fn open(&self, sealed: &str) -> anyhow::Result<String> {
        let damaged = || anyhow::anyhow!("a stored secret is damaged: set it anew");
        let bytes = sealed.strip_prefix(PREFIX).and_then(|text| BASE64.decode(text).ok()).ok_or_else(damaged)?;
        let (fingerprint, rest) = bytes.split_first_chunk::<FINGERPRINT>().ok_or_else(damaged)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(damaged)?;
        let key = self.key(false)?;
        if *fingerprint != key.fingerprint {
            bail!(
                "a stored secret was sealed with another key: give the right one by `{SECRET_KEY}` or in `{}`, or set \
                 the secret anew",
                self.0.file.display()
            );
        }
        let mut text = rest.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key.aead.open_in_place(nonce, Aad::from(PREFIX), &mut text).map_err(|_| damaged())?;
        String::from_utf8(opened.to_vec()).map_err(|_| damaged())
    }

    /// A word that only holders of the key can say, one per purpose; it tells nothing about the key.
    pub fn word(&self, purpose: &str) -> anyhow::Result<String> {
        let key = self.key(true)?;
        let digest = Sha256::new().chain_update(key.words).chain_update(purpose).finalize();
        Ok(BASE64.encode(digest))
    }

    /// The key; with `make`, one is made if there is none.
    fn key(&self, make: bool) -> anyhow::Result<&Key> {
        if let Some(key) = self.0.key.get() {
            return Ok(key);
        }
        let file = &self.0.file;
        if make && !file.exists() {
            make_file(file).with_context(|| format!("cannot make the key of secrets `{}`", file.display()))?;
        }
        let key = read_file(file)?;
        Ok(self.0.key.get_or_init(|| key))
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(…)")
    }
}

impl Key {
    fn derive(from: &[u8]) -> Key {
        let digest = |purpose: &[u8]| Sha256::new().chain_update(purpose).chain_update(from).finalize();
        let key = UnboundKey::new(&CHACHA20_POLY1305, &digest(b"pitcrew vault key\0")).expect("a digest has 32 bytes");
        let fingerprint = digest(b"pitcrew vault fingerprint\0");
        let words = digest(b"pitcrew vault words\0").into();
        let fingerprint = fingerprint[..FINGERPRINT].try_into().expect("it is longer");
        Key { aead: LessSafeKey::new(key), fingerprint, words }
    }
}

/// Random bytes of the operating system.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    Ok(bytes)
}

/// Appears whole or not at all, and never replaces one that another process made at the same moment.
fn make_file(path: &Path) -> anyhow::Result<()> {
    let temp = path.with_extension(format!("{}.tmp", uuid::Uuid::now_v7().simple()));
    let text = BASE64.encode(random::<32>()?);
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temp)
        .and_then(|mut file| writeln!(file, "{text}").and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::hard_link(&temp, path));
    let _ = std::fs::remove_file(&temp);
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn read_file(path: &Path) -> anyhow::Result<Key> {
    let shown = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("the key of secrets is missing: give it by `{SECRET_KEY}`, or put `{shown}` back")
        }
        Err(error) => bail!("cannot read the key of secrets `{shown}`: {error}"),
    };
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("others can read the key of secrets: `chmod 600 {shown}`");
    }
    let bytes = BASE64.decode(text.trim_end()).ok().filter(|bytes| bytes.len() == 32);
    Ok(Key::derive(&bytes.with_context(|| format!("`{shown}` is no key of secrets: it must hold one line of base64"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(dir: &tempfile::TempDir, key: Option<&str>) -> Vault {
        Vault::new(&DataDir::open(dir.path()).unwrap(), &|_| key.map(str::to_owned)).unwrap()
    }

    #[test]
    fn what_was_sealed_is_opened_by_the_same_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = vault(&dir, None).seal("p@ss\nword").unwrap();
        assert!(!sealed.contains("word") && sealed != vault(&dir, None).seal("p@ss\nword").unwrap());
        assert_eq!(vault(&dir, None).open(&sealed).unwrap(), "p@ss\nword");
        let other = vault(&dir, Some(&"k".repeat(32)));
        let refused = other.open(&sealed).unwrap_err().to_string();
        assert!(refused.contains("another key") && !refused.contains("p@ss"), "{refused}");
        let sealed = other.seal("").unwrap();
        assert_eq!(other.open(&sealed).unwrap(), "");
        std::fs::remove_file(dir.path().join("secret.key")).unwrap();
        assert!(vault(&dir, None).open(&sealed).unwrap_err().to_string().contains("missing"));
    }

    #[test]
    fn a_changed_text_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(&dir, None);
        let sealed = vault.seal("secret").unwrap();
        let mut bytes = BASE64.decode(&sealed[PREFIX.len()..]).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        let flipped = format!("{PREFIX}{}", BASE64.encode(bytes));
        for text in [&flipped, "", "v1:", "v1:AAAA", "v1:ä", "secret", &sealed[..20]] {
            assert!(vault.open(text).unwrap_err().to_string().contains("damaged"), "{text}");
        }
    }

    #[test]
    fn the_key_lies_where_only_its_user_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret.key");
        vault(&dir, None).seal("x").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(vault(&dir, None).seal("x").unwrap_err().to_string().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "short\n").unwrap();
        assert!(vault(&dir, None).seal("x").unwrap_err().to_string().contains("no key"));
        let short = Vault::new(&DataDir::open(dir.path()).unwrap(), &|_| Some("short".to_owned()));
        assert!(short.unwrap_err().to_string().contains("32 characters"));
    }
}
