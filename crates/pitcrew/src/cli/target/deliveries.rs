//! Deliveries of webhooks.

use pitcrew_control::hooks::view::{self, Line};
use pitcrew_store::{DeliveryFilter, Paging};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Target;
use crate::cli::context::who;

const DELIVERIES: [&str; 4] = ["api", "pitcrew", "v1", "deliveries"];

impl Target {
    /// The newest first.
    pub async fn deliveries(&self, filter: &DeliveryFilter, limit: u32) -> anyhow::Result<Vec<Line>> {
        match self {
            Target::Here(context) => {
                let page = context.store.deliveries(filter, Paging::first(limit)).await?;
                Ok(page.rows.iter().map(Line::from).collect())
            }
            Target::There(remote) => {
                #[derive(Deserialize)]
                struct Answer {
                    deliveries: Vec<Line>,
                }
                let mut query = vec![("limit", limit.min(100).to_string())];
                query.extend(filter.namespace.iter().map(|name| ("namespace", name.clone())));
                query.extend(filter.listener.iter().map(|name| ("listener", name.clone())));
                query.extend(filter.state.iter().map(|state| ("state", state.name().to_owned())));
                Ok(remote.get::<Answer>(&DELIVERIES, &query).await?.deliveries)
            }
        }
    }

    /// A delivery with what was posted.
    pub async fn delivery(&self, id: i64) -> anyhow::Result<Option<Value>> {
        match self {
            Target::Here(context) => {
                let Some(row) = context.store.delivery(id).await? else { return Ok(None) };
                let mut shown = json!(Line::from(&row));
                shown["posted"] = json!(view::posted(&context.vault, &row)?);
                Ok(Some(shown))
            }
            Target::There(remote) => {
                let [api, own, version, deliveries] = DELIVERIES;
                remote.find(&[api, own, version, deliveries, &id.to_string()], &[]).await
            }
        }
    }

    /// Sends a delivery once more; gives the number of the new one. `None`: it is not there, or what it held was not kept.
    pub async fn redeliver(&self, id: i64) -> anyhow::Result<Option<i64>> {
        match self {
            Target::Here(context) => Ok(view::redeliver(&context.store, id, &who(), context.now()).await?),
            Target::There(remote) => {
                let [api, own, version, deliveries] = DELIVERIES;
                let answer: Option<Value> =
                    remote.send(&[api, own, version, deliveries, &id.to_string(), "redeliver"]).await?;
                Ok(answer.and_then(|answer| answer["id"].as_i64()))
            }
        }
    }
}
