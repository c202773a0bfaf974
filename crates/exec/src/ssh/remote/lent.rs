//! A key that is lent to an attempt: an agent here, and a socket in the attempt's directory on its host that leads to it.
//!
//! Invariant: the socket is there while the attempt is followed, on whatever connection there is; a new connection means
//! a new socket, under a new label, so that whoever uses it can tell that it was away in between.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::host::{Hosts, Unreached};
use super::servant::Servant;
use crate::local::blocking;
use crate::place::SshPlace;
use crate::spec::AttemptSpec;
use crate::ssh::agent::Agent;
use crate::ssh::{Fault, Forward, PrivateKeyText};

/// How long one look at an attempt may wait for its socket: others on the host wait as long.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
pub struct Lent {
    agent: Arc<Agent>,
    forward: Mutex<Option<Forward>>,
}

impl Lent {
    pub fn new(agent: Agent) -> Lent {
        Lent { agent: Arc::new(agent), forward: Mutex::default() }
    }

    /// Makes the socket if there is none, or none any more.
    pub async fn keep(
        &self,
        name: &str,
        servant: &Servant,
        hosts: &dyn Hosts,
        place: &SshPlace,
    ) -> Result<(), Unreached> {
        let mut forward = self.forward.lock().await;
        if forward.as_ref().is_some_and(|forward| !forward.is_closed()) {
            return Ok(());
        }
        *forward = None;
        let made = async {
            let path = servant.socket(name).await?;
            let label = format!("pitcrew-{:016x}", RandomState::new().hash_one(0));
            hosts.forward(place, &path, Arc::clone(&self.agent), &label).await
        };
        let late = |_| Unreached::passing(format!("no answer from `{place}` within {} s", PATIENCE.as_secs()));
        *forward = Some(tokio::time::timeout(PATIENCE, made).await.map_err(late)??);
        Ok(())
    }

    /// The attempt is over.
    pub async fn end(&self) {
        *self.forward.lock().await = None;
    }
}

/// The agent for what the steps of an attempt were lent.
pub async fn of(spec: &AttemptSpec) -> Result<Option<Agent>, Fault> {
    let Some(lent) = spec.steps.iter().find_map(|step| step.key.clone()) else { return Ok(None) };
    let read = move || {
        let text = PrivateKeyText::of_secret(&lent.key, lent.passphrase.as_deref(), "the `key` for the repository");
        Ok(Agent::new(&text))
    };
    blocking(read).await.map_err(|error| Fault::Config(error.to_string()))?.map(Some)
}
