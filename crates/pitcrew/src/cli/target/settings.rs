//! Variables and pools, here or on a server.

use pitcrew_store::{Pool, StoreError, Variable, VariableSet};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Target;
use crate::cli::control::Peers;
use crate::cli::error::invalid;

/// As Airflow's API shapes a variable.
#[derive(Deserialize)]
struct VariableRow {
    key: String,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    description: Option<String>,
}

impl From<VariableRow> for Variable {
    fn from(row: VariableRow) -> Variable {
        let VariableRow { key, value, description } = row;
        Variable { key, value: value.unwrap_or_default(), description: description.unwrap_or_default() }
    }
}

#[derive(Deserialize)]
struct PoolRow {
    name: String,
    /// Airflow's -1 is "without end".
    slots: i64,
    #[serde(default)]
    description: Option<String>,
}

const VARIABLES: [&str; 3] = ["api", "v2", "variables"];
const POOLS: [&str; 3] = ["api", "v2", "pools"];

pub(super) fn with<'a>(base: [&'a str; 3], name: &'a str) -> [&'a str; 4] {
    [base[0], base[1], base[2], name]
}

/// Variables.
impl Target {
    pub async fn variables(&self) -> anyhow::Result<Vec<Variable>> {
        match self {
            Target::Here(context) => Ok(context.store.variables(pitcrew_store::Paging::ALL).await?.rows),
            Target::There(remote) => {
                let rows = remote.all(&VARIABLES, "variables").await?;
                let row = |row| Ok(serde_json::from_value::<VariableRow>(row)?.into());
                rows.into_iter().map(row).collect()
            }
        }
    }

    /// Without those that the environment gives, which are not the store's to hand on.
    pub async fn own_variables(&self) -> anyhow::Result<Vec<Variable>> {
        let mut all = self.variables().await?;
        if let Target::Here(context) = self {
            all.retain(|variable| context.store.given().variable(&variable.key).is_none());
        }
        Ok(all)
    }

    pub async fn variable(&self, key: &str) -> anyhow::Result<Option<Variable>> {
        match self {
            Target::Here(context) => Ok(context.store.variable(key).await?),
            Target::There(remote) => {
                Ok(remote.find::<VariableRow>(&with(VARIABLES, key), &[]).await?.map(Variable::from))
            }
        }
    }

    pub async fn set_variable(&self, set: VariableSet) -> anyhow::Result<()> {
        match self {
            Target::Here(context) => {
                let mut audit = context.audit("variable.set");
                audit.detail = json!({ "key": set.key });
                context.store.set_variable(set, audit).await.map_err(refused)
            }
            Target::There(remote) => {
                let mut body = json!({ "key": set.key, "value": set.value });
                if let Some(description) = &set.description {
                    body["description"] = json!(description);
                }
                let there = remote.find::<Value>(&with(VARIABLES, &set.key), &[]).await?.is_some();
                match there {
                    true => remote.patch(&with(VARIABLES, &set.key), body).await.map(drop),
                    false => remote.post::<Value>(&VARIABLES, body).await.map(drop),
                }
            }
        }
    }

    /// Says whether it was there.
    pub async fn delete_variable(&self, key: &str) -> anyhow::Result<bool> {
        match self {
            Target::Here(context) => {
                let mut audit = context.audit("variable.delete");
                audit.detail = json!({ "key": key });
                context.store.delete_variable(key, audit).await.map_err(refused)
            }
            Target::There(remote) => remote.delete(&with(VARIABLES, key)).await,
        }
    }

    /// Tells whoever works here that variables or pools changed; a server notices by itself.
    pub async fn changed(&self) {
        if let Target::Here(context) = self {
            Peers::find(&context.data).await.look().await;
        }
    }
}

/// Pools.
impl Target {
    pub async fn pools(&self) -> anyhow::Result<Vec<Pool>> {
        match self {
            Target::Here(context) => Ok(context.store.pools().await?),
            Target::There(remote) => {
                let rows = remote.all(&POOLS, "pools").await?;
                let row = |row| {
                    let PoolRow { name, slots, description } = serde_json::from_value(row)?;
                    let slots = u32::try_from(slots).unwrap_or(u32::MAX);
                    Ok(Pool { name, slots, description: description.unwrap_or_default() })
                };
                rows.into_iter().map(row).collect()
            }
        }
    }

    pub async fn put_pool(&self, pool: Pool) -> anyhow::Result<()> {
        match self {
            Target::Here(context) => {
                let mut audit = context.audit("pool.set");
                audit.detail = json!({ "name": pool.name, "slots": pool.slots });
                context.store.put_pool(pool, audit).await.map_err(refused)
            }
            Target::There(remote) => {
                let there = remote.find::<Value>(&with(POOLS, &pool.name), &[]).await?.is_some();
                let mut body = json!({ "slots": pool.slots, "description": pool.description });
                match there {
                    true => remote.patch(&with(POOLS, &pool.name), body).await.map(drop),
                    false => {
                        body["name"] = json!(pool.name);
                        remote.post::<Value>(&POOLS, body).await.map(drop)
                    }
                }
            }
        }
    }

    /// Says whether it was there.
    pub async fn delete_pool(&self, name: &str) -> anyhow::Result<bool> {
        match self {
            Target::Here(context) => {
                let mut audit = context.audit("pool.delete");
                audit.detail = json!({ "name": name });
                context.store.delete_pool(name, audit).await.map_err(refused)
            }
            Target::There(remote) => remote.delete(&with(POOLS, name)).await,
        }
    }
}

pub(super) fn refused(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Invalid(why) => invalid(why),
        other => other.into(),
    }
}
