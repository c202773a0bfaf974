//! When a host is connected to, how often at a time, and when it is left alone.
//!
//! Invariants: there are never more connects under way than those who wait need, nor more than the limits; a host that
//! nobody is connected to is asked by one, since many would hear the same; a refusal is not asked for again while what it
//! rests on (the keys that are looked up, what is known of the host) is the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::connect::{self, Basis, Connection};
use super::error::{DialError, Fault};
use super::host::{Checking, Down, Host, State};
use super::pool::{Inner, lock};
use super::slot::Shared;
use crate::clock;
use crate::place::SshPlace;

impl Inner {
    /// Begins as many connects as those who wait need.
    pub(super) fn dial_needed(self: &Arc<Self>, host: &Arc<Host>, state: &mut State, timeout_s: u32) {
        if state.is_down().is_some() {
            return;
        }
        let at_once = if state.connections.is_empty() { 1 } else { self.limits.dials_per_host };
        while state.dialing < at_once
            && state.connections.len() + state.dialing < self.limits.connections
            && state.is_short(state.dialing * state.fit(&self.limits))
        {
            state.dialing += 1;
            self.dial(host.clone(), timeout_s);
        }
    }

    /// Connects in a task of its own: whoever waits for it may go away.
    fn dial(self: &Arc<Self>, host: Arc<Host>, timeout_s: u32) {
        let pool = self.clone();
        tokio::spawn(async move {
            // Taken back even if connecting should panic.
            let mut dialing = Dialing { host: &host, pool: &pool, outcome: None };
            let place = SshPlace { timeout_s, ..host.place.clone() };
            let first = place.jump.first().map_or((&place.host, place.port), |hop| (&hop.host, hop.port));
            let of_host = pool.dials_of(first.0, first.1);
            let (_one, _all) = (of_host.acquire().await, pool.dials.acquire().await);
            let is_needed = {
                let state = host.state();
                state.is_short((state.dialing - 1) * state.fit(&pool.limits))
            };
            dialing.outcome = Some(match is_needed {
                true => pool.connect(&place).await,
                false => Outcome::NotNeeded,
            });
            drop(dialing);
            pool.dial_needed(&host, &mut host.state(), timeout_s);
        });
    }

    /// Keys are looked up before: so one that is replaced while it connects counts as replaced.
    async fn connect(&self, place: &SshPlace) -> Outcome {
        let keys = Basis::keys(place, &self.setup, false).await;
        let connected = connect::connect(place, &self.setup).await;
        if let Some(observer) = self.observer.get() {
            observer(place, connected.as_ref().map(|connection| connection.facts.took));
        }
        match connected {
            Ok(connection) => Outcome::Connected(Box::new(connection)),
            // Afterwards: connecting records a new host.
            Err(why) if why.lasting() => {
                let hosts = Some(Basis::hosts(place, &self.setup).await);
                Outcome::Failed(why, Some(Basis { keys, hosts }))
            }
            Err(why) => Outcome::Failed(why, None),
        }
    }

    /// Looks up what connections and a refusal rest on now. Those that rest on something else are not used any more.
    pub(super) fn check(self: &Arc<Self>, host: &Arc<Host>, state: &mut State) -> JoinHandle<()> {
        state.is_checking = true;
        let is_refused = state.down.as_ref().is_some_and(|down| down.basis.is_some());
        let (pool, host) = (self.clone(), host.clone());
        tokio::spawn(async move {
            // Taken back even if looking up should panic.
            let _checking = Checking(host.clone());
            let keys = Basis::keys(&host.place, &pool.setup, is_refused).await;
            let hosts = match is_refused {
                true => Some(Basis::hosts(&host.place, &pool.setup).await),
                false => None,
            };
            let basis = Basis { keys, hosts };
            let mut state = host.state();
            state.connections.retain(|shared| shared.connection.rests_on(&basis));
            let is_other = |down: &Down| down.basis.as_ref().is_some_and(|then| *then != basis);
            if is_refused && state.down.as_ref().is_some_and(is_other) {
                state.down = None;
            }
        })
    }

    fn dials_of(&self, host: &str, port: u16) -> Arc<Semaphore> {
        let mut all = lock(&self.dials_per_host);
        all.retain(|_, one| Arc::strong_count(one) > 1);
        let new = || Arc::new(Semaphore::new(self.limits.dials_per_host));
        all.entry((host.to_owned(), port)).or_insert_with(new).clone()
    }

    /// Until the next connect, after `times` that failed. No longer than somebody waits for one, so that each who asks sees
    /// a host that is back.
    fn pause(&self, why: &DialError, times: u32, timeout_s: u32) -> Duration {
        let (first, most) = self.limits.backoff;
        if why.fault.is_refused() {
            return self.limits.refused.0;
        }
        if why.lasting() {
            return self.limits.refused.1;
        }
        // A fifth more or less, so that many do not come back at the same time.
        let pause = first.saturating_mul(1 << (times - 1).min(16)).min(most).mul_f64(0.8 + 0.4 * random());
        pause.min(Duration::from_secs(timeout_s.into()))
    }
}

enum Outcome {
    /// Whoever waited has a session, or went away.
    NotNeeded,
    Connected(Box<Connection>),
    /// With what a refusal rests on.
    Failed(DialError, Option<Basis>),
}

/// Ends one of [`State::dialing`], with what came of it.
struct Dialing<'a> {
    host: &'a Arc<Host>,
    pool: &'a Arc<Inner>,
    outcome: Option<Outcome>,
}

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        let now = clock::instant();
        let mut state = self.host.state();
        state.dialing -= 1;
        let (why, basis) = match self.outcome.take() {
            Some(Outcome::NotNeeded) => return,
            Some(Outcome::Connected(connection)) => {
                let fit = state.fit(&self.pool.limits);
                state.connections.push(Arc::new(Shared::new(*connection, self.pool.limits.sessions, fit)));
                state.down = None;
                // What it rests on was looked up just now.
                state.checked = Some(now);
                drop(state);
                return (0..fit).for_each(|_| self.host.changed.notify_one());
            }
            Some(Outcome::Failed(why, basis)) => (why, basis),
            None => {
                let host = self.host.place.host.clone();
                (Fault::Broke { host, stage: "connecting", why: "it was given up".into() }.into(), None)
            }
        };
        // Those that fail at the same time are one failure.
        let times = match &state.down {
            Some(down) if now < down.until => down.times,
            Some(down) => down.times + 1,
            None => 1,
        };
        let pause = self.pool.pause(&why, times, self.host.place.timeout_s);
        state.down = Some(Down { until: now + pause, why, times, basis });
        state.checked = None;
        drop(state);
        self.host.changed.notify_waiters();
    }
}

/// From 0 to 1; for nothing that has to be secret.
fn random() -> f64 {
    use std::hash::BuildHasher as _;
    let hash = std::hash::RandomState::new().hash_one(0);
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}
