//! Named volumes of an engine.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::fault::{Fault, Kind};
use super::{Engine, escaped};

/// A volume.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    pub name: String,
    /// Where the engine has it, on the engine's own machine.
    #[serde(default)]
    pub mountpoint: String,
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct All {
    #[serde(default)]
    volumes: Option<Vec<Volume>>,
}

impl Engine {
    /// Makes a volume; one of the same name is taken as it is. `options` are those of the engine's own driver.
    pub async fn make_volume(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        options: &[(&str, String)],
    ) -> Result<Volume, Fault> {
        let options: BTreeMap<&str, &String> = options.iter().map(|(key, value)| (*key, value)).collect();
        let body: Value = json!({ "Name": name, "Driver": "local", "Labels": labels, "DriverOpts": options });
        self.ask(Method::POST, "/volumes/create", Some(&body)).await
    }

    pub async fn volume(&self, name: &str) -> Result<Volume, Fault> {
        self.ask(Method::GET, &format!("/volumes/{}", escaped(name)), None).await
    }

    /// Volumes that have all of these labels.
    pub async fn volumes(&self, labels: &[String]) -> Result<Vec<Volume>, Fault> {
        let filters = escaped(&json!({ "label": labels }).to_string());
        let all: All = self.ask(Method::GET, &format!("/volumes?filters={filters}"), None).await?;
        Ok(all.volumes.unwrap_or_default())
    }

    /// Deletes a volume; one that is gone already is none that fails.
    pub async fn remove_volume(&self, name: &str) -> Result<(), Fault> {
        match self.whole(Method::DELETE, &format!("/volumes/{}", escaped(name)), None).await {
            Err(fault) if fault.kind == Kind::NotFound => Ok(()),
            other => other.map(drop),
        }
    }
}
