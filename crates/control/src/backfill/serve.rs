//! Brings open backfills forward: makes what is missing, runs again what is to be, cancels, and completes.
//!
//! Invariant: every turn looks at what is true and does the next thing; nothing is kept in memory between turns, so
//! a turn that is cut short anywhere is made good by the next one, of this server or of another.

use std::sync::Arc;
use std::time::Duration;

use pitcrew_core::state::RunState;
use pitcrew_store::{Backfill, BackfillChange, BackfillFilter, Owner, Paging, RunFilter};

use super::{Outlook, make_runs, steps_of, subject};
use crate::app::App;
use crate::clock;

/// How often the backfills are looked at when nothing seems to change.
const LOOK: Duration = Duration::from_secs(60);
/// The pause after a turn: a busy server changes runs all the time.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves the backfills, for as long as the process lives. Only the leading server does anything.
pub async fn run(app: App, owner: Arc<Owner>) {
    let mut changed = app.store.subscribe(PAUSE);
    loop {
        match app.store.try_lead(&owner).await {
            Ok(true) => serve(&app).await,
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "cannot tell which server leads"),
        }
        tokio::time::sleep(PAUSE).await;
        // A standby is told of nothing when the leader goes, so it looks by itself.
        tokio::select! {
            () = changed.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// One turn for every open backfill.
pub async fn serve(app: &App) {
    let filter = BackfillFilter { open: Some(true), ..BackfillFilter::default() };
    let open = match app.store.backfills(&filter, Paging::ALL).await {
        Ok(page) => page.rows,
        Err(error) => return tracing::warn!(%error, "cannot read the backfills"),
    };
    for backfill in open {
        let id = backfill.id;
        if let Err(error) = serve_one(app, backfill).await {
            tracing::warn!("cannot go on with backfill {id}: {error:#}");
        }
    }
}

async fn serve_one(app: &App, mut backfill: Backfill) -> anyhow::Result<()> {
    let (store, id) = (&app.store, backfill.id);
    if backfill.cancelled {
        cancel_queued(app, id).await?;
    } else if !backfill.planned {
        backfill.planned = go_on(app, &backfill).await?;
    }
    if backfill.planned || backfill.cancelled {
        let counts = store.backfill_counts(&[id]).await?.remove(&id).unwrap_or_default();
        if counts.open() == 0 {
            store.update_backfill(id, BackfillChange::Completed, clock::now(), None).await?;
            tracing::info!("backfill {id} of `{}` is complete", backfill.new.workflow);
        }
    }
    Ok(())
}

/// Makes the runs that are missing, and runs others again as far as there is room. Says whether that was the last.
async fn go_on(app: &App, backfill: &Backfill) -> anyhow::Result<bool> {
    let (store, id) = (&app.store, backfill.id);
    let subject = subject(store, &app.catalog, &backfill.new.workflow).await?;
    let steps = steps_of(store, &subject, &backfill.new, Some(id)).await?;
    make_runs(store, &subject, backfill, &steps).await?;
    let mut again = steps.into_iter().filter(|step| step.outlook == Outlook::Again).filter_map(|step| step.run);
    if !backfill.is_paused {
        let counts = store.backfill_counts(&[id]).await?.remove(&id).unwrap_or_default();
        // A run that is cleared begins at once, so only as many as may.
        let room = u64::from(backfill.new.max_active_runs).saturating_sub(counts.running);
        for run in again.by_ref().take(usize::try_from(room)?) {
            app.scheduler.run_again(run.key, id, &backfill.new.by).await?;
        }
    }
    if again.next().is_some() {
        return Ok(false);
    }
    store.update_backfill(id, BackfillChange::Planned, clock::now(), None).await?;
    app.scheduler.look();
    Ok(true)
}

async fn cancel_queued(app: &App, id: i64) -> anyhow::Result<()> {
    let filter = RunFilter { backfill: Some(id), states: vec![RunState::Queued], ..RunFilter::default() };
    for run in app.store.runs(&filter, Paging::ALL).await?.rows {
        app.scheduler.cancel_queued(run.key, &format!("backfill {id}")).await?;
    }
    Ok(())
}
