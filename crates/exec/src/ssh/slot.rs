//! A connection that is shared, and the sessions on it.
//!
//! Invariant: a session is counted from before it is opened until it is closed; how many fit is what the host let happen,
//! and is forgotten with the last session, since a refusal may have been for a moment.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::connect::Connection;
use super::error::{DialError, Fault, LinkError};
use super::exec::Lease;
use super::host::Host;
use super::pool::lock;
use crate::clock;

/// How long a host may still count a session that is over, and how often it is asked meanwhile.
const LINGER: Duration = Duration::from_secs(2);
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// A connection and what runs on it.
pub(super) struct Shared {
    pub connection: Connection,
    /// Sessions at a time, unless the host takes fewer.
    most: usize,
    pub load: Mutex<Load>,
}

pub(super) struct Load {
    pub open: usize,
    /// Holds on the connection itself.
    pub held: usize,
    /// As far as is known; a refusal lowers it.
    pub most: usize,
    /// One was opened at least once.
    has_opened: bool,
    /// When one was given back that had been open.
    freed: Option<Instant>,
    pub since: Instant,
}

impl Shared {
    /// Of `most` sessions at a time `fit`, as far as is known of the host.
    pub fn new(connection: Connection, most: usize, fit: usize) -> Shared {
        let load = Load { open: 0, held: 0, most: fit, has_opened: false, freed: None, since: clock::instant() };
        Shared { connection, most, load: Mutex::new(load) }
    }

    /// Counts one more session, if it fits.
    pub fn take(self: &Arc<Self>, host: &Arc<Host>) -> Option<Slot> {
        let mut load = lock(&self.load);
        if load.open >= load.most {
            return None;
        }
        load.open += 1;
        Some(Slot { shared: self.clone(), host: host.clone(), is_open: false })
    }
}

/// A connection that stays while this lives, for something beside the sessions on it.
pub(super) struct Hold(Arc<Shared>);

impl Hold {
    pub fn new(shared: &Arc<Shared>) -> Hold {
        lock(&shared.load).held += 1;
        Hold(shared.clone())
    }

    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut load = lock(&self.0.load);
        load.held -= 1;
        load.since = clock::instant();
    }
}

/// Opens the session; `None`: this connection does not do, another one may.
pub(super) async fn open(mut slot: Slot) -> Result<Option<Lease>, DialError> {
    let patience = Duration::from_secs(slot.host.place.timeout_s.into());
    loop {
        let opened = tokio::time::timeout(patience, slot.shared.connection.handle().channel_open_session()).await;
        match opened {
            Ok(Ok(channel)) => {
                lock(&slot.shared.load).has_opened = true;
                slot.is_open = true;
                return Ok(Some(Lease::new(channel, slot)));
            }
            // The host counts a command until its last process is gone, which can be after we heard of its end.
            Ok(Err(russh::Error::ChannelOpenFailure(_))) if slot.was_freed_lately() => {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            Ok(Err(russh::Error::ChannelOpenFailure(_))) => {
                // It takes fewer than was thought: as many as there are besides this one.
                let mut load = lock(&slot.shared.load);
                load.most = load.open.saturating_sub(1);
                let (is_alone, has_opened) = (load.most == 0, load.has_opened);
                drop(load);
                if is_alone {
                    slot.drop_connection();
                }
                if is_alone && !has_opened {
                    return Err(Fault::NoSession { host: slot.host.place.host.clone() }.into());
                }
                return Ok(None);
            }
            Ok(Err(_)) | Err(_) => {
                slot.drop_connection();
                return Ok(None);
            }
        }
    }
}

/// One session of a connection, given back when it goes.
pub struct Slot {
    shared: Arc<Shared>,
    host: Arc<Host>,
    /// The host opened it.
    is_open: bool,
}

impl Slot {
    /// As people write the place.
    pub fn host(&self) -> &Arc<str> {
        &self.host.label
    }

    pub fn connection(&self) -> &Connection {
        &self.shared.connection
    }

    /// The connection went.
    pub fn lost(&self, why: &str) -> LinkError {
        let why = match self.shared.connection.is_closed() {
            true => self.shared.connection.why_closed(),
            false if why.is_empty() => "its session ended without a word".to_owned(),
            false => why.to_owned(),
        };
        LinkError::Lost { host: self.host.label.to_string(), why }
    }

    pub fn refused(&self) -> LinkError {
        LinkError::Refused { host: self.host.place.host.clone(), user: self.host.place.user.clone() }
    }

    /// A session of this connection ended so short a time ago that the host may not have noticed.
    fn was_freed_lately(&self) -> bool {
        let freed = lock(&self.shared.load).freed;
        freed.is_some_and(|freed| clock::instant().saturating_duration_since(freed) < LINGER)
    }

    /// Nobody gets it any more; it ends with the last command on it.
    fn drop_connection(&self) {
        self.host.retire(|shared| Arc::ptr_eq(shared, &self.shared));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut load = lock(&self.shared.load);
        load.open -= 1;
        load.since = clock::instant();
        if self.is_open {
            load.freed = Some(load.since);
        }
        if load.open == 0 {
            load.most = self.shared.most;
        }
        drop(load);
        self.host.changed.notify_one();
    }
}
