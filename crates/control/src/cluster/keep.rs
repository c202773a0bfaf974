//! What a server owes the others for the tasks on its machine: to say where it can be asked about them, to end those that
//! were given up while it was silent, and to let all of them end when it is cut off.
//!
//! Invariant: where there are other data directories, what runs here has a lease from each word of the database or of a
//! server that leads. The process that keeps the tasks ends them when the lease is over, whether this server lives or
//! not; others give them up only later. Alone on its database a server has no lease: nobody else could begin anything
//! anew. (For a few seconds after another one started there for the first time ever, it does not know of it yet.)

use std::sync::Arc;
use std::time::Duration;

use pitcrew_exec::since_boot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::homed::Homed;
use crate::clock;

/// How often what was given up is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// For how long the database may take; longer is no answer.
const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(200);
const GIVEN_UP: &str = "its server was silent for too long, and another one went on";

pub struct Keep {
    pub local: Arc<Homed>,
    /// Where other servers reach this one.
    pub url: Option<String>,
}

/// What earlier looks began.
#[derive(Default)]
struct UnderWay {
    sweep: Option<JoinHandle<()>>,
    taking_back: Option<JoinHandle<()>>,
}

/// Ends what was given up while no server of this data directory answered. Called before a server takes anything.
pub async fn take_back(local: &Homed) -> anyhow::Result<()> {
    let (peers, home) = (local.peers(), local.home());
    let given_up = peers.given_up(home).await?;
    if given_up.is_empty() {
        return Ok(());
    }
    tracing::warn!("{} tasks of this machine were given up by the others, and are ended", given_up.len());
    while let Err(error) = local.end(&given_up, GIVEN_UP).await {
        tracing::info!("still ending what was given up: {error}");
        tokio::time::sleep(AGAIN).await;
    }
    Ok(peers.took_back(home, &given_up).await?)
}

impl Keep {
    /// For as long as the process lives.
    pub async fn run(self) {
        let mut under_way = UnderWay::default();
        loop {
            let begun = since_boot();
            match timeout(PATIENCE, self.look(&mut under_way)).await {
                Ok(Ok(())) => self.local.heard(begun),
                Ok(Err(error)) => tracing::debug!("cannot look what was given up: {error:#}"),
                Err(_) => tracing::debug!("the database does not answer"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&self, under_way: &mut UnderWay) -> anyhow::Result<()> {
        let (peers, home) = (self.local.peers(), self.local.home());
        let homes = match &self.url {
            Some(url) => peers.register(home, url, clock::now()).await?,
            None => peers.homes().await?,
        };
        if homes.keys().any(|other| other != home) && self.local.is_not_alone() {
            tracing::info!("other servers have data directories of their own: {}", homes.len());
        }
        // Each may take longer than a look; it goes on, and a later look finds what is left.
        if is_over(&under_way.sweep) {
            let local = self.local.clone();
            under_way.sweep = Some(tokio::spawn(async move {
                if let Err(error) = local.files().sweep().await {
                    tracing::debug!("cannot remove what was deleted: {error:#}");
                }
            }));
        }
        if is_over(&under_way.taking_back) && !peers.given_up(home).await?.is_empty() {
            let local = self.local.clone();
            under_way.taking_back = Some(tokio::spawn(async move {
                if let Err(error) = take_back(&local).await {
                    tracing::warn!("cannot take back what was given up: {error:#}");
                }
            }));
        }
        Ok(())
    }
}

fn is_over(task: &Option<JoinHandle<()>>) -> bool {
    task.as_ref().is_none_or(JoinHandle::is_finished)
}
