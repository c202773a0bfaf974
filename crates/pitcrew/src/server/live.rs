//! Pages that follow what happens: the server renders parts of a page anew and sends those that changed.
//!
//! A page opens one stream of events. A change of a run is only a reason to look: the parts are rendered from what is
//! true then, so a lost change changes nothing but the moment. Between two looks lies at least [`CALM`], and five times
//! what the last one took; nobody watching costs nothing.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, Stream, StreamExt};
use pitcrew_core::RunKey;
use pitcrew_store::Subscription;
use serde_json::{Map, Value};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::Instant;

use super::Site;
use crate::app::App;
use crate::scheduler::Changed;

/// The shortest time between two looks.
const CALM: Duration = Duration::from_millis(200);
/// How late changes by other processes may be noticed.
const POLL: Duration = Duration::from_secs(1);

/// Wakes when something was changed.
pub struct Watch {
    changes: broadcast::Receiver<Changed>,
    bell: Subscription,
    /// One run, or all.
    run: Option<RunKey>,
}

impl Watch {
    /// Changes of any run.
    pub fn everything(app: &App) -> Watch {
        Watch { changes: app.scheduler.subscribe(), bell: app.store.subscribe(POLL), run: None }
    }

    /// Changes of one run.
    pub fn run(app: &App, key: RunKey) -> Watch {
        Watch { run: Some(key), ..Watch::everything(app) }
    }

    /// Returns when there is a reason to look; with `elsewhere`, also for what other processes write, which says not
    /// which run it is about.
    pub async fn changed(&mut self, elsewhere: bool) {
        loop {
            tokio::select! {
                change = self.changes.recv() => match change {
                    Ok(change) if self.run.is_none_or(|run| run == change.run) => return,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => return,
                    Err(RecvError::Closed) => std::future::pending().await,
                },
                () = self.bell.changed(), if elsewhere || self.run.is_none() => return,
            }
        }
    }

    /// One look is enough for all that has changed until now.
    fn forget(&mut self) {
        while !matches!(self.changes.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
    }
}

/// A part of a page: the `id` of its element, and the element anew.
pub struct Part {
    pub id: &'static str,
    pub html: String,
}

/// What a look at a page gives.
#[derive(Default)]
pub struct Look {
    pub parts: Vec<Part>,
    /// Another process works on what the page shows.
    pub elsewhere: bool,
}

/// Streams the parts of a page that change, all of them at first.
pub fn follow<F, Fut>(
    site: &Site,
    watch: Watch,
    look: F,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<F, Fut>>
where
    F: Fn() -> Fut + Send + 'static,
    Fut: Future<Output = Option<Look>> + Send,
{
    struct Page<F> {
        watch: Watch,
        look: F,
        sent: HashMap<&'static str, u64>,
        elsewhere: bool,
        next: Option<Instant>,
    }
    let page = Page { watch, look, sent: HashMap::new(), elsewhere: false, next: None };
    let events = stream::unfold(page, |mut page| async move {
        loop {
            if let Some(next) = page.next {
                page.watch.changed(page.elsewhere).await;
                tokio::time::sleep_until(next).await;
                page.watch.forget();
            }
            let start = Instant::now();
            let look = (page.look)().await?;
            page.next = Some(Instant::now() + CALM.max(start.elapsed() * 5));
            page.elsewhere = look.elsewhere;
            let mut changed = Map::new();
            for part in look.parts {
                let mut hasher = DefaultHasher::new();
                part.html.hash(&mut hasher);
                let hash = hasher.finish();
                if page.sent.insert(part.id, hash) != Some(hash) {
                    changed.insert(part.id.to_owned(), Value::String(part.html));
                }
            }
            if !changed.is_empty() {
                let event = Event::default().event("parts").data(Value::Object(changed).to_string());
                return Some((Ok(event), page));
            }
        }
    });
    Sse::new(events.take_until(site.closing.clone().cancelled_owned()).fuse()).keep_alive(KeepAlive::default())
}
