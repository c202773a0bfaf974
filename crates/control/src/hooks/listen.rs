//! Taking what is posted: by any server, in one row.
//!
//! Invariant: nothing that the body says is looked at before it is proved, to one trigger at least, that it comes from who
//! knows its secret. What proves nothing to anybody is written down without its body.

use std::sync::Arc;

use jiff::Timestamp;
use pitcrew_lang::triggers::event::{Body, Event, Headers};
use pitcrew_lang::triggers::replay::{self, Proof};
use pitcrew_lang::triggers::{Set, Stop, Trigger, prove};
use pitcrew_store::{DeliveryState, NewDelivery};
use serde_json::{Value, json};

use super::native::{NOWHERE, Native};
use super::{Held, Known, content};
use crate::app::App;
use crate::hooks::fire::stopped;
use crate::vault::Vault;

/// Of a listener that also takes what is no JSON.
const ANY_PAYLOAD: &str = "tekton.dev/payload-validation";
/// What is shown of a word of the sender.
const SHOWN: usize = 100;

/// A listener that is there.
pub struct Door {
    who: Who,
    namespace: String,
    listener: String,
    uid: String,
}

/// Who listens.
enum Who {
    Listener(Arc<Known>),
    Workflow(Native),
}

impl Who {
    async fn held(&self, app: &App, namespace: &str, listener: &str) -> anyhow::Result<Held> {
        match self {
            Who::Workflow(native) => native.held(app).await,
            Who::Listener(known) => match known.set.select(namespace, listener) {
                Some(selected) => Held::of_listener(app, namespace, &selected).await,
                None => Ok(Held::default()),
            },
        }
    }

    fn judge(&self, new: &NewDelivery, event: &Event, held: &Held) -> Result<Proof, Value> {
        match self {
            Who::Workflow(native) => native.judge(event, held),
            Who::Listener(known) => judge(&known.set, &new.namespace, &new.listener, event, held),
        }
    }

    /// It also takes what is no JSON.
    fn takes_any(&self, new: &NewDelivery) -> bool {
        let Who::Listener(known) = self else { return false };
        let annotations = known.set.listener(&new.namespace, &new.listener).map(|listener| &listener.annotations);
        annotations.and_then(|all| all.get(ANY_PAYLOAD)).is_some_and(|value| value == "false")
    }
}

/// What was posted to it.
pub struct Post {
    /// A path with its query.
    pub url: String,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub source: String,
    pub received: Timestamp,
}

/// What becomes of it.
#[derive(Debug)]
pub enum Taken {
    Yes(Receipt),
    /// Its body is not what the listener takes; the reason.
    NoJson(String),
}

/// What the sender is told. Of a workflow, `namespace` and `uid` are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub namespace: String,
    pub listener: String,
    pub uid: String,
    pub event: String,
    /// It came before, and starts nothing.
    pub is_duplicate: bool,
    /// It is proved to no trigger, and starts nothing.
    pub is_refused: bool,
}

/// The listener, if there is one.
pub async fn door(app: &App, namespace: &str, listener: &str) -> anyhow::Result<Option<Door>> {
    let known = app.hooks.known(app).await?;
    let Some(uid) = known.uids.get(&(namespace.to_owned(), listener.to_owned())).cloned() else { return Ok(None) };
    if known.set.listener(namespace, listener).is_none() {
        return Ok(None);
    }
    let who = Who::Listener(known);
    Ok(Some(Door { who, namespace: namespace.to_owned(), listener: listener.to_owned(), uid }))
}

/// The webhooks of a native workflow, if it has some.
pub async fn door_of_workflow(app: &App, workflow: &str) -> anyhow::Result<Option<Door>> {
    let native = Native::find(app, workflow).await?;
    Ok(native.map(|native| Door {
        namespace: NOWHERE.to_owned(),
        listener: native.workflow.to_string(),
        uid: String::new(),
        who: Who::Workflow(native),
    }))
}

