//! Sockets on a host that lead to an agent here.
//!
//! Invariant: a host opens a channel to us only for a socket that we asked it for, and only while that is wanted;
//! whoever drops a [`Forward`] ends also what was going on at it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use russh::Channel;
use russh::client::{ChannelOpenHandle, Msg};

use super::agent::{Agent, Peers};
use super::error::{Fault, LinkError, clean};
use super::pool::Pool;
use super::slot::Hold;
use crate::place::SshPlace;

/// How long a host may take to make a socket.
const PATIENCE: Duration = Duration::from_secs(20);
/// What fits into the address of a socket.
const LONGEST: usize = 107;

/// What a connection has asked its host for.
#[derive(Clone, Default)]
pub(super) struct Sockets(Arc<Mutex<HashMap<String, Socket>>>);

struct Socket {
    agent: Arc<Agent>,
    label: Arc<str>,
    peers: Peers,
}

impl Sockets {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Socket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel that the host opens, as somebody came to the socket there. A reply that is dropped is a refusal.
    pub async fn open(&self, path: &str, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        if !self.lock().get_mut(path).is_some_and(|socket| socket.peers.has_room()) {
            return;
        }
        reply.accept().await;
        // Closed when it goes, by whoever has it then.
        let stream = channel.into_stream();
        if let Some(Socket { agent, label, peers }) = self.lock().get_mut(path) {
            peers.add(Arc::clone(agent).serve(stream, Arc::clone(label)));
        }
    }
}

/// A socket on a host that leads to an agent here, as long as its connection lives and this is not dropped.
pub struct Forward {
    path: String,
    sockets: Sockets,
    hold: Option<Hold>,
}

impl Forward {
    /// Nobody comes through any more.
    pub fn is_closed(&self) -> bool {
        self.hold.as_ref().is_none_or(|hold| hold.connection().is_closed())
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.sockets.lock().remove(&self.path);
        let (Some(hold), Ok(runtime)) = (self.hold.take(), tokio::runtime::Handle::try_current()) else { return };
        let path = std::mem::take(&mut self.path);
        runtime.spawn(async move {
            let cancel = hold.connection().handle().cancel_streamlocal_forward(path);
            let _ = tokio::time::timeout(PATIENCE, cancel).await;
        });
    }
}

impl Pool {
    /// Makes a socket on the host, where there is none, that leads to the agent. `label` tells this way to it from
    /// others.
    pub async fn forward(
        &self,
        place: &SshPlace,
        path: &str,
        agent: Arc<Agent>,
        label: &str,
    ) -> Result<Forward, LinkError> {
        let host = place.to_string();
        if path.len() > LONGEST {
            let why = format!("the name of its socket would be too long: `{}`", clean(path));
            return Err(LinkError::NoForward { host, why });
        }
        let hold = self.hold(place).await?;
        let sockets = hold.connection().sockets().clone();
        match sockets.lock().entry(path.to_owned()) {
            Entry::Vacant(free) => free.insert(Socket { agent, label: label.into(), peers: Peers::default() }),
            Entry::Occupied(_) => {
                return Err(LinkError::NoForward { host, why: "one is lent there already".to_owned() });
            }
        };
        // From here on whatever goes wrong takes the socket back.
        let forward = Forward { path: path.to_owned(), sockets, hold: Some(hold) };
        let Some(hold) = &forward.hold else { return Err(lost(host, "it went")) };
        let asked = hold.connection().handle().streamlocal_forward(path);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(())) => Ok(forward),
            Ok(Err(russh::Error::RequestDenied)) => Err(LinkError::NoForward {
                host,
                why: "see `AllowStreamLocalForwarding` and `DisableForwarding` in its settings of sshd, and `restrict` at the key that signs in there".to_owned(),
            }),
            Ok(Err(error)) => Err(lost(host, &clean(&error.to_string()))),
            Err(_) => Err(lost(host, "it does not answer")),
        }
    }
}

fn lost(host: String, why: &str) -> LinkError {
    LinkError::Dial(Fault::Broke { host, stage: "the making of a socket", why: why.to_owned() }.into())
}
