//! The watcher of one host: keeps the channel to its servant, looks at the attempts that are followed, mirrors their
//! logs, and tells their starts and ends.
//!
//! Invariants: nobody who asks waits for a host that does not answer longer than [`PATIENCE`], and not at all while it
//! is known to be away. Whatever is followed is told about at last, and whatever is to be removed is removed at last.
//! A young attempt is looked at often and an old one seldom, so that what takes long costs little to watch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use pitcrew_core::AttemptId;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::follow::Follow;
use super::host::{Hosts, Unreached};
use super::removals::Removals;
use super::servant::{Seen, Servant};
use crate::backend::EventSender;
use crate::clock;
use crate::place::SshPlace;

/// How long somebody who asks waits for a channel, or an answer, before the host counts as away.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between tries to reach a host: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A channel that nobody used for this long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// After this, an attempt's log says that nobody sees the host.
const SILENCE: Duration = Duration::from_secs(3);
/// What is due so soon is looked at together with what is due now.
const TOGETHER: Duration = Duration::from_millis(20);
/// Attempts in one question, and attempts whose logs are fetched at the same time.
const BATCH: usize = 200;
const AT_ONCE: usize = 16;

/// See the module.
pub struct Watch {
    shared: Arc<Shared>,
    task: AbortHandle,
}

pub(super) struct Shared {
    pub place: SshPlace,
    pub hosts: Arc<dyn Hosts>,
    pub events: EventSender,
    live: Mutex<HashMap<AttemptId, Arc<Follow>>>,
    pub removals: Removals,
    link: watch::Sender<Link>,
    poke: Notify,
    /// Somebody knows that the host can be reached again.
    now: Notify,
    /// Until when the channel is kept for whoever asks.
    wanted_until: Mutex<Option<Instant>>,
}

/// The channel to the servant.
#[derive(Clone)]
enum Link {
    /// There is none, and the first try is not over.
    Coming,
    Up(Arc<Servant>),
    Away(Unreached),
}

impl Watch {
    /// Begins to watch; connects when there is a reason to.
    pub fn new(place: SshPlace, hosts: Arc<dyn Hosts>, events: EventSender, removals: Removals) -> Watch {
        let shared = Arc::new(Shared {
            place,
            hosts,
            events,
            live: Mutex::default(),
            removals,
            link: watch::Sender::new(Link::Coming),
            poke: Notify::new(),
            now: Notify::new(),
            wanted_until: Mutex::default(),
        });
        let task = tokio::spawn(run(Arc::clone(&shared))).abort_handle();
        Watch { shared, task }
    }

    /// From now on the attempt's events are told.
    pub fn follow(&self, follow: impl FnOnce() -> Follow) -> Arc<Follow> {
        let mut live = lock(&self.shared.live);
        // By its id, which is also in what is made when there is none.
        let made = follow();
        let entry = live.entry(made.handle.id.clone()).or_insert_with(|| Arc::new(made));
        let entry = Arc::clone(entry);
        drop(live);
        self.shared.poke.notify_one();
        entry
    }

    /// It never began: there is nothing to tell.
    pub fn forget(&self, id: &AttemptId) {
        lock(&self.shared.live).remove(id);
    }

    /// The attempt, if it is followed.
    pub fn followed(&self, id: &AttemptId) -> Option<Arc<Follow>> {
        lock(&self.shared.live).get(id).cloned()
    }

    /// Looks at an attempt now.
    pub fn look(&self, follow: &Follow) {
        follow.hurry();
        self.shared.poke.notify_one();
    }

    /// What the host says now of these attempts.
    pub async fn states(&self, names: &[String]) -> Result<Vec<Seen>, Unreached> {
        let servant = self.servant().await?;
        match tokio::time::timeout(PATIENCE, servant.states(names)).await {
            Ok(answer) => answer,
            Err(_) => Err(Unreached::passing(format!("no answer from `{}` yet", self.shared.place))),
        }
    }

    /// Asks an attempt to end.
    pub async fn cancel(&self, follow: &Follow) -> Result<(), Unreached> {
        let servant = self.servant().await?;
        let asked = tokio::time::timeout(PATIENCE, follow.ask_to_end(&servant, clock::now())).await;
        self.look(follow);
        match asked {
            Ok(answer) => answer,
            Err(_) => Err(Unreached::passing(format!("no answer from `{}` yet", self.shared.place))),
        }
    }

    /// Lets the watcher do what is written down as to be removed.
    pub fn tidy(&self) {
        self.shared.poke.notify_one();
    }

    pub fn place(&self) -> &SshPlace {
        &self.shared.place
    }

    /// What to remove from this host.
    pub fn removals(&self) -> &Removals {
        &self.shared.removals
    }

    /// The servant, by a connect of now: what is known of the host may be old.
    pub async fn servant_now(&self) -> Result<Arc<Servant>, Unreached> {
        let was_away = self.shared.link.send_if_modified(|link| {
            let away = matches!(link, Link::Away(_));
            if away {
                *link = Link::Coming;
            }
            away
        });
        if was_away {
            self.shared.now.notify_one();
        }
        self.servant_within(connect_limit(&self.shared.place)).await
    }

    /// The servant, or why there is none: at once while the host is known to be away.
    async fn servant(&self) -> Result<Arc<Servant>, Unreached> {
        self.servant_within(PATIENCE).await
    }

