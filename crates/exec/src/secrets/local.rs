//! Secrets of this machine: variables of the server's environment, and files.
//!
//! A file is read as it is, without its last line break, and only if no other user can read it.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;

use async_trait::async_trait;

use super::error::SecretError;
use super::{Fetched, LARGEST, Provider, Secret, SecretErrorKind, SecretRef, Source, cache};

/// The environment of this process.
pub struct EnvProvider;

/// Files of this machine.
pub struct FileProvider;

#[async_trait]
impl Provider for EnvProvider {
    fn has(&self, source: &Source) -> bool {
        matches!(source, Source::Env(_))
    }

    fn is_near(&self) -> bool {
        true
    }

    async fn get(&self, reference: &SecretRef) -> Result<Fetched, SecretError> {
        let Source::Env(name) = &reference.source else { return Err(cache::not_mine(reference)) };
        match std::env::var(name) {
            Ok(text) if !text.is_empty() => Ok(fetched(text.into_bytes())),
            Ok(_) => Err(SecretError::missing(format!("the variable `{name}` of the server's environment is empty"))),
            Err(_) => Err(SecretError::missing(format!("the server's environment has no variable `{name}`"))),
        }
    }
}

#[async_trait]
impl Provider for FileProvider {
    fn has(&self, source: &Source) -> bool {
        matches!(source, Source::File(_))
    }

    fn is_near(&self) -> bool {
        true
    }

    async fn get(&self, reference: &SecretRef) -> Result<Fetched, SecretError> {
        let Source::File(path) = &reference.source else { return Err(cache::not_mine(reference)) };
        let shown = path.display();
        let failed = |error: std::io::Error| {
            let kind = match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => SecretErrorKind::Missing,
                ErrorKind::PermissionDenied => SecretErrorKind::Denied,
                _ => SecretErrorKind::Other,
            };
            SecretError::new(kind, format!("cannot read the secret `{shown}`: {error}"))
        };
        let meta = tokio::fs::metadata(path).await.map_err(failed)?;
        if !meta.is_file() {
            return Err(SecretError::malformed(format!("the secret `{shown}` is no file")));
        }
        if meta.permissions().mode() & 0o077 != 0 {
            let mode = meta.permissions().mode() & 0o777;
            let words = format!("others can read the secret `{shown}` ({mode:04o}): `chmod 600 {shown}`");
            return Err(SecretError::new(SecretErrorKind::Denied, words));
        }
        if meta.len() > LARGEST as u64 {
            return Err(SecretError::malformed(format!(
                "`{shown}` is too large for a secret: at most {LARGEST} bytes"
            )));
        }
        let mut bytes = tokio::fs::read(path).await.map_err(failed)?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        if bytes.is_empty() {
            return Err(SecretError::missing(format!("the secret `{shown}` is empty")));
        }
        Ok(fetched(bytes))
    }
}

fn fetched(bytes: Vec<u8>) -> Fetched {
    Fetched { version: cache::version(&bytes), value: Secret::new(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_if_nobody_else_can() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let reference: SecretRef = format!("file:{}", path.display()).parse().unwrap();
        let said = |error: SecretError| (error.kind, error.words);
        assert_eq!(said(FileProvider.get(&reference).await.unwrap_err()).0, SecretErrorKind::Missing);
        std::fs::write(&path, "line 1\nline 2\r\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let (kind, words) = said(FileProvider.get(&reference).await.unwrap_err());
        assert!(kind == SecretErrorKind::Denied && words.contains("(0640)") && words.contains("chmod 600"), "{words}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(FileProvider.get(&reference).await.unwrap().value.expose(), b"line 1\nline 2");
        std::fs::write(&path, "\n").unwrap();
        assert!(said(FileProvider.get(&reference).await.unwrap_err()).1.contains("is empty"));
        let dir: SecretRef = format!("file:{}", dir.path().display()).parse().unwrap();
        assert!(said(FileProvider.get(&dir).await.unwrap_err()).1.contains("is no file"));
        let env: SecretRef = "env:PITCREW_NO_SUCH".parse().unwrap();
        assert_eq!(said(EnvProvider.get(&env).await.unwrap_err()).0, SecretErrorKind::Missing);
    }
}
