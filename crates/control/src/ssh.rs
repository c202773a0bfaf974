//! The `ssh` backend of this process: where its keys come from, and where it keeps what it has to remember.
//!
//! Invariant: a key is looked up when a connection is made, and kept by nobody but the connection.

pub mod place;
mod test;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use pitcrew_exec::secrets::{Secret, SecretError, SecretErrorKind, SecretRef, Secrets};
use pitcrew_exec::ssh::remote::{Seal, SshBackend, SshConfig};
use pitcrew_exec::ssh::{
    KEY_FIELDS, KeyError, KeySource, Limits, PASSPHRASE_FIELDS, PinFile, Pool, PrivateKeyText, Setup,
};
use pitcrew_exec::{EventSender, SshPlace};

use crate::paths::DataDir;
use crate::vault::Vault;

pub use place::draft;
pub use test::{Tested, test};

/// The connections of this process. Nothing is connected yet.
pub fn pool(data: &DataDir, secrets: &Secrets) -> Pool {
    Pool::new(setup(data, secrets), Limits::default())
}

/// What connecting needs, for this process.
pub fn setup(data: &DataDir, secrets: &Secrets) -> Setup {
    let pins = PinFile::new(data.root().join("ssh/known_hosts"));
    Setup::of_process(Arc::new(Keys(secrets.clone())), Arc::new(pins))
}

/// The backend, over these connections.
pub fn backend(data: &DataDir, pool: &Pool, vault: &Vault, events: EventSender) -> anyhow::Result<SshBackend> {
    let dir = data.root().join("ssh");
    let instance = instance(&dir).with_context(|| format!("cannot use `{}`", dir.display()))?;
    let config = SshConfig { instance, state_dir: dir.join("removals"), seal: Arc::new(Sealed(vault.clone())) };
    Ok(SshBackend::new(config, Arc::new(pool.clone()), events))
}