    async fn servant_within(&self, patience: Duration) -> Result<Arc<Servant>, Unreached> {
        *lock(&self.shared.wanted_until) = Some(clock::instant() + IDLE);
        self.shared.poke.notify_one();
        let mut link = self.shared.link.subscribe();
        let found = link.wait_for(|link| match link {
            Link::Coming => false,
            Link::Up(servant) => !servant.is_broken(),
            Link::Away(_) => true,
        });
        match tokio::time::timeout(patience, found).await.map(|found| found.map(|link| link.clone())) {
            Ok(Ok(Link::Up(servant))) => Ok(servant),
            Ok(Ok(Link::Away(why))) => Err(why),
            _ => Err(Unreached::passing(format!("no answer from `{}` yet", self.shared.place))),
        }
    }
}

/// How long a connect may take, with every host on the way.
fn connect_limit(place: &SshPlace) -> Duration {
    Duration::from_secs(u64::from(place.timeout_s.max(1)) * (1 + place.jump.len() as u64) + 5)
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// Is there a reason to have a channel?
    fn is_wanted(&self) -> bool {
        !lock(&self.live).is_empty()
            || !self.removals.is_empty()
            || lock(&self.wanted_until).is_some_and(|until| clock::instant() < until)
    }

    fn all(&self) -> Vec<Arc<Follow>> {
        lock(&self.live).values().cloned().collect()
    }

    async fn connect(&self) -> Result<Servant, Unreached> {
        let limit = connect_limit(&self.place);
        match tokio::time::timeout(limit, Servant::open(&*self.hosts, &self.place)).await {
            Ok(servant) => servant,
            Err(_) => Err(Unreached::passing(format!("no answer from `{}` within {} s", self.place, limit.as_secs()))),
        }
    }

    /// Serves until the channel breaks or nobody needs it any more.
    async fn serve(&self, servant: &Servant) {
        let mut idle = std::pin::pin!(tokio::time::sleep(IDLE));
        loop {
            if self.remove(servant).await.is_err() {
                return;
            }
            let now = clock::instant();
            let all = self.all();
            let (due, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|f| f.due() <= now + TOGETHER);
            for batch in due.chunks(BATCH) {
                if self.look(servant, batch).await.is_err() {
                    return;
                }
            }
            if !due.is_empty() {
                continue;
            }
            let next = later.iter().map(|f| f.due()).min();
            if self.is_wanted() {
                idle.as_mut().reset(now + IDLE);
            }
            tokio::select! {
                () = self.poke.notified() => {}
                () = servant.broken() => return,
                () = clock::until(next) => {}
                () = &mut idle => if !self.is_wanted() { return },
            }
        }
    }

    /// Asks about some attempts, and follows what they wrote.
    async fn look(&self, servant: &Servant, batch: &[Arc<Follow>]) -> Result<(), Unreached> {
        let names: Vec<String> = batch.iter().map(|follow| follow.name.clone()).collect();
        let seen = servant.states(&names).await?;
        let mut work = futures::stream::iter(batch.iter().cloned().zip(seen))
            .map(|(follow, seen)| async move {
                let advanced = follow.advance(servant, self, seen).await;
                (follow, advanced)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((follow, advanced)) = work.next().await {
            if advanced? {
                lock(&self.live).remove(&follow.handle.id);
                follow.over.notify_waiters();
            }
        }
        Ok(())
    }

    async fn remove(&self, servant: &Servant) -> Result<(), Unreached> {
        for (name, kind) in self.removals.all() {
            match kind.carry_out(servant, &name).await {
                Ok(()) => self.removals.done(kind, &name),
                Err(_) if servant.is_broken() => return Err(Unreached::passing("")),
                Err(error) => {
                    tracing::warn!("cannot remove `{name}` from `{}`: {error}", self.place);
                    self.removals.put_off(&name);
                }
            }
        }
        Ok(())
    }

    async fn say(&self, now: Timestamp, text: &str) {
        for follow in self.all() {
            follow.say(now, text).await;
        }
    }
}

/// Goes on until it is aborted.
async fn run(this: Arc<Shared>) {
    let mut pause = FIRST_PAUSE;
    let mut away_since: Option<Instant> = None;
    let mut told = false;
    loop {
        if !this.is_wanted() {
            this.link.send_replace(Link::Coming);
            (pause, away_since, told) = (FIRST_PAUSE, None, false);
            this.poke.notified().await;
            continue;
        }
        match this.connect().await {
            Ok(servant) => {
                pause = FIRST_PAUSE;
                // One that came after the last pause is no news any more.
                let _ = futures::FutureExt::now_or_never(this.now.notified());
                let servant = Arc::new(servant);
                this.link.send_replace(Link::Up(Arc::clone(&servant)));
                if let Some(since) = away_since.take().filter(|_| std::mem::take(&mut told)) {
                    let text = format!("`{}` is back after {} s", this.place.host, since.elapsed().as_secs());
                    this.say(clock::now(), &text).await;
                }
                this.serve(&servant).await;
                this.link.send_replace(Link::Coming);
                away_since = Some(clock::instant());
            }
            Err(error) => {
                let since = *away_since.get_or_insert_with(clock::instant);
                if since.elapsed() >= SILENCE && !std::mem::replace(&mut told, true) {
                    let text =
                        format!("the connection to `{}` is lost; the task goes on there: {error}", this.place.host);
                    this.say(clock::now(), &text).await;
                }
                if error.lasting {
                    pause = LONGEST_PAUSE;
                }
                this.link.send_replace(Link::Away(error));
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = this.now.notified() => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
