//! Incidents of nodes, here or on a server.

use pitcrew_control::recovery::wish::{self, Deed, Wish};
use pitcrew_core::recovery::{Incident, IncidentId, Outcome};
use pitcrew_store::{IncidentFilter, Paging};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Target;
use crate::cli::context;
use crate::cli::error::invalid;

const RECORDS: [&str; 5] = ["api", "pitcrew", "v1", "records", "incidents"];

impl Target {
    /// The newest first, `most` of them.
    pub async fn incidents(&self, filter: &IncidentFilter, most: u32) -> anyhow::Result<Vec<Incident>> {
        match self {
            Target::Here(context) => Ok(context.store.incidents(filter, Paging::first(most)).await?.rows),
            Target::There(remote) => {
                #[derive(Deserialize)]
                struct Answer {
                    incidents: Vec<Incident>,
                }
                let mut query = vec![("limit", most.to_string())];
                query.extend(filter.open.map(|open| ("open", open.to_string())));
                query.extend(filter.node.iter().map(|node| ("node", node.clone())));
                let answer: Answer = remote.get(&RECORDS, &query).await?;
                Ok(answer.incidents)
            }
        }
    }

    /// `inc-7`, or `7`.
    pub async fn incident(&self, text: &str) -> anyhow::Result<Incident> {
        let number = text.strip_prefix("inc-").unwrap_or(text).parse();
        let number = number.map_err(|_| invalid(format!("`{text}` is no incident: it is called like `inc-7`")))?;
        let id = IncidentId(number);
        let found = match self {
            Target::Here(context) => context.store.incident(id).await?,
            Target::There(remote) => {
                let [api, own, version, records, incidents] = RECORDS;
                remote.find(&[api, own, version, records, incidents, &id.to_string()], &[]).await?
            }
        };
        let hint = || format!("`{} incidents list` shows all of them", self.pitcrew());
        found.ok_or_else(|| invalid(format!("there is no incident `{text}`\nhint: {}", hint())))
    }

    /// What somebody says to an incident. Whether a server hears it now.
    pub async fn say_to_incident(
        &self,
        incident: &Incident,
        deed: Deed,
        reason: String,
        repair: Option<String>,
    ) -> anyhow::Result<bool> {
        let id = incident.id;
        let plan = incident.plan.filter(|_| deed == Deed::Approve);
        if let (Some(now), Some(seen)) = (plan, repair)
            && seen != now.name()
        {
            return Err(invalid(format!("{id} needs `{now}`, and not `{seen}`\nhint: look at it again")));
        }
        match self {
            Target::Here(context) => {
                match (deed, incident.is_open(), incident.outcome) {
                    (Deed::Retry, false, Some(Outcome::OutOfService)) | (Deed::Approve | Deed::Dismiss, true, _) => {}
                    (Deed::Dismiss, false, Some(Outcome::OutOfService)) => {}
                    (Deed::Retry, _, _) => {
                        return Err(invalid(format!("{id} is not out of service, so it is not tried again")));
                    }
                    (Deed::Approve | Deed::Dismiss, false, _) => return Err(invalid(format!("{id} is over"))),
                }
                if deed == Deed::Approve && plan.is_none() {
                    return Err(invalid(format!("{id} waits with no repair: there is nothing to approve")));
                }
                let wish = Wish { deed, by: context::who(), why: reason, repair: plan };
                wish::put(&context.store, id, &wish, context.audit(&format!("incident.{}", deed.name()))).await?;
                Ok(context.server_url().await.is_some())
            }
            // The server that leads knows more than the row says: whether it can be done now.
            Target::There(remote) => {
                let body = match deed {
                    Deed::Dismiss => json!({ "reason": reason }),
                    Deed::Approve => plan.map_or(json!({}), |plan| json!({ "repair": plan.name() })),
                    Deed::Retry => json!({}),
                };
                let path = ["api", "pitcrew", "v1", "incidents", &id.to_string(), deed.name()];
                let _: Value = remote.post(&path, body).await?;
                Ok(true)
            }
        }
    }
}
