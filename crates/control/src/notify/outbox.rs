//! Empties the outbox: takes what is due, hands it to the channels, and writes what became of it.
//!
//! Invariants: only the leading server sends. A notice is settled after the channel has answered, so a crash between
//! the two sends it again: at least once, never not at all. Each channel works by itself: one that hangs holds up
//! nobody else, and one that fails is probed and not hammered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pitcrew_core::RunKey;
use pitcrew_store::{Notice, Owner, Settled, Store, StoreError};
use tokio::task::JoinSet;

use super::config::{Channel, Config, Kind};
use super::forge;
use super::message::Words;
use super::pace::{Pace, Plan};
use super::send::{Failed, Sender};
use crate::app::App;
use crate::clock;
use crate::metrics::Metrics;

/// Tries before a notice is given up; with the growing waits between them, about half a day.
const TRIES: u32 = 30;
/// Notices taken at a time.
const BATCH: u32 = 1_000;
/// Lets what belongs together come together.
const CALM: Duration = Duration::from_millis(200);
/// How often the outbox is looked at when nobody says that something is in it.
const LOOK: Duration = Duration::from_secs(30);
/// How often a standby asks to lead, and a database that is away is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// What empties the outbox.
#[derive(Clone)]
pub struct Outbox {
    pub store: Store,
    pub config: Arc<Config>,
    pub sender: Sender,
    pub metrics: Metrics,
    /// Where browsers find the server, without a slash at the end.
    pub base_url: String,
    pub now: Now,
}

/// The clock.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What the channels are doing, and did lately.
#[derive(Default)]
pub struct Desk {
    paces: BTreeMap<String, Pace>,
    busy: JoinSet<Done>,
    at_work: BTreeSet<String>,
}

/// A channel that has done what it was given.
struct Done {
    channel: String,
    pace: Pace,
}

impl Desk {
    /// Waits for the next channel that has done its work; `None` at once when all are idle.
    pub async fn done(&mut self) -> Option<()> {
        match self.busy.join_next().await? {
            Ok(done) => {
                self.at_work.remove(&done.channel);
                self.paces.insert(done.channel, done.pace);
            }
            Err(error) => {
                // Its notices still wait in the store.
                tracing::error!(%error, "sending notices ended in a fault");
                self.busy.shutdown().await;
                self.at_work.clear();
            }
        }
        Some(())
    }
}

impl Outbox {
    /// The outbox of this server, whose pages are at `base_url`.
    pub fn new(app: &App, base_url: String) -> anyhow::Result<Outbox> {
        let sender = Sender::new(app.store.clone(), app.vault.clone(), app.aws.clone())?;
        let (store, config, metrics) = (app.store.clone(), app.notify.clone(), app.metrics.clone());
        Ok(Outbox { store, config, sender, metrics, base_url, now: Arc::new(clock::now) })
    }

