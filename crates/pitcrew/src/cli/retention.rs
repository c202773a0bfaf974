//! Removes runs that ended long ago, and says what it removed.
//!
//! Invariant: rows go first and files after them, and a removal is confirmed only when the files are gone; so after a
//! crash in between the files are found and removed the next time.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pitcrew_control::app::App;
use pitcrew_control::clock;
use pitcrew_control::paths::DataDir;
use pitcrew_exec::python;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(6 * 3600);
/// A server that has just started has better things to do.
const FIRST: Duration = Duration::from_secs(60);

/// A Python environment that was not used for so long is made again when it is needed.
const UNUSED: SignedDuration = SignedDuration::from_hours(24 * 30);
/// So many environments stay in any case.
const KEPT: usize = 8;

/// Looks now and then, for as long as the process lives.
pub async fn run(app: App, days: u32) {
    tokio::time::sleep(FIRST).await;
    loop {
        // One server speaks for all: what it has reported as removed is not reported to another.
        let removed = if app.scheduler.leads() { remove(&app, days, clock::now()).await } else { Ok(0) };
        match removed {
            Ok(0) => {}
            Ok(removed) => tracing::info!("removed {removed} runs that ended more than {days} days ago"),
            Err(error) => tracing::warn!("cannot remove old runs: {error:#}"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Removes what ended more than so many days ago; gives the number of runs.
async fn remove(app: &App, days: u32, now: Timestamp) -> anyhow::Result<usize> {
    let before = now - SignedDuration::from_hours(24 * i64::from(days));
    let removed = app.store.retention(before).await?;
    let data = app.data.clone();
    let runs = removed.runs.clone();
    let gone = tokio::task::spawn_blocking(move || {
        runs.into_iter().map(|run| run.key).filter(|key| remove_files(&data, *key)).collect::<Vec<_>>()
    })
    .await?;
    if !gone.is_empty() {
        if let Some(local) = app.backends.homed() {
            local.deleted(&gone).await?;
        }
        app.store.retention_done(&gone).await?;
    }
    let cache = app.data.environments();
    let unused = tokio::task::spawn_blocking(move || python::evict(&cache, UNUSED, KEPT, now)).await??;
    if !unused.is_empty() {
        tracing::info!("removed {} Python environments that nothing used for {UNUSED:#}", unused.len());
    }
    Ok(gone.len())
}

fn remove_files(data: &DataDir, key: pitcrew_core::RunKey) -> bool {
    let removed = data.remove_run(key);
    if let Err(error) = &removed {
        tracing::warn!(%error, "cannot remove `{}`", data.run(key).display());
    }
    removed.is_ok()
}
