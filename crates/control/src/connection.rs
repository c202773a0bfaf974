//! A connection: how to reach another system, in Airflow's fields and in the forms that its users write: a URI, JSON, or
//! one field at a time.
//!
//! The password and the extras are secrets. The store has them sealed; nothing shows them but an export by somebody who
//! holds the key.

use std::fmt;

use anyhow::{Context as _, anyhow, bail};
use percent_encoding::percent_decode_str;
use pitcrew_store::Connection as Row;
use serde_json::{Map, Value, json};

use crate::vault::Vault;

/// With its secrets in the clear: never logged, never printed but by an export.
#[derive(Clone, Default, PartialEq)]
pub struct Connection {
    pub id: String,
    pub conn_type: String,
    pub description: String,
    pub host: String,
    pub schema: String,
    pub login: String,
    pub port: Option<u16>,
    pub password: Option<String>,
    /// A JSON document as text.
    pub extra: Option<String>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({}, {})", self.id, self.conn_type)
    }
}

impl Connection {
    /// Reads a row of the store.
    pub fn open(row: Row, vault: &Vault) -> anyhow::Result<Connection> {
        let open = |sealed: Option<String>| sealed.map(|sealed| vault.open(&sealed)).transpose();
        let password = open(row.password).with_context(|| format!("the password of the connection `{}`", row.id))?;
        let extra = open(row.extra).with_context(|| format!("the extras of the connection `{}`", row.id))?;
        Ok(Connection {
            password,
            extra,
            id: row.id,
            conn_type: row.conn_type,
            description: row.description,
            host: row.host,
            schema: row.schema,
            login: row.login,
            port: row.port,
        })
    }

    /// As a row of the store.
    pub fn seal(self, vault: &Vault) -> anyhow::Result<Row> {
        Ok(Row {
            password: self.password.map(|text| vault.seal(&text)).transpose()?,
            extra: self.extra.map(|text| vault.seal(&text)).transpose()?,
            id: self.id,
            conn_type: self.conn_type,
            description: self.description,
            host: self.host,
            schema: self.schema,
            login: self.login,
            port: self.port,
        })
    }

    /// `type://login:password@host:port/schema?key=value`, each part escaped; the query is the extras.
    pub fn from_uri(id: &str, uri: &str) -> anyhow::Result<Connection> {
        let (scheme, rest) = uri.split_once("://").context("is no URI: it must begin with a type and `://`")?;
        // A type such as `http` has rules for hosts that other connections do not follow.
        let url: reqwest::Url =
            format!("connection://{rest}").parse().map_err(|error| anyhow!("is no URI: {error}"))?;
        let text = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let pairs: Map<String, Value> = url.query_pairs().map(|(k, v)| (k.into_owned(), json!(v))).collect();
        let extra = match pairs.get("__extra__").and_then(Value::as_str) {
            Some(document) => Some(document.to_owned()),
            None if pairs.is_empty() => None,
            None => Some(Value::Object(pairs).to_string()),
        };
        let mut connection = Connection {
            id: id.to_owned(),
            conn_type: conn_type(scheme),
            host: url.host_str().map(text).unwrap_or_default(),
            schema: text(url.path().trim_start_matches('/')),
            login: text(url.username()),
            port: url.port(),
            password: url.password().map(text),
            ..Connection::default()
        };
        connection.set_extra(extra)?;
        Ok(connection)
    }

    /// `{"conn_type": …, "host": …, "extra": …}`, where `extra` is an object or a JSON text; or a URI as a text.
    pub fn from_json(id: &str, value: &Value) -> anyhow::Result<Connection> {
        let fields = match value {
            Value::String(uri) => return Connection::from_uri(id, uri),
            Value::Object(fields) => fields,
            _ => bail!("must be an object of fields, or a URI as a text"),
        };
        let mut connection = Connection { id: id.to_owned(), ..Connection::default() };
        for (key, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            let text = || match value {
                Value::String(text) => Ok(text.clone()),
                Value::Number(number) => Ok(number.to_string()),
                _ => Err(anyhow!("`{key}` must be a text")),
            };
            match key.as_str() {
                "conn_type" => connection.conn_type = conn_type(&text()?),
                "description" => connection.description = text()?,
                "host" => connection.host = text()?,
                "schema" => connection.schema = text()?,
                "login" => connection.login = text()?,
                "password" => connection.password = Some(text()?),
                "port" => connection.port = Some(port(&text()?)?),
                "extra" if value.is_object() => connection.extra = Some(value.to_string()),
                "extra" => connection.set_extra(Some(text()?))?,
                "connection_id" | "conn_id" | "id" | "team_name" => {}
                other => bail!("`{other}` is no field of a connection"),
            }
        }
        if connection.conn_type.is_empty() {
            bail!("`conn_type` is missing");
        }
        Ok(connection)
    }

