//! Looks at what waits, for as long as this server leads.
//!
//! Several deliveries are looked at side by side, since one may wait for an answer from elsewhere. What cannot be done now
//! (the store is away) is tried again; whatever else goes wrong is an outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pitcrew_store::{Owner, StoreError};
use serde_json::{Value, json};
use tokio::task::{Id, JoinError, JoinSet};

use super::fire;
use crate::app::App;
use crate::clock;

/// Deliveries that are looked at side by side.
const AT_ONCE: usize = 32;
/// How often the leading server looks when nobody wakes it: another one may have taken something.
const LOOK: Duration = Duration::from_secs(1);
/// How often a standby asks to lead.
const STAND_BY: Duration = Duration::from_secs(2);
/// Until what could not be done is tried again.
const AGAIN: SignedDuration = SignedDuration::from_secs(5);
/// How long deliveries are kept.
const KEPT: SignedDuration = SignedDuration::from_hours(14 * 24);
/// How often old ones are removed.
const SWEEP: SignedDuration = SignedDuration::from_hours(1);

/// What is being done.
#[derive(Default)]
struct Work {
    busy: JoinSet<Result<(), anyhow::Error>>,
    of_task: BTreeMap<Id, i64>,
    at_work: BTreeSet<i64>,
    /// When to try again.
    later: BTreeMap<i64, Timestamp>,
    swept: Option<Timestamp>,
}

/// Looks at deliveries for as long as the process lives. Only the leading server does.
pub async fn run(app: App, owner: Arc<Owner>) {
    let mut work = Work::default();
    loop {
        let wait = match app.store.try_lead(&owner).await {
            Ok(true) => {
                if let Err(error) = work.turn(&app).await {
                    tracing::warn!(%error, "cannot look what was posted");
                }
                LOOK
            }
            Ok(false) => STAND_BY,
            Err(error) => {
                tracing::warn!(%error, "cannot tell which server leads");
                STAND_BY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = app.hooks.waiting.notified() => {}
            Some(done) = work.busy.join_next_with_id() => work.done(&app, done).await,
        }
    }
}

impl Work {
    /// Begins with what waits, as far as there is room.
    async fn turn(&mut self, app: &App) -> Result<(), StoreError> {
        let now = clock::now();
        if self.swept.is_none_or(|at| now.duration_since(at) >= SWEEP) {
            self.swept = Some(now);
            let removed = app.store.remove_deliveries(now.saturating_sub(KEPT).unwrap_or(Timestamp::MIN), now).await?;
            if removed > 0 {
                tracing::info!("removed {removed} old deliveries of webhooks");
            }
        }
        let free = AT_ONCE.saturating_sub(self.at_work.len());
        if free == 0 {
            return Ok(());
        }
        self.later.retain(|_, at| *at > now);
        let known = self.at_work.len() + self.later.len();
        let waiting = app.store.waiting_deliveries(u32::try_from(known + AT_ONCE).unwrap_or(u32::MAX)).await?;
        let fresh = waiting.into_iter().filter(|id| !self.at_work.contains(id) && !self.later.contains_key(id));
        for id in fresh.take(free).collect::<Vec<_>>() {
            let app = app.clone();
            let task = self.busy.spawn(async move { settle(&app, id).await });
            self.of_task.insert(task.id(), id);
            self.at_work.insert(id);
        }
        Ok(())
    }

    async fn done(&mut self, app: &App, done: Result<(Id, anyhow::Result<()>), JoinError>) {
        let (task, result) = match done {
            Ok((task, result)) => (task, result),
            Err(error) => (error.id(), write(app, self.of_task.get(&error.id()).copied(), &fault(&error)).await),
        };
        let Some(id) = self.of_task.remove(&task) else { return };
        self.at_work.remove(&id);
        if let Err(error) = result {
            tracing::warn!("delivery {id} of a webhook cannot be looked at now: {error:#}");
            self.later.insert(id, clock::now().saturating_add(AGAIN).unwrap_or(Timestamp::MAX));
        }
    }
}

/// A fault of ours must not be met again and again.
fn fault(error: &JoinError) -> Value {
    tracing::error!(%error, "looking at a delivery of a webhook ended in a fault");
    json!([{ "result": "error", "why": "the server failed at this delivery; its log says why" }])
}

async fn write(app: &App, id: Option<i64>, outcome: &Value) -> anyhow::Result<()> {
    if let Some(id) = id {
        app.store.settle_delivery(id, outcome.clone(), clock::now()).await?;
    }
    Ok(())
}

/// Looks at one delivery, and writes what it came to. The error passes.
async fn settle(app: &App, id: i64) -> anyhow::Result<()> {
    let Some(row) = app.store.delivery(id).await? else { return Ok(()) };
    let outcome = fire::all(app, &row).await?;
    app.store.settle_delivery(id, outcome, clock::now()).await?;
    Ok(())
}
