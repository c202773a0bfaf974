//! Pages that follow what happens: the server renders parts of a page anew and sends those that changed.
//!
//! A page opens one stream of events. A change of a run is only a reason to look: the parts are rendered from what is
//! true then, so a lost change changes nothing but the moment. Between two looks lies at least [`CALM`], and five times
//! what the last one took. Who sees the same shares the looking: a hundred viewers of a page cost one rendering, and
//! nobody watching costs nothing.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, Stream, StreamExt};
use pitcrew_control::app::App;
use pitcrew_control::scheduler::Changed;
use pitcrew_core::RunKey;
use pitcrew_store::Subscription;
use serde_json::{Map, Value};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::Site;
use super::error::ApiResult;

/// The shortest time between two looks.
const CALM: Duration = Duration::from_millis(200);
/// How late changes by other processes may be noticed.
const POLL: Duration = Duration::from_secs(1);
/// How often what machines measure is looked at, which nobody writes anywhere.
const MEASURED: Duration = Duration::from_secs(10);

/// Wakes when something was changed.
pub struct Watch {
    changes: broadcast::Receiver<Changed>,
    bell: Subscription,
    /// One run, or all.
    run: Option<RunKey>,
    /// Also when nothing was changed for so long.
    every: Option<Duration>,
}

impl Watch {
    /// Changes of any run.
    pub fn everything(app: &App) -> Watch {
        Watch { changes: app.scheduler.subscribe(), bell: app.store.subscribe(POLL), run: None, every: None }
    }

    /// Changes of any run, and what machines measure.
    pub fn machines(app: &App) -> Watch {
        Watch { every: Some(MEASURED), ..Watch::everything(app) }
    }

    /// What recovery does, which is written without a word to anybody.
    pub fn incidents(app: &App) -> Watch {
        Watch { every: Some(POLL), ..Watch::everything(app) }
    }

    /// Changes of one run.
    pub fn run(app: &App, key: RunKey) -> Watch {
        Watch { run: Some(key), ..Watch::everything(app) }
    }

    /// Returns when there is a reason to look; with `elsewhere`, also for what other processes write, which says not
    /// which run it is about.
    pub async fn changed(&mut self, elsewhere: bool) {
        let until = self.every.map(|every| Instant::now() + every);
        loop {
            tokio::select! {
                change = self.changes.recv() => match change {
                    Ok(change) if self.run.is_none_or(|run| run == change.run) => return,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => return,
                    Err(RecvError::Closed) => std::future::pending().await,
                },
                () = self.bell.changed(), if elsewhere || self.run.is_none() => return,
                () = async { tokio::time::sleep_until(until.expect("guarded")).await }, if until.is_some() => return,
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
    /// None: nothing has changed since the last look.
    pub parts: Vec<Part>,
    /// Another process works on what the page shows.
    pub elsewhere: bool,
}

/// Rendered parts with their hashes.
type Rendered = Arc<Vec<(Part, u64)>>;
type Sender = watch::Sender<Option<Rendered>>;

/// The pages that are being watched, by what they show and to whom.
#[derive(Clone, Default)]
pub struct Hub(Arc<Mutex<HashMap<String, Weak<Sender>>>>);

impl Hub {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Weak<Sender>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What is rendered for that key; `start` begins to, if nobody does yet.
    fn join(&self, key: String, start: impl FnOnce(Arc<Sender>)) -> watch::Receiver<Option<Rendered>> {
        let mut pages = self.lock();
        if let Some(sender) = pages.get(&key).and_then(Weak::upgrade) {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(None);
        let sender = Arc::new(sender);
        pages.insert(key, Arc::downgrade(&sender));
        start(sender);
        receiver
    }

    /// Forgets a page if nobody watches it; under the lock, so that nobody joins it at that moment.
    fn leave(&self, key: &str, sender: &Sender) -> bool {
        let mut pages = self.lock();
        let is_over = sender.receiver_count() == 0;
        if is_over {
            pages.remove(key);
        }
        is_over
    }
}

/// Streams the parts of a page that change, all of them at first.
///
/// `key` says what is shown and to whom: streams with equal keys share the looking, so whatever `look` depends on
/// must be part of it.
pub fn follow<F, Fut>(
    site: &Site,
    key: String,
    watch: Watch,
    look: F,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<F, Fut>>
where
    F: Fn() -> Fut + Send + 'static,
    Fut: Future<Output = Option<Look>> + Send + 'static,
{
    let hub = site.live.clone();
    let renderer = (hub.clone(), key.clone());
    let parts = hub.join(key, |sender| {
        let (hub, key) = renderer;
        tokio::spawn(keep_looking(hub, key, sender, watch, look));
    });
    let viewer = (parts, HashMap::<&'static str, u64>::new());
    let events = stream::unfold(viewer, |(mut parts, mut sent)| async move {
        loop {
            let rendered = parts.borrow_and_update().clone();
            let mut changed = Map::new();
            for (part, hash) in rendered.iter().flat_map(|rendered| rendered.iter()) {
                if sent.insert(part.id, *hash) != Some(*hash) {
                    changed.insert(part.id.to_owned(), Value::String(part.html.clone()));
                }
            }
            if !changed.is_empty() {
                let event = Event::default().event("parts").data(Value::Object(changed).to_string());
                return Some((Ok(event), (parts, sent)));
            }
            parts.changed().await.ok()?;
        }
    });
    Sse::new(events.take_until(Box::pin(site.stream_ends())).fuse()).keep_alive(KeepAlive::default())
}

/// As [`follow`], of a page with one part that changes, and that other processes may change.
pub fn follow_part<F, Fut>(
    site: &Site,
    key: String,
    watch: Watch,
    id: &'static str,
    render: F,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<F, Fut>>
where
    F: Fn(Site) -> Fut + Send + 'static,
    Fut: Future<Output = ApiResult<String>> + Send + 'static,
{
    let looker = site.clone();
    let look = move || {
        let html = render(looker.clone());
        async move { Some(Look { parts: vec![Part { id, html: html.await.ok()? }], elsewhere: true }) }
    };
    follow(site, key, watch, look)
}

/// Looks whenever there is a reason to, as long as somebody watches.
async fn keep_looking<F, Fut>(hub: Hub, key: String, sender: Arc<Sender>, mut watch: Watch, look: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Option<Look>>,
{
    loop {
        let start = Instant::now();
        let Some(Look { parts, elsewhere }) = look().await else { break };
        let next = Instant::now() + CALM.max(start.elapsed() * 5);
        if !parts.is_empty() {
            let hashed = parts.into_iter().map(|part| {
                let mut hasher = DefaultHasher::new();
                part.html.hash(&mut hasher);
                (part, hasher.finish())
            });
            sender.send_replace(Some(Arc::new(hashed.collect())));
        }
        tokio::select! {
            () = watch.changed(elsewhere) => {}
            () = sender.closed() => {
                if hub.leave(&key, &sender) {
                    return;
                }
            }
        }
        tokio::time::sleep_until(next).await;
        watch.forget();
    }
    hub.lock().remove(&key);
}
