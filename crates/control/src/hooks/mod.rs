//! Webhooks: what is posted to listeners, and what it starts.
//!
//! Whichever server is asked takes an event (`listen`): it writes one row, and then answers. The server that leads looks at
//! what waits (`process`), each trigger by itself (`fire`), and writes what it came to.
//!
//! Invariant: what was answered with 202 is in the store, so no crash loses it. What an event makes is named after it, so
//! whoever looks at it again after a crash finds what is there already, and nothing is made twice.

mod ask;
mod breaker;
mod content;
mod fire;
mod limits;
pub mod listen;
mod native;
pub mod process;
pub mod report;
pub mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::SignedDuration;
use pitcrew_exec::docker::keeper::EnginePlace;
use pitcrew_lang::cel;
use pitcrew_lang::tekton::model::{Doc, TriggerObject};
use pitcrew_lang::triggers::{Set, Trigger, check};
use pitcrew_lang::{Severity, triggers};
use pitcrew_store::{ObjectFilter, Paging};
use tokio::sync::{Notify, Semaphore};

use crate::app::App;
use crate::tekton::objects;

pub use limits::Limits;

/// Kinds of triggers, as they lie among the objects.
pub const KINDS: [&str; 7] = [
    "EventListener",
    "Trigger",
    "TriggerBinding",
    "ClusterTriggerBinding",
    "TriggerTemplate",
    "Interceptor",
    "ClusterInterceptor",
];
/// How long a delivery that comes twice is known, unless something else is configured.
pub const REPLAY_WINDOW: SignedDuration = SignedDuration::from_hours(24);
/// Of all bodies that are being read at a moment, in KiB.
const ROOM: usize = 256 << 10;

/// What all requests of a server share.
pub struct Desk {
    /// Wakes whoever looks at what waits.
    waiting: Notify,
    known: Mutex<Option<Arc<Known>>>,
    /// How long a delivery that comes twice is known.
    window: SignedDuration,
    /// Where pods of the runs that are started have their containers; `None`: in sandboxes.
    pods: Option<EnginePlace>,
    pub limits: Limits,
    /// What is asked elsewhere.
    breaker: breaker::Breaker,
    /// Held while an object is made that may be there.
    making: tokio::sync::Mutex<()>,
    /// A permit per KiB of a body that is being read.
    pub room: Arc<Semaphore>,
}

impl Default for Desk {
    fn default() -> Desk {
        Desk::new(REPLAY_WINDOW, None)
    }
}

/// All triggers that were applied.
pub struct Known {
    /// What they were read from, by uid and generation.
    from: Vec<(String, i64)>,
    set: Set,
    /// Of listeners, by namespace and name.
    uids: BTreeMap<(String, String), String>,
}

impl Desk {
    /// `window`: how long a delivery that comes twice is known. `pods`: the engine for the runs that are started.
    pub fn new(window: SignedDuration, pods: Option<EnginePlace>) -> Desk {
        let room = Arc::new(Semaphore::new(ROOM));
        Desk {
            waiting: Notify::new(),
            known: Mutex::default(),
            window,
            pods,
            limits: Limits::default(),
            breaker: breaker::Breaker::default(),
            making: tokio::sync::Mutex::default(),
            room,
        }
    }

    /// Something waits.
    pub fn wake(&self) {
        self.waiting.notify_one();
    }

    /// The namespace and the name of the listener, if there is one alone.
    pub async fn only(&self, app: &App) -> anyhow::Result<Option<(String, String)>> {
        let known = self.known(app).await?;
        let mut all = known.set.listeners();
        let first = all.next().map(|listener| (listener.namespace.clone(), listener.name.clone()));
        Ok(first.filter(|_| all.next().is_none()))
    }

