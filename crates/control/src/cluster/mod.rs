//! Several servers on one database.
//!
//! Invariant: of all servers one leads, by a lock that goes with its connection to the database, and only that one owns
//! runs, serves schedules and tells people. The leader writes down where it is; the others pass on to it what they are
//! asked (the crate `server`), so that it does not matter which of them somebody talks to.
//!
//! Tasks on the machine of a server belong to its data directory ([`homed`]). A server that leads and has another one
//! asks whoever has it ([`away`], [`peers`]), brings the files that its run has there ([`files`]), and each server sees to it that nothing runs twice ([`keep`]).

pub mod away;
pub mod files;
pub mod homed;
pub mod keep;
pub mod peers;

use std::time::Duration;

use pitcrew_store::{Store, StoreError};
use serde::{Deserialize, Serialize};

use crate::app::App;

/// Under which key of the settings the leader writes itself down.
const LEADER: &str = "servers.leader";
/// How often a leader looks whether it still is written down: a predecessor may have written late.
const LOOK: Duration = Duration::from_secs(5);

/// Where the server is that leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// `http://10.0.0.4:8793`, without a slash at the end; `None` when it listens on all addresses and nothing else
    /// was said.
    pub url: Option<String>,
    /// The name of the cookie by which its pages know a browser.
    pub cookie: String,
}

/// The server that led last, if one ever did; whether it lives, only asking it tells.
pub async fn leader(store: &Store) -> Result<Option<Leader>, StoreError> {
    let Some(text) = store.setting(LEADER).await? else { return Ok(None) };
    match serde_json::from_str(&text) {
        Ok(leader) => Ok(Some(leader)),
        Err(error) => {
            tracing::warn!(%error, "what the leading server wrote about itself cannot be read");
            Ok(None)
        }
    }
}

/// Writes down where this server is, whenever it leads; for as long as the process lives.
pub async fn announce(app: App, me: Leader) {
    let mut standing = app.scheduler.standing();
    loop {
        if *standing.borrow_and_update()
            && let Err(error) = write(&app.store, &me).await
        {
            tracing::warn!(%error, "cannot write down where this server is reached");
        }
        tokio::select! {
            changed = standing.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn write(store: &Store, me: &Leader) -> Result<(), StoreError> {
    if leader(store).await?.as_ref() == Some(me) {
        return Ok(());
    }
    // A name and a text: nothing that JSON cannot hold.
    let text = serde_json::to_string(me).expect("an address is always valid JSON");
    store.put_setting(LEADER, &text).await
}
