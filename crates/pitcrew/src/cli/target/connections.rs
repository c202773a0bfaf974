//! Connections, here or on a server.

use pitcrew_control::connection::Connection;
use pitcrew_control::ssh::{self, Tested};
use serde_json::{Value, json};

use super::Target;
use super::settings::{refused, with};
use crate::cli::context::Context;

const CONNECTIONS: [&str; 3] = ["api", "v2", "connections"];

impl Target {
    /// Every connection. Passwords and extras are those of the store here, and hidden by a server elsewhere.
    pub async fn connections(&self) -> anyhow::Result<Vec<Connection>> {
        match self {
            Target::Here(context) => {
                let rows = context.store.connections(None, pitcrew_store::Paging::ALL).await?.rows;
                rows.into_iter().map(|row| Connection::open(row, &context.vault)).collect()
            }
            Target::There(remote) => {
                let rows = remote.all(&CONNECTIONS, "connections").await?;
                rows.into_iter().map(Connection::from_airflow).collect()
            }
        }
    }

    /// Without those that the environment gives, which are not the store's to hand on.
    pub async fn own_connections(&self) -> anyhow::Result<Vec<Connection>> {
        let mut all = self.connections().await?;
        if let Target::Here(context) = self {
            all.retain(|connection| context.store.given().connection(&connection.id).is_none());
        }
        Ok(all)
    }

    pub async fn connection(&self, id: &str) -> anyhow::Result<Option<Connection>> {
        match self {
            Target::Here(context) => match context.store.connection(id).await? {
                Some(row) => Connection::open(row, &context.vault).map(Some),
                None => Ok(None),
            },
            Target::There(remote) => {
                let found = remote.find::<Value>(&with(CONNECTIONS, id), &[]).await?;
                found.map(Connection::from_airflow).transpose()
            }
        }
    }

    pub async fn put_connection(&self, connection: Connection) -> anyhow::Result<()> {
        match self {
            Target::Here(context) => {
                let mut audit = context.audit("connection.set");
                audit.detail = json!({ "id": connection.id, "conn_type": connection.conn_type });
                let row = connection.seal(&context.vault)?;
                context.store.put_connection(row, audit).await.map(drop).map_err(refused)
            }
            Target::There(remote) => {
                let there = remote.find::<Value>(&with(CONNECTIONS, &connection.id), &[]).await?.is_some();
                let body = connection.to_airflow();
                match there {
                    true => remote.patch(&with(CONNECTIONS, &connection.id), body).await.map(drop),
                    false => remote.post::<Value>(&CONNECTIONS, body).await.map(drop),
                }
            }
        }
    }

    /// Says whether it was there.
    pub async fn delete_connection(&self, id: &str) -> anyhow::Result<bool> {
        match self {
            Target::Here(context) => delete_connection(context, id).await,
            Target::There(remote) => remote.delete(&with(CONNECTIONS, id)).await,
        }
    }

    /// Signs in to where it leads, from here or from the server.
    pub async fn test_connection(&self, connection: Connection) -> anyhow::Result<Tested> {
        match self {
            Target::Here(context) => {
                let setup = ssh::setup(&context.data, &context.secrets);
                ssh::test(&setup, &connection, &context.settings.ssh()).await.map_err(crate::cli::error::refused)
            }
            Target::There(remote) => {
                let path = ["api", "pitcrew", "v1", "connections", connection.id.as_str(), "test"];
                remote.post(&path, json!({})).await
            }
        }
    }

    /// Whether secrets of connections can be read here.
    pub fn knows_secrets(&self) -> bool {
        matches!(self, Target::Here(_))
    }
}

async fn delete_connection(context: &Context, id: &str) -> anyhow::Result<bool> {
    let mut audit = context.audit("connection.delete");
    audit.detail = json!({ "id": id });
    context.store.delete_connection(id, audit).await.map_err(refused)
}