impl Door {
    /// Writes the event down. When this returns, it is in the store.
    pub async fn take(self, app: &App, post: Post) -> anyhow::Result<Taken> {
        let Door { who, namespace, listener, uid } = self;
        let held = who.held(app, &namespace, &listener).await?;
        let event = Event {
            id: uuid::Uuid::now_v7().to_string(),
            url: post.url,
            headers: post.headers,
            body: Body::new(post.body),
            received: post.received,
        };
        let vault = app.vault.clone();
        let until = event.received.saturating_add(app.hooks.window).unwrap_or(Timestamp::MAX);
        let new = NewDelivery {
            event: event.id.clone(),
            namespace: namespace.clone(),
            listener: listener.clone(),
            received: event.received,
            source: post.source,
            about: about(&event.headers),
            bytes: u32::try_from(event.body.raw().len()).unwrap_or(u32::MAX),
            sealed: None,
            state: DeliveryState::Waiting,
            outcome: json!([]),
            again_of: None,
            guard: None,
        };
        // A large body takes a while to be proved, read and sealed.
        let written = tokio::task::spawn_blocking(move || {
            let (proof, takes_any) = (who.judge(&new, &event, &held), who.takes_any(&new));
            row(takes_any, &vault, new, &event, proof, until)
        });
        let new = match written.await?? {
            Ok(new) => new,
            Err(why) => return Ok(Taken::NoJson(why)),
        };
        let (event, is_refused) = (new.event.clone(), new.state == DeliveryState::Refused);
        let added = app.store.add_delivery(new).await?;
        app.hooks.waiting.notify_one();
        let is_duplicate = added.first.is_some();
        let event = added.first.map_or(event, |(_, first)| first);
        Ok(Taken::Yes(Receipt { namespace, listener, uid, event, is_duplicate, is_refused }))
    }
}

/// What the event proves to the triggers of a listener: the strongest of it, or what each of them says to it.
fn judge(set: &Set, namespace: &str, listener: &str, event: &Event, held: &Held) -> Result<Proof, Value> {
    let Some(selected) = set.select(namespace, listener) else { return Ok(Proof::None) };
    let mut best: Option<Proof> = None;
    let mut refusals = Vec::new();
    let mut note = |name: &str, proof: Result<Proof, Stop>| match proof {
        Ok(proof) => best = Some(best.map_or(proof, |best| best.max(proof))),
        Err(stop) => refusals.push(stopped(name, &stop)),
    };
    // A trigger that cannot be had is proved nothing, and is told of when the event is looked at.
    let own = |trigger: &Trigger| prove(&trigger.interceptors, event, held.of(&trigger.namespace));
    for (name, trigger) in &selected.triggers {
        if let Ok(trigger) = trigger {
            note(name, own(trigger));
        }
    }
    for (group, triggers) in &selected.groups {
        let of_group = prove(&group.interceptors, event, held.of(namespace));
        for (name, trigger) in triggers {
            if let Ok(trigger) = trigger {
                note(name, of_group.clone().and_then(|group| own(trigger).map(|own| own.max(group))));
            }
        }
    }
    match best {
        None if !refusals.is_empty() => Err(Value::Array(refusals)),
        best => Ok(best.unwrap_or(Proof::None)),
    }
}

/// The row of a delivery, or why it is not what the listener takes.
fn row(
    takes_any: bool,
    vault: &Vault,
    mut new: NewDelivery,
    event: &Event,
    proof: Result<Proof, Value>,
    until: Timestamp,
) -> anyhow::Result<Result<NewDelivery, String>> {
    let proof = match proof {
        Ok(proof) => proof,
        Err(refusals) => {
            (new.state, new.outcome) = (DeliveryState::Refused, refusals);
            return Ok(Ok(new));
        }
    };
    if !takes_any
        && !event.headers.is_form()
        && let Err(why) = event.body.json()
    {
        return Ok(Err(why));
    }
    let digest = replay::digest(&new.namespace, &new.listener, proof, event);
    new.guard = digest.map(|digest| (digest, until));
    new.sealed = Some(content::seal(vault, event)?);
    Ok(Ok(new))
}

/// What the sender calls it: `push`.
fn about(headers: &Headers) -> String {
    let names = ["X-Github-Event", "X-Gitlab-Event", "X-Event-Key"];
    let named = names.into_iter().map(|name| headers.get(name)).find(|value| !value.is_empty());
    let slack = || (!headers.get("X-Slack-Signature").is_empty()).then_some("slash command");
    named.or_else(slack).unwrap_or_default().chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}
