//! What is known of one place: its connections, who waits for one, and how long it is left alone.
//!
//! Invariant: every count is taken back by whoever made it, whatever becomes of him.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::connect::Basis;
use super::error::DialError;
use super::pool::{Limits, lock};
use super::slot::Shared;
use crate::clock;
use crate::place::SshPlace;

/// What is known of a host without asking it.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// Nobody has asked for it, or nobody uses it now.
    Idle,
    Dialing,
    Up {
        connections: usize,
        /// Commands under way, and how many fit.
        sessions: (usize, usize),
    },
    /// It is not asked before `until`.
    Down {
        until: Instant,
        why: DialError,
    },
}

/// One place.
pub(super) struct Host {
    pub place: SshPlace,
    pub label: Arc<str>,
    state: Mutex<State>,
    /// A session is free, or a connect is over.
    pub changed: Notify,
}

#[derive(Default)]
pub(super) struct State {
    pub connections: Vec<Arc<Shared>>,
    /// Connects under way.
    pub dialing: usize,
    /// How many want a session and have none.
    pub waiting: usize,
    pub down: Option<Down>,
    /// Somebody looks up what [`Basis`] is now; when that was done last.
    pub is_checking: bool,
    pub checked: Option<Instant>,
}

pub(super) struct Down {
    pub until: Instant,
    pub why: DialError,
    /// Connects that failed one after the other.
    pub times: u32,
    /// What it rests on, if it is a refusal.
    pub basis: Option<Basis>,
}

impl Host {
    pub fn new(place: &SshPlace) -> Host {
        let label = place.to_string().into();
        Host { place: place.clone(), label, state: Mutex::default(), changed: Notify::new() }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.state);
        state.connections.retain(|shared| !shared.connection.is_closed());
        state
    }

    pub fn standing(&self) -> Standing {
        let state = self.state();
        if !state.connections.is_empty() {
            let (open, most) = state.sessions();
            return Standing::Up { connections: state.connections.len(), sessions: (open, most) };
        }
        match &state.down {
            _ if state.dialing > 0 => Standing::Dialing,
            Some(down) if clock::instant() < down.until => Standing::Down { until: down.until, why: down.why.clone() },
            _ => Standing::Idle,
        }
    }

    /// It is not left alone any longer for having been away.
    pub fn hurry(&self) {
        let now = clock::instant();
        if let Some(down) = self.state().down.as_mut().filter(|down| down.basis.is_none()) {
            down.until = down.until.min(now);
        }
    }

    /// Nobody gets these connections any more; each ends with the last command on it.
    pub fn retire(&self, which: impl Fn(&Arc<Shared>) -> bool) {
        self.state().connections.retain(|shared| !which(shared));
    }
}

impl State {
    /// Commands under way, and how many fit.
    pub fn sessions(&self) -> (usize, usize) {
        let loads = self.connections.iter().map(|shared| {
            let load = lock(&shared.load);
            (load.open, load.most)
        });
        loads.fold((0, 0), |(open, most), (o, m)| (open + o, most + m))
    }

    /// Sessions that a connection of this host takes, as far as is known.
    pub fn fit(&self, limits: &Limits) -> usize {
        let known = self.connections.iter().map(|shared| lock(&shared.load).most).min();
        known.unwrap_or(limits.sessions).clamp(1, limits.sessions.max(1))
    }

    /// More wait than there is room for, also when `coming` sessions more are there.
    pub fn is_short(&self, coming: usize) -> bool {
        let free = self.connections.iter().map(|shared| {
            let load = lock(&shared.load);
            load.most.saturating_sub(load.open)
        });
        self.waiting > coming + free.sum::<usize>()
    }

    pub fn is_down(&self) -> Option<&Down> {
        self.down.as_ref().filter(|down| clock::instant() < down.until)
    }
}

/// Somebody who is counted in [`State::waiting`].
pub(super) struct Waiting(pub Arc<Host>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

/// Ends [`State::is_checking`].
pub(super) struct Checking(pub Arc<Host>);

impl Drop for Checking {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_checking = false;
        state.checked = Some(clock::instant());
        drop(state);
        self.0.changed.notify_waiters();
    }
}
