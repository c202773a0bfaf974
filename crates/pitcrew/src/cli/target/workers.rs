//! Workers, here or on a server.

use jiff::Timestamp;
use pitcrew_control::clock;
use pitcrew_control::fleet::{Fleet, WorkerView};
use pitcrew_exec::worker::Hub;
use pitcrew_server::{NEVER, fresh_worker_token, node_audit, worker_audit, worker_token_view};
use pitcrew_store::{NodeChange, WorkerChange};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Target;
use super::settings::refused;
use crate::cli::context;
use crate::cli::error::invalid;
use crate::cli::session::home;

const WORKERS: [&str; 4] = ["api", "pitcrew", "v1", "workers"];

/// What somebody does to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerDeed {
    Drain,
    Undrain,
    Revoke,
}

/// A token to enrol with, without itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenView {
    pub id: String,
    pub queues: Vec<String>,
    pub made_by: String,
    pub created: Timestamp,
    pub expires: Option<Timestamp>,
    pub uses: Option<u32>,
    pub works: bool,
}

impl WorkerDeed {
    fn word(self) -> &'static str {
        match self {
            WorkerDeed::Drain => "drain",
            WorkerDeed::Undrain => "undrain",
            WorkerDeed::Revoke => "revoke",
        }
    }
}

impl Target {
    /// Every worker. How one stands, only the server knows that it calls; here it is `enrolled`.
    pub async fn workers(&self) -> anyhow::Result<Vec<WorkerView>> {
        match self {
            Target::Here(context) => {
                let fleet =
                    Fleet::look(context.store.clone(), &context.settings.nodes, home(context)?, context.now()).await?;
                let (events, _) = mpsc::unbounded_channel();
                let hub = Hub::new(context.data.root().to_owned(), context.settings.worker_lease(), events);
                let known = |worker: WorkerView| WorkerView {
                    standing: if worker.drain { "draining" } else { "enrolled" }.to_owned(),
                    reason: None,
                    ..worker
                };
                let ends = context.store.worker_ends().await?;
                Ok(fleet.workers(&hub, &ends).into_iter().map(known).collect())
            }
            Target::There(remote) => {
                #[derive(Deserialize)]
                struct Answer {
                    workers: Vec<WorkerView>,
                }
                let answer: Answer = remote.get(&WORKERS, &[]).await?;
                Ok(answer.workers)
            }
        }
    }

    /// The worker of that name.
    pub async fn worker(&self, name: &str) -> anyhow::Result<WorkerView> {
        let found = self.workers().await?.into_iter().find(|worker| worker.name == name);
        found.ok_or_else(|| {
            let hint = format!("`{} workers list` shows all of them", self.pitcrew());
            invalid(format!("there is no worker `{name}`\nhint: {hint}"))
        })
    }

    /// Makes a token to enrol with.
    pub async fn worker_token(
        &self,
        queues: Vec<String>,
        life: Option<String>,
        uses: Option<u32>,
    ) -> anyhow::Result<Value> {
        match self {
            Target::Here(context) => {
                let life = life.as_deref().map(pitcrew_lang::parse_duration).transpose().map_err(invalid)?;
                let expires = life.and_then(|life| clock::now().checked_add(life).ok());
                let who = context::who();
                let (row, secret) =
                    fresh_worker_token(queues, expires, uses, &who).map_err(|e| invalid(e.to_string()))?;
                let mut shown = json!({ "id": row.id, "queues": row.queues, "expires": expires, "uses": uses });
                let audit = worker_audit(&who, "worker.token", shown.clone());
                context.store.put_worker_token(row, audit).await.map_err(refused)?;
                shown["token"] = json!(secret);
                Ok(shown)
            }
            Target::There(remote) => {
                let [api, own, version, workers] = WORKERS;
                let life = life.unwrap_or_else(|| NEVER.to_owned());
                let body = json!({ "queues": queues, "expires": life, "uses": uses });
                remote.post(&[api, own, version, workers, "token"], body).await
            }
        }
    }

    /// Every token, also those that work no more.
    pub async fn worker_tokens(&self) -> anyhow::Result<Vec<TokenView>> {
        #[derive(Deserialize)]
        struct Answer {
            tokens: Vec<TokenView>,
        }
        match self {
            Target::Here(context) => {
                let rows = context.store.worker_tokens().await.map_err(refused)?;
                Ok(serde_json::from_value(rows.iter().map(worker_token_view).collect())?)
            }
            Target::There(remote) => {
                let [api, own, version, workers] = WORKERS;
                let answer: Answer = remote.get(&[api, own, version, workers, "token"], &[]).await?;
                Ok(answer.tokens)
            }
        }
    }

    pub async fn revoke_worker_token(&self, id: &str) -> anyhow::Result<()> {
        let was_there = match self {
            Target::Here(context) => {
                let audit = worker_audit(&context::who(), "worker.token.delete", json!({ "id": id }));
                context.store.delete_worker_token(id, audit).await.map_err(refused)?
            }
            Target::There(remote) => {
                let [api, own, version, workers] = WORKERS;
                remote.delete(&[api, own, version, workers, "token", id]).await?
            }
        };
        match was_there {
            true => Ok(()),
            false => {
                let hint = format!("`{} workers tokens list` shows all of them", self.pitcrew());
                Err(invalid(format!("there is no token `{id}`\nhint: {hint}")))
            }
        }
    }

    pub async fn do_to_worker(&self, name: &str, deed: WorkerDeed) -> anyhow::Result<()> {
        let worker = self.worker(name).await?;
        match self {
            Target::Here(context) => {
                let who = context::who();
                let drain = (deed != WorkerDeed::Revoke).then_some(deed == WorkerDeed::Drain);
                let revoked = (deed == WorkerDeed::Revoke).then(clock::now);
                let change = WorkerChange { about: None, drain, revoked };
                let audit = worker_audit(&who, &format!("worker.{}", deed.word()), json!({ "worker": name }));
                context.store.change_worker(&worker.id, change, Some(audit)).await.map_err(refused)?;
                if deed == WorkerDeed::Revoke {
                    // It leaves no mark to the next of its name.
                    let cordon = NodeChange { cordoned: Some(false), ..NodeChange::default() };
                    let audit = node_audit(&who, name, &cordon);
                    context.store.change_node(name, cordon, audit).await.map_err(refused)?;
                }
                self.changed().await;
            }
            Target::There(remote) => {
                let [api, own, version, workers] = WORKERS;
                let _: Value = remote.post(&[api, own, version, workers, name, deed.word()], json!({})).await?;
            }
        }
        Ok(())
    }
}