    /// As Airflow's API shapes it. A password that the server hides is none that could be used.
    pub fn from_airflow(row: Value) -> anyhow::Result<Connection> {
        let id = row["connection_id"].as_str().context("a connection without `connection_id`")?.to_owned();
        let mut connection = Connection::from_json(&id, &row)?;
        connection.password.take_if(|password| password == "***");
        Ok(connection)
    }

    /// As Airflow's API takes it; a secret that is not known is left as it is there.
    pub fn to_airflow(&self) -> Value {
        let mut body = self.to_json();
        body["connection_id"] = json!(self.id);
        if self.password.is_none()
            && let Some(body) = body.as_object_mut()
        {
            body.shift_remove("password");
        }
        body
    }

    /// As Airflow's `connections export` writes it, secrets included.
    pub fn to_json(&self) -> Value {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        json!({
            "conn_type": self.conn_type,
            "description": text(&self.description),
            "login": text(&self.login),
            "password": self.password,
            "host": text(&self.host),
            "port": self.port,
            "schema": text(&self.schema),
            "extra": self.extra,
        })
    }

    /// Checks that the extras are JSON; an empty text means none.
    pub fn set_extra(&mut self, extra: Option<String>) -> anyhow::Result<()> {
        self.extra = extra.filter(|extra| !extra.trim().is_empty());
        match &self.extra {
            Some(extra) => match serde_json::from_str::<Value>(extra) {
                Ok(_) => Ok(()),
                // The message of the parser could hold a part of the secret.
                Err(error) => bail!("`extra` is not JSON (line {}, column {})", error.line(), error.column()),
            },
            None => Ok(()),
        }
    }
}

/// Types are written with `-` in URIs, and PostgreSQL's goes by two names.
fn conn_type(text: &str) -> String {
    match text {
        "postgresql" => "postgres".to_owned(),
        other => other.replace('-', "_"),
    }
}

fn port(text: &str) -> anyhow::Result<u16> {
    text.parse().map_err(|_| anyhow!("`port` must be a number from 0 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_read_as_airflow_reads_it() {
        let read = Connection::from_uri("db", "postgresql://u%40x:p%2Fw@db.example:5433/main?sslmode=require").unwrap();
        assert_eq!((read.conn_type.as_str(), read.login.as_str()), ("postgres", "u@x"));
        assert_eq!((read.host.as_str(), read.port, read.schema.as_str()), ("db.example", Some(5433), "main"));
        assert_eq!(read.password.as_deref(), Some("p/w"));
        assert_eq!(read.extra.as_deref(), Some(r#"{"sslmode":"require"}"#));
        let read =
            Connection::from_uri("api", "http://https%3A%2F%2Fapi.example/v1?__extra__=%7B%22a%22%3A1%7D").unwrap();
        assert_eq!((read.conn_type.as_str(), read.host.as_str()), ("http", "https://api.example"));
        assert_eq!(read.extra.as_deref(), Some(r#"{"a":1}"#));
        assert!(Connection::from_uri("x", "no uri").is_err());
        assert!(Connection::from_uri("x", "a://h/?__extra__=nojson").is_err());
    }

    #[test]
    fn json_goes_there_and_back_and_wrong_fields_are_named() {
        let value =
            json!({ "conn_type": "ssh", "host": "gpu-1", "login": "ubuntu", "port": 22, "extra": {"key": "v"} });
        let read = Connection::from_json("gpu", &value).unwrap();
        assert_eq!(Connection::from_json("gpu", &read.to_json()).unwrap(), read);
        let hidden = Connection::from_airflow(json!({ "connection_id": "c", "conn_type": "a", "password": "***" }));
        assert_eq!(hidden.unwrap().password, None);
        let wrong = |value| Connection::from_json("c", &value).unwrap_err().to_string();
        assert_eq!(wrong(json!({ "conn_type": "a", "hots": "b" })), "`hots` is no field of a connection");
        assert_eq!(wrong(json!({ "conn_type": "a", "port": 70000 })), "`port` must be a number from 0 to 65535");
        assert_eq!(wrong(json!({ "host": "a" })), "`conn_type` is missing");
        let secret = wrong(json!({ "conn_type": "a", "extra": "hunter2 {" }));
        assert!(!secret.contains("hunter2"), "{secret}");
    }
}
