//! Whether a stored connection works: signs in to where it leads, and asks who it is there.

use std::time::Duration;

use anyhow::anyhow;
use pitcrew_exec::ssh::{Defaults, Limits, LinkError, Pool, Setup};
use serde::{Deserialize, Serialize};

use super::place::place;
use crate::connection::Connection;

/// What became of a test of a connection, here and in the API.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tested {
    /// It works. `message` says what is wrong, or who answered.
    pub status: bool,
    pub message: String,
    /// `user@host:port`.
    pub place: String,
    /// What `whoami` said there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `ED25519 SHA256:…`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// The host was not known; its key is recorded now.
    #[serde(default)]
    pub host_is_new: bool,
    /// Which key signed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// As the server names itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub software: Option<String>,
    /// Until it was signed in, jump hosts included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_seconds: Option<f64>,
}

/// Signs in and asks who it is, on a connection of its own.
pub async fn test(setup: &Setup, connection: &Connection, defaults: &Defaults) -> anyhow::Result<Tested> {
    let place = place(connection, &setup.config_file()?, defaults)?;
    let pool = Pool::new(setup.clone(), Limits::default());
    let failed =
        |error: LinkError| Ok(Tested { message: error.to_string(), place: place.to_string(), ..Tested::default() });
    let lease = match pool.get(&place).await {
        Ok(lease) => lease,
        Err(error) => return failed(error.into()),
    };
    let facts = lease.facts().cloned().ok_or_else(|| anyhow!("the session went"))?;
    let done = match lease.run("whoami", b"").await {
        Ok(done) => done,
        Err(error) => return failed(error),
    };
    pool.close_idle(Duration::ZERO).await;
    let said = String::from_utf8_lossy(&done.stdout);
    // Files that a shell reads at its start may print something before.
    let user =
        said.trim_end().lines().last().unwrap_or_default().chars().filter(|c| !c.is_control()).collect::<String>();
    let works = done.is_success() && !user.is_empty();
    Ok(Tested {
        status: works,
        message: match works {
            true => format!("signed in to `{place}` as `{user}`"),
            false => {
                format!("signed in to `{place}`, but `whoami` fails there: is the shell of the user one for people?")
            }
        },
        user: works.then_some(user),
        host_key: Some(facts.host_key),
        host_is_new: facts.is_new,
        key: Some(facts.key),
        software: Some(facts.software),
        connect_seconds: Some(facts.took.as_secs_f64()),
        place: place.to_string(),
    })
}
