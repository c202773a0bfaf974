//! The one task that owns recovery: it takes what it is told, writes what changed, and sees to what is wanted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pitcrew_core::recovery::{Act, Changes, Effect, EffectId, Input, Record, Recovery};
use pitcrew_store::Store;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::config::RecoveryConfig;
use super::perform::Hands;
use super::{Desk, Told};
use crate::clock;

/// After the store could not be written.
const AGAIN: Duration = Duration::from_secs(1);

/// Recovery as it runs in a server.
pub struct Service {
    desk: Desk,
    inbox: mpsc::UnboundedReceiver<Told>,
    store: Store,
    hands: Hands,
    /// What is being done, by what was wanted.
    doing: BTreeMap<EffectId, JoinHandle<()>>,
}

impl Service {
    /// Recovery, and where it is told things. It begins with [`Service::run`].
    pub fn open(config: &RecoveryConfig, store: Store) -> (Desk, Opening) {
        let (desk, inbox) = Desk::open(Recovery::new(config.policy.clone()), config.signs.clone());
        (desk, Opening { inbox, store })
    }
}

/// A service that has no hands yet.
pub struct Opening {
    inbox: mpsc::UnboundedReceiver<Told>,
    store: Store,
}

impl Opening {
    pub fn with(self, hands: Hands) -> Service {
        Service { desk: hands.desk.clone(), inbox: self.inbox, store: self.store, hands, doing: BTreeMap::new() }
    }
}

impl Service {
    /// For as long as the process lives; only while this server leads is anything done.
    pub async fn run(mut self, mut leads: watch::Receiver<bool>) {
        loop {
            while !*leads.borrow_and_update() {
                tokio::select! {
                    // Whoever leads tells things only after that is known.
                    biased;
                    changed = leads.changed() => if changed.is_err() { return },
                    told = self.inbox.recv() => match told {
                        // Whoever asked is told that nobody took it.
                        Some(_) => {}
                        None => return,
                    }
                }
            }
            let watching = self.hands.watch();
            self.lead(&mut leads).await;
            watching.iter().for_each(JoinHandle::abort);
            self.desk.0.jobs.clear();
            for (_, doing) in std::mem::take(&mut self.doing) {
                doing.abort();
            }
            if leads.has_changed().is_err() {
                return;
            }
        }
    }

    async fn lead(&mut self, leads: &mut watch::Receiver<bool>) {
        let records = loop {
            match self.store.recovery_records().await {
                Ok(records) => break records,
                Err(error) => tracing::warn!(%error, "what recovery knows cannot be read"),
            }
            tokio::time::sleep(AGAIN).await;
            if !*leads.borrow() {
                return;
            }
        };
        let policy = self.desk.look(|recovery| recovery.policy().clone());
        let (recovery, open) = Recovery::restore(policy, records);
        *self.desk.lock() = recovery;
        self.fence();
        self.take(Input::Resumed).await;
        let wanted: Vec<Effect> =
            self.desk.look(|recovery| open.into_iter().filter(|effect| recovery.is_open(&effect.id)).collect());
        wanted.into_iter().for_each(|effect| self.begin(effect));
        loop {
            let due = self.desk.look(Recovery::next_deadline);
            let wait = due.map(|at| at.duration_since(clock::now()).unsigned_abs().min(Duration::from_secs(3600)));
            let wait = match due {
                Some(at) if at <= clock::now() => Duration::ZERO,
                Some(_) | None => wait.unwrap_or(Duration::from_secs(3600)),
            };
            tokio::select! {
                // Even if it leads again by now: another one may have led since, and have written.
                _ = leads.changed() => return,
                told = self.inbox.recv() => {
                    let Some(told) = told else { return };
                    self.take(told.input).await;
                    if let Some(heard) = told.heard {
                        // Whoever asked may have gone.
                        let _ = heard.send(());
                    }
                }
                () = tokio::time::sleep(wait) => if due.is_some_and(|at| at <= clock::now()) { self.take(Input::Tick).await },
            }
        }
    }

    /// Writes what follows, and then begins it.
    async fn take(&mut self, input: Input) {
        let settled = settled(&input);
        let changes = self.desk.lock().apply(input, clock::now());
        self.write(&changes).await;
        if let Some(effect) = settled {
            self.doing.remove(&effect);
        }
        if changes.records.iter().any(|record| matches!(record, Record::Node(_))) || !changes.removed.is_empty() {
            self.fence();
        }
        changes.effects.into_iter().for_each(|effect| self.begin(effect));
        self.doing.retain(|_, doing| !doing.is_finished());
    }

    /// As often as it takes: nothing is done that is not written.
    async fn write(&self, changes: &Changes) {
        if changes.records.is_empty() && changes.removed.is_empty() {
            return;
        }
        while let Err(error) = self.store.write_recovery(&changes.records, &changes.removed).await {
            tracing::warn!(%error, "what recovery decided cannot be written; it is tried again");
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Nodes that are fenced get nothing new from now on.
    fn fence(&self) {
        let fenced = self.desk.look(super::fenced);
        self.hands.reached.fleet.set_fenced(fenced);
    }

    fn begin(&mut self, effect: Effect) {
        if let Act::Cancel { effect: other } = &effect.act
            && let Some(doing) = self.doing.remove(other)
        {
            doing.abort();
        }
        let hands = self.hands.clone();
        let id = effect.id.clone();
        let doing = tokio::spawn(async move { Arc::new(hands).perform(effect).await });
        self.doing.insert(id, doing);
    }
}

/// What an input answers.
fn settled(input: &Input) -> Option<EffectId> {
    match input {
        Input::Done { effect } | Input::EffectFailed { effect, .. } | Input::CheckEnded { effect, .. } => {
            Some(effect.clone())
        }
        Input::Node { .. }
        | Input::NodeGone { .. }
        | Input::Signal(_)
        | Input::Observed { .. }
        | Input::Begun { .. }
        | Input::JobStarted { .. }
        | Input::JobStarting { .. }
        | Input::RankEnded { .. }
        | Input::JobStopped { .. }
        | Input::JobOver { .. }
        | Input::UserStop { .. }
        | Input::Approve { .. }
        | Input::Dismiss { .. }
        | Input::Retry { .. }
        | Input::Resumed
        | Input::Tick => None,
    }
}
