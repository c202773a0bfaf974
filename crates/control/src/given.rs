//! Variables and connections of the environment: `PITCREW_VAR_NAME` and `PITCREW_CONN_NAME`, as Airflow has them.
//!
//! They win over what is stored under the same name, whatever its case. A variable is its value; a connection is a URI or
//! a JSON object. What cannot be read is refused at once, with its name and without its value.

use anyhow::Context as _;
use pitcrew_store::{Given, Variable};
use serde_json::Value;

use crate::connection::Connection;
use crate::vault::Vault;

const VARIABLE: &str = "PITCREW_VAR_";
const CONNECTION: &str = "PITCREW_CONN_";

/// Picks them out of an environment. The vault makes its key when a connection with a secret is the first thing that it
/// seals.
pub fn read(env: impl Iterator<Item = (String, String)>, vault: &Vault) -> anyhow::Result<Given> {
    let mut given = Given::default();
    for (from, text) in env {
        let shown = || format!("given by `{from}`");
        if let Some(name) = from.strip_prefix(VARIABLE).filter(|name| !name.is_empty()) {
            let variable = Variable { key: name.to_lowercase(), value: text, description: shown() };
            given.add_variable(from, variable);
        } else if let Some(id) = from.strip_prefix(CONNECTION).filter(|id| !id.is_empty() && !text.trim().is_empty()) {
            let mut connection = connection(&id.to_lowercase(), &text).with_context(|| format!("`{from}`"))?;
            if connection.description.is_empty() {
                connection.description = shown();
            }
            let row = connection.seal(vault)?;
            given.add_connection(from, row);
        }
    }
    Ok(given)
}

/// A JSON object begins with a brace; everything else is a URI.
fn connection(id: &str, text: &str) -> anyhow::Result<Connection> {
    let text = text.trim();
    if !text.starts_with('{') {
        return Connection::from_uri(id, text);
    }
    let value: Value = serde_json::from_str(text)
        .map_err(|error| anyhow::anyhow!("is not JSON (line {}, column {})", error.line(), error.column()))?;
    Connection::from_json(id, &value)
}

/// The environment of this process; what is no text is not ours.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

#[cfg(test)]
mod tests {
    use pitcrew_store::{Paging, Store, StoreUrl};

    use super::*;
    use crate::paths::DataDir;

    #[tokio::test]
    async fn the_environment_gives_variables_and_connections_and_wrong_ones_are_told_without_their_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(&DataDir::open(dir.path()).unwrap(), &|_| None).unwrap();
        let env = |pairs: &[(&str, &str)]| {
            let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            read(pairs.into_iter(), &vault)
        };
        let given = env(&[
            ("HOME", "/root"),
            ("PITCREW_VAR_", "nameless"),
            ("PITCREW_VAR_DATA_BUCKET", "s3://x"),
            ("PITCREW_CONN_GPU", "ssh://ubuntu:hunter2@gpu-1:2222?key_file=%2Fk"),
            ("PITCREW_CONN_API", r#" {"conn_type": "http", "host": "api.example", "description": "mine"} "#),
            ("PITCREW_CONN_EMPTY", ""),
        ]);
        let store = Store::open(&StoreUrl::Memory).await.unwrap().with_given(given.unwrap());
        assert_eq!(store.variable("data_bucket").await.unwrap().unwrap().value, "s3://x");
        let rows = store.connections(None, Paging::ALL).await.unwrap().rows;
        let told: Vec<(&str, &str)> = rows.iter().map(|row| (row.id.as_str(), row.description.as_str())).collect();
        assert_eq!(told, [("api", "mine"), ("gpu", "given by `PITCREW_CONN_GPU`")]);
        let gpu = Connection::open(store.connection("GPU").await.unwrap().unwrap(), &vault).unwrap();
        assert_eq!((gpu.host.as_str(), gpu.port, gpu.password.as_deref()), ("gpu-1", Some(2222), Some("hunter2")));

        for (text, why) in [("hunter2", "is no URI"), ("{\"conn_type\": hunter2}", "is not JSON (line 1, column 15)")] {
            let told = format!("{:#}", env(&[("PITCREW_CONN_X", text)]).unwrap_err());
            assert!(
                told.starts_with("`PITCREW_CONN_X`: ") && told.contains(why) && !told.contains("hunter2"),
                "{told}"
            );
        }
    }
}