/// A random word that tells the attempts of this data directory from those of others on the same host.
pub fn instance(dir: &Path) -> std::io::Result<String> {
    std::fs::create_dir_all(dir)?;
    let file = dir.join("instance");
    loop {
        match std::fs::read_to_string(&file) {
            Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
            Ok(_) => std::fs::remove_file(&file)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        // Whoever links it first decides; it appears whole.
        let word = uuid::Uuid::now_v7().to_string();
        let made = dir.join(format!("instance.{word}"));
        std::fs::write(&made, word)?;
        let linked = std::fs::hard_link(&made, &file);
        std::fs::remove_file(&made)?;
        match linked {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
}

struct Sealed(Vault);

impl Seal for Sealed {
    fn seal(&self, text: &str) -> std::io::Result<String> {
        self.0.seal(text).map_err(std::io::Error::other)
    }

    fn open(&self, sealed: &str) -> std::io::Result<String> {
        self.0.open(sealed).map_err(std::io::Error::other)
    }
}

/// Keys by the references of a place, else by its connection.
struct Keys(Secrets);

#[async_trait]
impl KeySource for Keys {
    async fn keys(&self, place: &SshPlace, hop: usize, refresh: bool) -> Result<Vec<PrivateKeyText>, KeyError> {
        let own = place.jump.get(hop).and_then(|hop| hop.key.as_ref()).or(place.key.as_ref());
        let passphrase = match &place.passphrase {
            Some(reference) => Some(self.secret(reference, refresh).await.map_err(told)?),
            None => None,
        };
        let key = match (own, &place.connection) {
            (Some(reference), _) => Some((self.secret(reference, refresh).await.map_err(told)?, reference.clone())),
            (None, Some(id)) => self.of_connection(id, refresh).await?,
            (None, None) => None,
        };
        let Some((secret, origin)) = key else { return Ok(Vec::new()) };
        let inner = match secret.field_names() {
            // Else the text itself, which says what is wrong with it.
            Some(names) => Some(secret.field(&KEY_FIELDS).ok_or_else(|| {
                lasting(format!("`{origin}` is JSON without `private_key`; it has {}", listed(&names)))
            })?),
            None => None,
        };
        let passphrase = match (passphrase, &place.connection) {
            (Some(passphrase), _) => Some(passphrase),
            (None, Some(id)) if own.is_none() => self.phrase_of_connection(id, refresh).await?,
            (None, _) => secret.field(&PASSPHRASE_FIELDS),
        };
        let value = inner.unwrap_or(secret);
        let text =
            value.expose_text().ok_or_else(|| lasting(format!("`{origin}` holds no text, so no private key")))?;
        let phrase = passphrase.as_ref().and_then(Secret::expose_text);
        Ok(vec![PrivateKeyText::new(text, format!("`{origin}`")).with_passphrase(phrase)])
    }
}

impl Keys {
    async fn secret(&self, reference: &str, refresh: bool) -> Result<Secret, SecretError> {
        let reference = SecretRef::from_str(reference)?;
        let found = if refresh { self.0.refresh(&reference, None).await } else { self.0.get(&reference).await };
        Ok(found?.value)
    }

    /// A field of the extras of a connection, if it has it.
    async fn of_extra(&self, id: &str, field: &str, refresh: bool) -> Result<Option<Secret>, KeyError> {
        match self.secret(&format!("conn:{id}#{field}"), refresh).await {
            Ok(value) => Ok(Some(value)),
            Err(e) if matches!(e.kind, SecretErrorKind::Missing | SecretErrorKind::Malformed) => Ok(None),
            Err(e) => Err(told(e)),
        }
    }

    /// The key of a connection: by reference, or in Airflow's words. `None`: it names none.
    async fn of_connection(&self, id: &str, refresh: bool) -> Result<Option<(Secret, String)>, KeyError> {
        if let Some(reference) = self.of_extra(id, "key", refresh).await? {
            let reference = reference.expose_text().unwrap_or_default();
            return Ok(Some((self.secret(reference, refresh).await.map_err(told)?, reference.to_owned())));
        }
        if let Some(key) = self.of_extra(id, "private_key", refresh).await? {
            return Ok(Some((key, format!("conn:{id}"))));
        }
        let Some(path) = self.of_extra(id, "key_file", refresh).await? else { return Ok(None) };
        let path = path.expose_text().unwrap_or_default();
        let path = match (path.strip_prefix("~/"), std::env::var("HOME")) {
            (Some(rest), Ok(home)) => format!("{home}/{rest}"),
            _ => path.to_owned(),
        };
        let read = tokio::task::spawn_blocking(move || key_file(&path)).await;
        read.unwrap_or_else(|e| Err(lasting(e.to_string()))).map(Some)
    }

    /// What the key of a connection is encrypted with, if it says so.
    async fn phrase_of_connection(&self, id: &str, refresh: bool) -> Result<Option<Secret>, KeyError> {
        if let Some(reference) = self.of_extra(id, "passphrase", refresh).await? {
            let reference = reference.expose_text().unwrap_or_default();
            return self.secret(reference, refresh).await.map(Some).map_err(told);
        }
        self.of_extra(id, PASSPHRASE_FIELDS[0], refresh).await
    }
}

fn key_file(path: &str) -> Result<(Secret, String), KeyError> {
    let wrong = |e: std::io::Error| lasting(format!("cannot read the key file `{path}`: {e}"));
    let mode = std::fs::metadata(path).map_err(wrong)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(lasting(format!("others can read `{path}` ({:04o}): `chmod 600 {path}`", mode & 0o777)));
    }
    Ok((Secret::new(std::fs::read(path).map_err(wrong)?), path.to_owned()))
}

fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(8).map(|name| format!("`{}`", name.escape_debug())).collect();
    if shown.is_empty() { "nothing".to_owned() } else { shown.join(", ") }
}

fn lasting(words: String) -> KeyError {
    KeyError { words, lasting: true }
}

fn told(error: SecretError) -> KeyError {
    KeyError { lasting: error.lasting(), words: error.words }
}

#[cfg(test)]
mod tests {
    use pitcrew_exec::Hop;
    use pitcrew_exec::secrets::{Fetched, Provider, Source};

    use super::*;

    /// Secrets of the store and of connections, by their whole name.
    struct Fixed;

    #[async_trait]
    impl Provider for Fixed {
        fn has(&self, _: &Source) -> bool {
            true
        }

        async fn get(&self, reference: &SecretRef) -> Result<Fetched, SecretError> {
            let value = match reference.to_string().split('#').next().unwrap() {
                "store:raw" => "PEM raw",
                "store:json" => r#"{"private_key": "PEM json", "passphrase": "p"}"#,
                "store:odd" => r#"{"user": "u", "pem": "hunter2"}"#,
                "conn:gpu" => r#"{"private_key": "PEM conn", "private_key_passphrase": "q"}"#,
                "conn:bare" => r#"{"timeout": 5}"#,
                "conn:by-name" => r#"{"key": "store:raw", "passphrase": "store:json#passphrase"}"#,
                _ => return Err(SecretError::missing(format!("there is no `{reference}`"))),
            };
            Ok(Fetched { value: Secret::new(value), version: "1".into() })
        }
    }

    fn keys() -> Keys {
        Keys(Secrets::new(vec![Arc::new(Fixed)], std::time::Duration::ZERO))
    }

    #[tokio::test]
    async fn a_key_comes_from_its_reference_its_hop_or_its_connection() {
        let place = |key: Option<&str>, connection: Option<&str>| SshPlace {
            key: key.map(str::to_owned),
            connection: connection.map(str::to_owned),
            ..SshPlace::new("h", "u")
        };
        let found = async |place: &SshPlace, hop| {
            let keys = keys().keys(place, hop, false).await.map_err(|e| e.words)?;
            Ok::<_, String>(keys.iter().map(|key| format!("{key:?}")).collect::<Vec<_>>().join(" "))
        };
        for (place, origin) in [
            (place(Some("store:raw"), Some("gpu")), "store:raw"),
            (place(Some("store:json"), None), "store:json"),
            (place(None, Some("gpu")), "conn:gpu"),
            (place(None, Some("by-name")), "store:raw"),
        ] {
            let shown = found(&place, 0).await.unwrap();
            assert!(shown.contains(origin) && !shown.contains("PEM"), "{shown}");
        }
        assert_eq!(found(&place(None, Some("bare")), 0).await.unwrap(), "");
        assert_eq!(found(&place(None, None), 0).await.unwrap(), "");
        let hop = Hop { host: "b".into(), port: 22, user: "u".into(), key: Some("store:json".into()) };
        let jumping = SshPlace { jump: vec![hop], ..place(Some("store:raw"), None) };
        assert!(found(&jumping, 0).await.unwrap().contains("store:json"));
        assert!(found(&jumping, 1).await.unwrap().contains("store:raw"));
        let error = found(&place(Some("store:odd"), None), 0).await.unwrap_err();
        assert_eq!(error, "`store:odd` is JSON without `private_key`; it has `user`, `pem`");
        let error = found(&place(Some("-----BEGIN"), None), 0).await.unwrap_err();
        assert!(!error.contains("BEGIN"), "{error}");
    }

    #[test]
    fn a_key_file_must_be_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("k");
        std::fs::write(&file, "PEM").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let path = file.display().to_string();
        let error = key_file(&path).unwrap_err().words;
        assert_eq!(error, format!("others can read `{path}` (0644): `chmod 600 {path}`"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(key_file(&path).unwrap().0.expose(), b"PEM");
        assert!(key_file("/nonexistent/k").is_err());
    }

    #[test]
    fn a_data_directory_has_one_name_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let first = instance(dir.path()).unwrap();
        assert_eq!(instance(dir.path()).unwrap(), first);
        std::fs::write(dir.path().join("instance"), "").unwrap();
        assert_ne!(instance(dir.path()).unwrap(), first);
    }
}
