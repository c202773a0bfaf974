//! Triggers: what an event that came over HTTP starts.
//!
//! A [`Set`] is read from documents, and checked. [`Set::select`] says which triggers a listener has; each goes its own
//! way: its [`Chain`](interceptors::Chain) of interceptors, then [`Trigger::resources`], which binds params of the event
//! and fills the template. [`resolve`] is all of it for a trigger that has to ask nobody. Nothing here does IO, reads a
//! clock or rolls dice: secrets, answers, times and unique names are arguments.

mod bindings;
pub mod event;
pub mod interceptors;
mod jsonpath;
pub mod model;
pub mod native;
pub mod replay;
pub mod report;
pub mod sample;
mod select;
mod set;
pub mod signature;
mod stop;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

pub use event::{Body, Event, Headers};
pub use interceptors::{Answer, Chain, Interceptor, Next, Question, prove};
pub use select::{Selected, matches};
pub use set::{Group, Listener, Set, TriggerDoc, check};
pub use stop::{Stop, StopKind};
pub use template::{KINDS, OLD_ESCAPE, Resource};

pub use crate::cel::Secrets;
use model::{Param, ParamSpec};

/// A trigger with all that it refers to.
#[derive(Debug, Clone)]
pub struct Trigger {
    pub name: String,
    pub namespace: String,
    pub service_account: String,
    pub annotations: std::collections::BTreeMap<String, String>,
    pub interceptors: Vec<Interceptor>,
    pub params: Vec<Param>,
    pub declared: Vec<ParamSpec>,
    pub templates: Vec<Value>,
    /// Quotes in values are escaped once more.
    pub old_escape: bool,
}

impl Trigger {
    /// What interceptors elsewhere know it by.
    pub fn id(&self) -> String {
        format!("namespaces/{}/triggers/{}", self.namespace, self.name)
    }

    /// The secrets of its namespace that it may read, as (name, key): those to fetch before.
    pub fn secrets(&self) -> BTreeSet<(String, String)> {
        let mut wanted = BTreeSet::new();
        self.interceptors.iter().for_each(|interceptor| interceptor.secrets(&mut wanted));
        wanted
    }

    /// The objects that an event makes which its interceptors have let pass: `headers`, `body` and `extensions` are those
    /// of [`Chain::finish`], `listener` is the name of the listener, and `uid` a name that is given once.
    pub fn resources(
        &self,
        event: &Event,
        headers: &Headers,
        body: &Body,
        extensions: Map<String, Value>,
        listener: &str,
        uid: &str,
    ) -> Result<Vec<Resource>, Stop> {
        let body = body.json().map_err(|why| Stop::failed(why).by("bindings"))?;
        let header = headers.joined();
        let extensions = Value::Object(extensions);
        let context = json!({"eventID": event.id});
        let root = jsonpath::Root { body, header: &header, extensions: &extensions, context: &context };
        let params = bindings::params(&self.params, &self.declared, &root)?;
        let maker = template::Maker { listener, trigger: &self.name, event: &event.id, namespace: &self.namespace };
        template::resources(&self.templates, &params, self.old_escape, uid, &maker)
    }
}

/// What an event starts by a trigger: the objects to make, or why there are none. A question stops it; who can answer
/// goes by [`Chain`].
pub fn resolve(
    trigger: &Trigger,
    event: &Event,
    listener: &str,
    secrets: &dyn Secrets,
    uid: &str,
) -> Result<Vec<Resource>, Stop> {
    let mut chain = Chain::new(&trigger.interceptors, event, trigger.id(), Map::new())?;
    match chain.advance(secrets)? {
        Next::Passed => {}
        Next::Ask(_) => return Err(Stop::failed("an interceptor of the trigger has to be asked, and nobody can here")),
    }
    let (headers, body, extensions) = chain.finish();
    trigger.resources(event, &headers, &body, extensions, listener, uid)
}
