//! All secrets that this process can look up, and those of its own store.
//!
//! A secret of the store is sealed by the [`Vault`]; the database and its copies hold nothing that can be read.

use std::sync::Arc;

use async_trait::async_trait;
use pitcrew_exec::aws::{Aws, REGION};
use pitcrew_exec::secrets::{
    EnvProvider, Fetched, FileProvider, LIFETIME, Provider, Secret, SecretError, SecretErrorKind, SecretRef, Secrets,
    SecretsManager, Source, version,
};
use pitcrew_store::{Store, StoreError};

use crate::vault::Vault;

/// The door to AWS, with the variables of this process and the region of its settings. Asks nobody yet.
pub fn aws(region: &str) -> anyhow::Result<Aws> {
    let region = region.to_owned();
    Ok(Aws::new(Arc::new(move |name| match name {
        REGION => Some(region.clone()),
        _ => std::env::var(name).ok(),
    }))?)
}

/// Everything that can be looked up here. Asks nobody yet.
pub fn open(store: &Store, vault: &Vault, aws: &Aws) -> anyhow::Result<Secrets> {
    let own = StoreProvider { store: store.clone(), vault: vault.clone() };
    let aws = SecretsManager::new(aws.clone());
    Ok(Secrets::new(vec![Arc::new(own), Arc::new(EnvProvider), Arc::new(FileProvider), Arc::new(aws)], LIFETIME))
}

/// The secrets of the store. They are written where the change can be audited, see [`seal`].
struct StoreProvider {
    store: Store,
    vault: Vault,
}

#[async_trait]
impl Provider for StoreProvider {
    fn has(&self, source: &Source) -> bool {
        matches!(source, Source::Store(_) | Source::Conn(_))
    }

    fn is_near(&self) -> bool {
        true
    }

    async fn get(&self, reference: &SecretRef) -> Result<Fetched, SecretError> {
        let name = match &reference.source {
            Source::Store(name) => name,
            Source::Conn(id) => return self.connection(id, reference.field.is_some()).await,
            _ => return Err(SecretError::malformed(format!("`{reference}` is no secret of the store"))),
        };
        let row = self.store.secret(name).await.map_err(|error| unreadable(name, &error))?;
        let row = row.ok_or_else(|| {
            SecretError::missing(format!("the store has no secret `{name}`: `pitcrew secrets put {name}` makes one"))
        })?;
        let value = self.vault.open(&row.value).map_err(|error| {
            SecretError::new(SecretErrorKind::Other, format!("the secret `{name}` of the store: {error:#}"))
        })?;
        Ok(Fetched { value: Secret::new(value), version: row.revision.to_string() })
    }
}

impl StoreProvider {
    /// The password of a connection, or its extras.
    async fn connection(&self, id: &str, extras: bool) -> Result<Fetched, SecretError> {
        let row = self.store.connection(id).await.map_err(|error| unreadable(id, &error))?;
        let row = row.ok_or_else(|| SecretError::missing(format!("there is no connection `{id}`")))?;
        let (sealed, what) = if extras { (row.extra, "extras") } else { (row.password, "password") };
        let sealed = sealed.ok_or_else(|| SecretError::missing(format!("the connection `{id}` has no {what}")))?;
        let value = self.vault.open(&sealed).map_err(|error| {
            SecretError::new(SecretErrorKind::Other, format!("the {what} of the connection `{id}`: {error:#}"))
        })?;
        Ok(Fetched { version: version(value.as_bytes()), value: Secret::new(value) })
    }
}

fn unreadable(name: &str, error: &StoreError) -> SecretError {
    SecretError::new(
        SecretErrorKind::Unreachable,
        format!("the secret `{name}` cannot be read from the store: {error}"),
    )
}
