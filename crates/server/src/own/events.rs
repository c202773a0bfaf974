//! The events of a run, for programs: server-sent events with JSON.
//!
//! `run` comes first and at the end, `task` for each change of state in between. The first event tells how things
//! stand, so whoever reconnects has missed nothing that is still true.

use std::convert::Infallible;

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, Stream, StreamExt};
use pitcrew_core::RunKey;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::{find, shape};
use crate::Site;
use crate::error::ApiResult;

pub async fn events(
    State(site): State<Site>,
    Path(key): Path<String>,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    // Before the first look, so that nothing falls between.
    let changes = site.app.scheduler.subscribe();
    let run = find(&site, &key).await?;
    let is_over = run.state.is_final();
    let first = stream::iter([Ok(event("run", &shape(&run)))]);
    let ends = site.stream_ends();
    let rest = stream::unfold((!is_over).then_some((site, run.key, changes)), |state| async move {
        let (site, key, mut changes) = state?;
        loop {
            match changes.recv().await {
                Ok(changed) if changed.run == key => {
                    let mut events: Vec<_> = changed
                        .steps
                        .iter()
                        .map(|step| json!({ "task": step.task, "map_index": step.map_index, "state": step.to.name() }))
                        .map(|step| Ok(event("task", &step)))
                        .collect();
                    let done = changed.finished;
                    if done {
                        events.push(Ok(now(&site, key).await));
                    }
                    return Some((stream::iter(events), (!done).then_some((site, key, changes))));
                }
                Ok(_) => {}
                // Too slow for some changes; how things stand is what counts.
                Err(RecvError::Lagged(_)) => {
                    let event = now(&site, key).await;
                    return Some((stream::iter(vec![Ok(event)]), Some((site, key, changes))));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let events = first.chain(rest.flatten()).take_until(Box::pin(ends)).fuse();
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

async fn now(site: &Site, key: RunKey) -> Event {
    match site.app.store.run(key).await {
        Ok(Some(run)) => event("run", &shape(&run)),
        Ok(None) | Err(_) => Event::default().comment("the run cannot be read"),
    }
}

fn event(kind: &str, data: &Value) -> Event {
    Event::default().event(kind).data(data.to_string())
}