    /// Sends as long as the process lives.
    pub async fn run(self, owner: Arc<Owner>) {
        let mut changed = self.store.subscribe(Duration::from_secs(1));
        let mut desk = Desk::default();
        loop {
            let wait = match self.store.try_lead(&owner).await {
                Ok(true) => match self.turn(&mut desk).await {
                    Ok(wait) => wait,
                    Err(error) => {
                        tracing::warn!(%error, "cannot read the outbox");
                        AGAIN
                    }
                },
                Ok(false) => AGAIN,
                Err(error) => {
                    tracing::warn!(%error, "cannot tell which server leads");
                    AGAIN
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = changed.changed() => tokio::time::sleep(CALM).await,
                Some(()) = desk.done() => {}
            }
        }
    }

    /// Gives every idle channel what is due. Returns when to look again.
    pub async fn turn(&self, desk: &mut Desk) -> Result<Duration, StoreError> {
        let now = (self.now)();
        let mut by_channel: BTreeMap<String, Vec<Notice>> = BTreeMap::new();
        for notice in self.store.due_notices(now, BATCH).await? {
            by_channel.entry(notice.notice.channel.clone()).or_default().push(notice);
        }
        for (name, notices) in by_channel {
            if desk.at_work.contains(&name) {
                continue;
            }
            let Some(channel) = self.config.channels.get(&name).cloned().or_else(|| forge::channel(&name)) else {
                let error = format!("no channel `{name}` is configured: add it under `channels` in `pitcrew.yaml`");
                let failed = |notice: &Notice| (notice.id, Settled::Failed { error: error.clone() });
                self.settle(&name, notices.iter().map(failed).collect()).await;
                continue;
            };
            let mut pace = desk.paces.remove(&name).unwrap_or_default();
            let plan = pace.plan(notices.len(), channel.rate, channel.digest_from, now);
            if let Plan::Wait(until) = plan {
                // Else a channel that waits would fill every batch, and others would never be reached.
                let later = notices.iter().map(|notice| (notice.id, Settled::Later { at: until }));
                self.settle(&name, later.collect()).await;
                desk.paces.insert(name, pace);
                continue;
            }
            desk.at_work.insert(name.clone());
            let outbox = self.clone();
            desk.busy.spawn(async move {
                outbox.work(&channel, notices, plan, &mut pace).await;
                Done { channel: name, pace }
            });
        }
        let next = self.store.next_notice_due().await?;
        // What a busy channel has in hand is still due: its end wakes us.
        let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
        let wait = next.map_or(LOOK, |at| until(at).max(if desk.at_work.is_empty() { CALM } else { AGAIN }));
        Ok(wait.min(LOOK))
    }

    /// Sends what is due to one channel, as planned, until it refuses.
    async fn work(&self, channel: &Channel, notices: Vec<Notice>, plan: Plan, pace: &mut Pace) {
        if let (Kind::Forge, Plan::Each(count)) = (&channel.kind, plan) {
            return self.report(channel, notices, count, pace).await;
        }
        let secrets = self.sender.secrets.known(&self.config).await;
        let words = Words { channel, base_url: &self.base_url, secrets: &secrets };
        match plan {
            Plan::Wait(_) => {}
            Plan::Digest => {
                let message = words.digest(&notices);
                let sent = self.sender.send(channel, &message, (self.now)()).await;
                self.settle(&channel.name, self.became(channel, &notices, sent, pace)).await;
            }
            Plan::Each(count) => {
                for notice in notices.into_iter().take(count) {
                    let message = words.message(&notice);
                    let sent = self.sender.send(channel, &message, (self.now)()).await;
                    let go_on = sent.as_ref().err().is_none_or(|failed| !failed.passing);
                    self.settle(&channel.name, self.became(channel, &[notice], sent, pace)).await;
                    if !go_on {
                        return;
                    }
                }
            }
        }
    }

    /// Has a forge told how runs stand. Several notices of a run are one, since what is told is how it stands now.
    async fn report(&self, channel: &Channel, notices: Vec<Notice>, count: usize, pace: &mut Pace) {
        let mut by_run: Vec<(Option<RunKey>, Vec<Notice>)> = Vec::new();
        for notice in notices {
            match by_run.iter_mut().find(|(run, _)| *run == notice.notice.run) {
                Some((_, all)) => all.push(notice),
                None => by_run.push((notice.notice.run, vec![notice])),
            }
        }
        for (run, notices) in by_run.into_iter().take(count) {
            let now = (self.now)();
            let sending = async {
                let run = run.ok_or_else(|| Failed::lasting("the notice names no run"))?;
                forge::send(&self.sender, run, &self.base_url, now).await
            };
            let sent = tokio::time::timeout(channel.timeout, sending).await;
            let sent = sent.unwrap_or_else(|_| Err(Failed::passing(format!("no answer within {:?}", channel.timeout))));
            let go_on = sent.as_ref().err().is_none_or(|failed| !failed.passing);
            self.settle(&channel.name, self.became(channel, &notices, sent, pace)).await;
            if !go_on {
                return;
            }
        }
    }

    /// What a try comes to, for each notice that was in the message.
    fn became(
        &self,
        channel: &Channel,
        notices: &[Notice],
        sent: Result<(), Failed>,
        pace: &mut Pace,
    ) -> Vec<(i64, Settled)> {
        let now = (self.now)();
        let Some(first) = notices.first() else { return Vec::new() };
        let failed = match sent {
            Ok(()) => {
                pace.sent(now);
                tracing::debug!(channel = %channel.name, notice = first.id, notices = notices.len(), "sent");
                let merged = notices[1..].iter().map(|notice| (notice.id, Settled::Merged { into: first.id }));
                return [(first.id, Settled::Sent { at: now })].into_iter().chain(merged).collect();
            }
            Err(failed) => failed,
        };
        let again = if failed.passing {
            pace.failed(failed.wait, &channel.name, now)
        } else {
            // The message used up its place all the same: a server that refuses is not to be flooded either.
            pace.sent(now);
            now
        };
        tracing::warn!(channel = %channel.name, notice = first.id, "cannot send to `{}`: {failed}", channel.name);
        let error = &failed.error;
        let one = |notice: &Notice| {
            let settled = if !failed.passing {
                Settled::Failed { error: error.clone() }
            } else if notice.tries + 1 >= TRIES {
                Settled::Failed { error: format!("given up after {TRIES} tries: {error}") }
            } else {
                Settled::Retry { at: again, error: error.clone() }
            };
            (notice.id, settled)
        };
        notices.iter().map(one).collect()
    }

    /// Writes what became of notices of a channel. A database that is away is waited for: until it is written they
    /// would be sent again.
    async fn settle(&self, channel: &str, settled: Vec<(i64, Settled)>) {
        for (_, became) in &settled {
            self.metrics.notice_settled(channel, became);
        }
        while let Err(error) = self.store.settle_notices(settled.clone()).await {
            tracing::error!(%error, "cannot write what became of notices");
            if !error.is_transient() {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