    /// The triggers as they are in the store. They are read anew when one has changed.
    async fn known(&self, app: &App) -> anyhow::Result<Arc<Known>> {
        let filter = ObjectFilter { kinds: KINDS.map(str::to_owned).to_vec(), ..ObjectFilter::default() };
        let rows = app.store.objects(&filter, Paging::ALL).await?.rows;
        let from: Vec<(String, i64)> = rows.iter().map(|row| (row.uid.clone(), row.generation)).collect();
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().as_ref().filter(|known| known.from == from) {
            return Ok(known.clone());
        }
        let listeners = rows.iter().filter(|row| row.kind == "EventListener");
        let uids = listeners.map(|row| ((row.namespace.clone(), row.name.clone()), row.uid.clone())).collect();
        let read = |row: &pitcrew_store::ObjectRow| {
            let doc = Doc::<TriggerObject>::from_json(row.doc.clone());
            let doc =
                doc.inspect_err(|why| tracing::warn!("the {} `{}` cannot be read: {why}", row.kind, row.name)).ok()?;
            let wrong = check(&doc).into_iter().find(|found| found.severity == Severity::Error);
            if let Some(wrong) = &wrong {
                tracing::warn!("the {} `{}` is left out: {}; apply it again", row.kind, row.name, wrong.message);
            }
            wrong.is_none().then_some(doc)
        };
        let docs: Vec<Doc<TriggerObject>> = rows.iter().filter_map(read).collect();
        let set = Set::read(&docs)
            .map_err(|wrong| anyhow::anyhow!(wrong.into_iter().next().map_or_else(String::new, |w| w.message)))?;
        let known = Arc::new(Known { from, set, uids });
        *lock() = Some(known.clone());
        Ok(known)
    }
}

/// Values of Secrets, by namespace, name and key.
#[derive(Default)]
struct Held(BTreeMap<String, OfNamespace>);

/// Those of one namespace.
#[derive(Default)]
struct OfNamespace(BTreeMap<(String, String), Vec<u8>>);

impl cel::Secrets for OfNamespace {
    fn get(&self, name: &str, key: &str) -> Option<&[u8]> {
        self.0.get(&(name.to_owned(), key.to_owned())).map(Vec::as_slice)
    }
}

static NOTHING: OfNamespace = OfNamespace(BTreeMap::new());

impl Held {
    /// Those of native workflows, which are in no namespace.
    fn nowhere(secrets: OfNamespace) -> Held {
        Held(BTreeMap::from([(native::NOWHERE.to_owned(), secrets)]))
    }

    fn of(&self, namespace: &str) -> &OfNamespace {
        self.0.get(namespace).unwrap_or(&NOTHING)
    }

    /// Fetches what is wanted; what is not there is left out.
    async fn fetch(&mut self, app: &App, namespace: &str, wanted: BTreeSet<(String, String)>) -> anyhow::Result<()> {
        let held = self.0.entry(namespace.to_owned()).or_default();
        let names: BTreeSet<&String> = wanted.iter().map(|(name, _)| name).collect();
        for name in names {
            let keys = match objects::keys(&app.store, &app.vault, true, namespace, name).await {
                Ok(keys) => keys.unwrap_or_default(),
                // What lasts is told where the secret is used; what passes is tried again.
                Err(error) if error.downcast_ref::<pitcrew_store::StoreError>().is_some() => return Err(error),
                Err(error) => {
                    tracing::warn!("a trigger cannot use the Secret `{namespace}/{name}`: {error:#}");
                    continue;
                }
            };
            let asked = |key: &String| wanted.contains(&(name.clone(), key.clone()));
            let found = keys.into_iter().filter(|(key, _)| asked(key));
            held.0.extend(found.map(|(key, value)| ((name.clone(), key), value)));
        }
        Ok(())
    }

    /// What all interceptors of a listener may ask for.
    async fn of_listener(app: &App, namespace: &str, selected: &triggers::Selected<'_>) -> anyhow::Result<Held> {
        let mut held = Held::default();
        let mut wanted: BTreeMap<&str, BTreeSet<(String, String)>> = BTreeMap::new();
        for (group, _) in &selected.groups {
            let of_listener = wanted.entry(namespace).or_default();
            group.interceptors.iter().for_each(|interceptor| interceptor.secrets(of_listener));
        }
        for trigger in all(selected) {
            wanted.entry(&trigger.namespace).or_default().extend(trigger.secrets());
        }
        for (namespace, wanted) in wanted {
            held.fetch(app, namespace, wanted).await?;
        }
        Ok(held)
    }
}

/// All triggers of a listener that can be had.
fn all<'s>(selected: &'s triggers::Selected<'_>) -> impl Iterator<Item = &'s Trigger> {
    let grouped = selected.groups.iter().flat_map(|(_, triggers)| triggers);
    selected.triggers.iter().chain(grouped).filter_map(|(_, trigger)| trigger.as_ref().ok())
}
