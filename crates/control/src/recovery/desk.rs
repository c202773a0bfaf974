//! The one task that owns recovery: it takes what it is told, writes what changed, and sees to what is wanted.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use pitcrew_core::recovery::{Act, Changes, Effect, EffectId, Input, Record, Recovery};
use pitcrew_store::{Store, StoreError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::config::RecoveryConfig;
use super::perform::Hands;
use super::{Desk, Told};
use crate::clock;

/// After the store could not be written.
const AGAIN: Duration = Duration::from_secs(1);
/// After so many failures the pauses grow no more.
const FAILURES: u32 = 6;

/// Recovery as it runs in a server.
pub struct Service {
    desk: Desk,
    inbox: mpsc::UnboundedReceiver<Told>,
    store: Store,
    hands: Hands,
    /// What is being done, by what was wanted.
    doing: BTreeMap<EffectId, JoinHandle<()>>,
    /// Of the store: what another server has taken since is that one's.
    term: u64,
    /// What was told last, until it is written.
    taking: Option<Input>,
    /// What was told and could not be written.
    unwritten: Option<Told>,
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
        Service {
            desk: hands.desk.clone(),
            inbox: self.inbox,
            store: self.store,
            hands,
            doing: BTreeMap::new(),
            term: 0,
            taking: None,
            unwritten: None,
        }
    }
}

/// Another server has taken recovery: nothing more can be written in this term.
struct Superseded;

impl Service {
    /// For as long as the process lives; only while this server leads is anything done.
    pub async fn run(mut self, mut leads: watch::Receiver<bool>) {
        let mut failures = 0;
        loop {
            while !*leads.borrow_and_update() {
                self.unwritten = None;
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
            let led = AssertUnwindSafe(self.lead(&mut leads)).catch_unwind().await;
            watching.iter().for_each(JoinHandle::abort);
            self.desk.0.jobs.clear();
            for (_, doing) in std::mem::take(&mut self.doing) {
                doing.abort();
            }
            match led {
                Ok(Ok(())) => failures = 0,
                Ok(Err(Superseded)) => {
                    tracing::warn!("another server has taken recovery; what is known here is read anew");
                    tokio::time::sleep(AGAIN).await;
                }
                // What it was told last is not told to it again: it would fail again.
                Err(_) => {
                    failures += 1;
                    let wait = AGAIN * 2u32.pow(failures.min(FAILURES));
                    tracing::error!(
                        "recovery has failed, which is a fault in pitcrew; it begins anew in {wait:?} from what is \
                         written, and what fails until then is left to its own retries"
                    );
                    self.desk.0.lead.failed.store(true, Ordering::Release);
                    self.let_go().await;
                    tokio::time::sleep(wait).await;
                }
            }
            if leads.has_changed().is_err() {
                return;
            }
        }
    }

    /// Whoever waits for a verdict on what it was told last gets none.
    async fn let_go(&mut self) {
        if let Some(Input::RankEnded { job, attempt, .. }) = self.taking.take() {
            let why = "recovery could not take its end";
            if let Err(error) = self.hands.scheduler.fail_job(&job, attempt, why, true).await {
                tracing::warn!(job, "the job cannot be let go: {error}");
            }
        }
    }

    /// What is stored, in a term of our own; `None`: this server leads no more.
    async fn restored(&mut self, leads: &watch::Receiver<bool>) -> Option<Vec<Record>> {
        loop {
            if self.hands.scheduler.holds_lead() {
                let read = async {
                    let term = self.store.take_recovery().await?;
                    Ok::<_, StoreError>((term, self.store.recovery_records().await?))
                };
                match read.await {
                    Ok((term, records)) => {
                        self.term = term;
                        return Some(records);
                    }
                    Err(error) => tracing::warn!(%error, "what recovery knows cannot be read"),
                }
            }
            tokio::time::sleep(AGAIN).await;
            if !*leads.borrow() || leads.has_changed().unwrap_or(true) {
                return None;
            }
        }
    }

    async fn lead(&mut self, leads: &mut watch::Receiver<bool>) -> Result<(), Superseded> {
        let began = self.desk.0.lead.began.load(Ordering::Acquire);
        let Some(records) = self.restored(leads).await else { return Ok(()) };
        let policy = self.desk.look(|recovery| recovery.policy().clone());
        let (recovery, open) = Recovery::restore(policy, records);
        self.hands.metrics.expect_recovery(&recovery);
        *self.desk.lock() = recovery;
        self.fence();
        self.take(Input::Resumed).await?;
        self.desk.0.lead.failed.store(false, Ordering::Release);
        self.desk.0.lead.ready.send_replace(began);
        let wanted: Vec<Effect> =
            self.desk.look(|recovery| open.into_iter().filter(|effect| recovery.is_open(&effect.id)).collect());
        wanted.into_iter().for_each(|effect| self.begin(effect));
        if let Some(told) = self.unwritten.take() {
            self.hear(told).await?;
        }
        loop {
            let due = self.desk.look(Recovery::next_deadline);
            let wait = due.map(|at| at.duration_since(clock::now()).unsigned_abs().min(Duration::from_secs(3600)));
            let wait = match due {
                Some(at) if at <= clock::now() => Duration::ZERO,
                Some(_) | None => wait.unwrap_or(Duration::from_secs(3600)),
            };
            tokio::select! {
                // Whoever leads no more takes nothing more.
                biased;
                // Even if it leads again by now: another one may have led since, and have written.
                _ = leads.changed() => return Ok(()),
                told = self.inbox.recv() => {
                    let Some(told) = told else { return Ok(()) };
                    self.hear(told).await?;
                }
                () = tokio::time::sleep(wait) => if due.is_some_and(|at| at <= clock::now()) { self.take(Input::Tick).await? },
            }
        }
    }

    /// What could not be written is told again, should this server go on.
    async fn hear(&mut self, told: Told) -> Result<(), Superseded> {
        self.taking = Some(told.input.clone());
        if let Err(superseded) = self.take(told.input.clone()).await {
            self.unwritten = Some(told);
            return Err(superseded);
        }
        self.taking = None;
        if let Some(heard) = told.heard {
            // Whoever asked may have gone.
            let _ = heard.send(());
        }
        Ok(())
    }

    /// Writes what follows, and then begins it.
    async fn take(&mut self, input: Input) -> Result<(), Superseded> {
        let settled = settled(&input);
        let now = clock::now();
        let changes = self.desk.lock().apply(input, now);
        self.write(&changes).await?;
        self.desk.look(|recovery| self.hands.metrics.recovered(&changes, recovery, now));
        if let Some(effect) = settled {
            self.doing.remove(&effect);
        }
        if changes.records.iter().any(|record| matches!(record, Record::Node(_))) || !changes.removed.is_empty() {
            self.fence();
        }
        changes.effects.into_iter().for_each(|effect| self.begin(effect));
        self.doing.retain(|_, doing| !doing.is_finished());
        Ok(())
    }

    /// As often as it takes: nothing is done that is not written.
    async fn write(&self, changes: &Changes) -> Result<(), Superseded> {
        if changes.records.is_empty() && changes.removed.is_empty() {
            return Ok(());
        }
        while let Err(error) = self.store.write_recovery(self.term, &changes.records, &changes.removed).await {
            if matches!(error, StoreError::Conflict(_)) {
                return Err(Superseded);
            }
            tracing::warn!(%error, "what recovery decided cannot be written; it is tried again");
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
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
