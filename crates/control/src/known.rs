//! The variables and connections that templates see: as they were last read from the store, or set by a run.
//!
//! Invariant: no secret of a connection ever becomes the value of a template. In its place stands a reference to it,
//! `conn:ID` for the password and `conn:ID#NAME` for an extra, for whatever takes the name of a secret.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use pitcrew_lang::Variables;
use pitcrew_store::{Paging, Store, StoreError};
use serde_json::{Map, Value, json};

use crate::connection::Connection;
use crate::sensitive::is_sensitive;
use crate::vault::Vault;

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Known(Arc<Inner>);

struct Inner {
    store: Store,
    vault: Vault,
    variables: RwLock<BTreeMap<String, String>>,
    /// One that cannot be opened says why.
    connections: RwLock<BTreeMap<String, Result<Arc<Connection>, String>>>,
}

impl Known {
    /// Knows nothing yet but what the store is given from outside.
    pub fn new(store: Store, vault: Vault) -> Known {
        Known(Arc::new(Inner { store, vault, variables: RwLock::default(), connections: RwLock::default() }))
    }

    /// Reads everything anew.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let variables = self.0.store.variables(Paging::ALL).await?.rows;
        let variables = variables.into_iter().map(|variable| (variable.key, variable.value)).collect();
        *self.0.variables.write().unwrap_or_else(PoisonError::into_inner) = variables;
        let connections = self.0.store.connections(None, Paging::ALL).await?.rows;
        let open = |row: pitcrew_store::Connection| (row.id.clone(), self.open(row));
        let connections = connections.into_iter().map(open).collect();
        *self.0.connections.write().unwrap_or_else(PoisonError::into_inner) = connections;
        Ok(())
    }

    fn open(&self, row: pitcrew_store::Connection) -> Result<Arc<Connection>, String> {
        Connection::open(row, &self.0.vault).map(Arc::new).map_err(|error| format!("{error:#}"))
    }

    /// The values of the variables whose names are chosen, the longest first, without those that stand in any text.
    pub fn values_of(&self, choose: impl Fn(&str) -> bool) -> Vec<String> {
        let map = self.0.variables.read().unwrap_or_else(PoisonError::into_inner);
        let chosen = map.iter().filter(|(name, value)| choose(name) && value.len() >= 4);
        let mut values: Vec<String> = chosen.map(|(_, value)| value.clone()).collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values
    }

    /// Set by a run, in a commit that is on its way.
    pub fn set(&self, name: String, value: String) {
        self.0.variables.write().unwrap_or_else(PoisonError::into_inner).insert(name, value);
    }

    /// A connection with its secrets; the error says why it cannot be read.
    pub fn connection(&self, id: &str) -> Option<Result<Arc<Connection>, String>> {
        let map = self.0.connections.read().unwrap_or_else(PoisonError::into_inner);
        map.get(id).cloned().or_else(|| Some(self.open(self.0.store.given().connection(id)?)))
    }
}

impl Variables for Known {
    fn get(&self, name: &str) -> Option<Value> {
        if let Some(given) = self.0.store.given().variable(name) {
            return Some(Value::String(given.value));
        }
        let map = self.0.variables.read().unwrap_or_else(PoisonError::into_inner);
        map.get(name).cloned().map(Value::String)
    }

    fn connection(&self, id: &str) -> Option<Result<Value, String>> {
        Some(self.connection(id)?.map(|connection| fields(&connection)))
    }
}

/// What a template may see, under Airflow's names; what is not set is left out.
fn fields(connection: &Connection) -> Value {
    let mut fields = Map::new();
    let texts = [
        ("conn_id", &connection.id),
        ("conn_type", &connection.conn_type),
        ("description", &connection.description),
        ("host", &connection.host),
        ("login", &connection.login),
        ("schema", &connection.schema),
    ];
    for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        fields.insert(name.to_owned(), json!(text));
    }
    if let Some(port) = connection.port {
        fields.insert("port".to_owned(), json!(port));
    }
    if connection.password.is_some() {
        fields.insert("password".to_owned(), json!(format!("conn:{}", connection.id)));
    }
    // What is no object has no names that could tell a secret.
    if let Some(Value::Object(mut extra)) = connection.extra.as_deref().and_then(|text| serde_json::from_str(text).ok())
    {
        for (name, value) in &mut extra {
            if is_sensitive(name) {
                *value = json!(format!("conn:{}#{name}", connection.id));
            } else {
                crate::sensitive::hide(value);
            }
        }
        fields.insert("extra".to_owned(), Value::Object(extra));
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_see_a_connection_without_its_secrets() {
        let connection = Connection {
            id: "gpu".into(),
            conn_type: "ssh".into(),
            host: "gpu-1".into(),
            port: Some(2222),
            password: Some("hunter2".into()),
            extra: Some(r#"{"private_key": "hunter2", "workspace": "/srv", "deep": {"token": "hunter2"}}"#.into()),
            ..Connection::default()
        };
        let shown = fields(&connection);
        let expected = json!({
            "conn_id": "gpu", "conn_type": "ssh", "host": "gpu-1", "port": 2222, "password": "conn:gpu",
            "extra": { "private_key": "conn:gpu#private_key", "workspace": "/srv", "deep": { "token": "***" } },
        });
        assert_eq!(shown, expected);
        assert_eq!(fields(&Connection { extra: Some("[\"hunter2\"]".into()), ..Connection::default() }), json!({}));
    }
}
