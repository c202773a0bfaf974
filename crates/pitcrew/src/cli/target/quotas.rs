//! Quotas, here or on a server.

use pitcrew_control::quotas::{self, QuotaView};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Target;
use super::settings::refused;
use crate::cli::context;

const QUOTAS: [&str; 4] = ["api", "pitcrew", "v1", "quotas"];

impl Target {
    /// Every quota; what is in use, a server alone knows.
    pub async fn quotas(&self) -> anyhow::Result<Vec<QuotaView>> {
        match self {
            Target::Here(context) => Ok(quotas::views(context.store.quotas().await?, &[])),
            Target::There(remote) => {
                #[derive(Deserialize)]
                struct Answer {
                    quotas: Vec<QuotaView>,
                }
                let answer: Answer = remote.get(&QUOTAS, &[]).await?;
                Ok(answer.quotas)
            }
        }
    }

    /// Makes a quota or changes one.
    pub async fn set_quota(&self, namespace: &str, changes: Vec<(String, Option<String>)>) -> anyhow::Result<()> {
        match self {
            Target::Here(context) => {
                quotas::set(&context.store, &context::who(), namespace, &changes).await.map_err(refused)
            }
            Target::There(remote) => {
                let body: Map<String, Value> =
                    changes.into_iter().map(|(key, text)| (key, text.map_or(Value::Null, Value::from))).collect();
                let [api, own, version, quotas] = QUOTAS;
                remote.patch(&[api, own, version, quotas, namespace], body.into()).await.map(drop)
            }
        }
    }

    /// Says whether it was there.
    pub async fn delete_quota(&self, namespace: &str) -> anyhow::Result<bool> {
        match self {
            Target::Here(context) => {
                let audit = quotas::audit_of_deletion(&context::who(), namespace);
                context.store.delete_quota(namespace, audit).await.map_err(refused)
            }
            Target::There(remote) => {
                let [api, own, version, quotas] = QUOTAS;
                remote.delete(&[api, own, version, quotas, namespace]).await
            }
        }
    }
}
