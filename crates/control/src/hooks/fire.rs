//! What an event starts: each trigger of its listener by itself, and the objects that they make.
//!
//! Invariant: names and `$(uid)` are made of the event, the trigger, and the place in its template. So the same event looked
//! at again makes the same names, and finds what it has made; what somebody else has under such a name is told apart by the
//! labels of triggers, and then the next name is tried.

use std::collections::BTreeMap;

use pitcrew_core::engine::record::{RunRecord, RunType};
use pitcrew_lang::tekton::{self, ReadOptions, Source};
use pitcrew_lang::triggers::event::Event;
use pitcrew_lang::triggers::replay::Proof;
use pitcrew_lang::triggers::report;
use pitcrew_lang::triggers::sample::{self, Share};
use pitcrew_lang::triggers::{Chain, Interceptor, KINDS, Next, Resource, Stop, StopKind, Trigger, prove};
use pitcrew_lang::{Diagnostic, Severity};
use pitcrew_store::{CreateRun, DeliveryRow, ObjectFilter, Paging, StoreError};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::breaker::{self, May};
use super::report::{CONF, Target};
use super::{Held, OfNamespace, ask, content, native};
use crate::app::App;
use crate::catalog::DOCUMENT;
use crate::clock;
use crate::tekton::objects;
use crate::tekton::start::{self, DEFINITIONS, How, LETTERS, StartError};

const EVENT: &str = "triggers.tekton.dev/triggers-eventid";
const TRIGGER: &str = "triggers.tekton.dev/trigger";
/// Generated names that are tried; of 14 million, another one has none of them.
const NAMES: u32 = 8;

/// Why something was not made.
enum Fault {
    /// It may go well later.
    Later(anyhow::Error),
    Told(String),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        match error {
            StoreError::Unavailable(_) | StoreError::Full(_) | StoreError::Backend(_) => Fault::Later(error.into()),
            StoreError::TooNew { .. }
            | StoreError::Conflict(_)
            | StoreError::Invalid(_)
            | StoreError::NotFound { .. }
            | StoreError::Corrupt(_) => Fault::Told(error.to_string()),
        }
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Fault {
        match error.downcast::<StoreError>() {
            Ok(error) => error.into(),
            Err(error) => Fault::Told(format!("{error:#}")),
        }
    }
}

/// The line of a trigger that starts nothing.
pub fn stopped(trigger: &str, stop: &Stop) -> Value {
    let result = match stop.kind {
        StopKind::Filtered => "filtered",
        StopKind::Refused => "stopped",
        StopKind::Failed => "error",
    };
    json!({ "trigger": trigger, "result": result, "by": stop.by, "why": stop.message })
}

pub fn failed(trigger: &str, why: &str) -> Value {
    stopped(trigger, &Stop::failed(why))
}

/// All that a delivery comes to: a line for each trigger. The error passes.
pub async fn all(app: &App, row: &DeliveryRow) -> anyhow::Result<Value> {
    let opened = row.sealed.as_ref().map(|sealed| content::open(&app.vault, sealed, &row.event));
    let event = match opened {
        Some(Ok(event)) => event,
        Some(Err(why)) => return Ok(json!([failed("", &format!("{why:#}"))])),
        None => return Ok(json!([failed("", "what was posted is not there any more")])),
    };
    if row.namespace == native::NOWHERE {
        return native::all(app, row, &event).await;
    }
    let known = app.hooks.known(app).await?;
    let (namespace, listener) = (row.namespace.as_str(), row.listener.as_str());
    let Some(selected) = known.set.select(namespace, listener) else {
        let why = format!("there is no EventListener `{listener}` in `{namespace}` any more");
        return Ok(json!([failed("", &why)]));
    };
    let held = Held::of_listener(app, namespace, &selected).await?;
    let mut lines = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    // The same trigger may be found in several ways; then it fires in each.
    let mut place = |namespace: &str, name: &str| {
        let id = format!("{namespace}/{name}");
        let before = seen.iter().filter(|other| **other == id).count();
        seen.push(id.clone());
        format!("{id}#{before}")
    };
    let of_listener = known.set.listener(namespace, listener).map(|listener| &listener.annotations);
    let one = One { app, event: &event, row, held: &held, of_listener };
    for (name, trigger) in &selected.triggers {
        let line = match trigger {
            Ok(trigger) => one.trigger(trigger, &place(&trigger.namespace, name), Map::new(), Proof::None).await?,
            Err(stop) => stopped(name, stop),
        };
        lines.push(line);
    }
    for (group, triggers) in &selected.groups {
        let id = format!("namespaces/{namespace}/triggergroups/{}", group.name);
        let passed = one.chain(&group.interceptors, &id, namespace, Map::new()).await?;
        let proof = prove(&group.interceptors, &event, held.of(namespace)).unwrap_or(Proof::None);
        for (name, trigger) in triggers {
            let line = match (&passed, trigger) {
                (Err(stop), _) | (_, Err(stop)) => stopped(name, stop),
                (Ok(passed), Ok(trigger)) => {
                    one.trigger(trigger, &place(&trigger.namespace, name), passed.2.clone(), proof).await?
                }
            };
            lines.push(line);
        }
    }
    for line in &lines {
        app.metrics.event(&format!("{namespace}/{listener}"), word(&line["result"]));
    }
    Ok(Value::Array(lines))
}

/// What an event came to, as the metrics of queues say it.
pub fn word(result: &Value) -> &'static str {
    match result.as_str() {
        Some("fired") => "run",
        Some("stopped") => "refused",
        Some("error") => "error",
        _ => "other",
    }
}

/// What is left of an event that has passed: its headers, its body, and what was added.
pub type Passed = (pitcrew_lang::triggers::Headers, pitcrew_lang::triggers::Body, Map<String, Value>);

/// An event on its way through interceptors, with what they may know.
pub struct Asked<'a> {
    pub app: &'a App,
    pub event: &'a Event,
    pub held: &'a OfNamespace,
    pub namespace: &'a str,
}

impl Asked<'_> {
    pub async fn chain(
        &self,
        interceptors: &[Interceptor],
        id: &str,
        extensions: Map<String, Value>,
    ) -> anyhow::Result<Result<Passed, Stop>> {
        let mut chain = match Chain::new(interceptors, self.event, id.to_owned(), extensions) {
            Ok(chain) => chain,
            Err(stop) => return Ok(Err(stop)),
        };
        loop {
            let question = match chain.advance(self.held) {
                Ok(Next::Passed) => return Ok(Ok(chain.finish())),
                Ok(Next::Ask(question)) => question,
                Err(stop) => return Ok(Err(stop)),
            };
            let place = breaker::place(self.namespace, &question);
            let asking = match self.app.hooks.breaker.may(&place, clock::now()) {
                May::Ask(asking) => asking,
                May::Later => anyhow::bail!("{place} is being asked much already"),
                May::No(until) => {
                    let why = format!("{place} has not answered several times, and is not asked before {until:.0}");
                    return Ok(Err(Stop { by: chain.at().to_owned(), ..Stop::failed(why) }));
                }
            };
            let answer = ask::ask(self.app, self.namespace, self.held, question).await;
            asking.ended(answer.is_ok(), clock::now());
            let answer = match answer {
                Ok(answer) => answer,
                Err(why) => return Ok(Err(Stop { by: chain.at().to_owned(), ..Stop::failed(format!("{why:#}")) })),
            };
            if let Err(stop) = chain.answer(answer) {
                return Ok(Err(stop));
            }
        }
    }
}

struct One<'e> {
    app: &'e App,
    event: &'e Event,
    row: &'e DeliveryRow,
    held: &'e Held,
    /// Annotations of the listener.
    of_listener: Option<&'e BTreeMap<String, String>>,
}

impl One<'_> {
    async fn chain(
        &self,
        interceptors: &[Interceptor],
        id: &str,
        namespace: &str,
        extensions: Map<String, Value>,
    ) -> anyhow::Result<Result<Passed, Stop>> {
        let One { app, event, .. } = self;
        let asked = Asked { app, event, held: self.held.of(namespace), namespace };
        asked.chain(interceptors, id, extensions).await
    }

    /// `proof`: what the event has proved to the group of the trigger.
    async fn trigger(
        &self,
        trigger: &Trigger,
        place: &str,
        extensions: Map<String, Value>,
        proof: Proof,
    ) -> anyhow::Result<Value> {
        let name = &trigger.name;
        let passed = self.chain(&trigger.interceptors, &trigger.id(), &trigger.namespace, extensions).await?;
        let (headers, body, extensions) = match passed {
            Ok(passed) => passed,
            Err(stop) => return Ok(stopped(name, &stop)),
        };
        if let Some(share) = trigger.annotations.get(sample::ANNOTATION) {
            let subject = body.json().ok().and_then(subject);
            let (repository, commit) = subject.unwrap_or((self.event.id.as_str(), ""));
            match Share::parse(share) {
                Ok(parsed) if parsed.takes(repository, commit) => {}
                Ok(_) => {
                    return Ok(
                        json!({ "trigger": name, "result": "not sampled", "why": format!("the commit is not among {share}") }),
                    );
                }
                Err(why) => return Ok(failed(name, &format!("`{}`: {why}", sample::ANNOTATION))),
            }
        }
        let uid = uid(&self.row.event, place);
        let made = trigger.resources(self.event, &headers, &body, extensions, &self.row.listener, &uid);
        let resources = match made {
            Ok(resources) => resources,
            Err(stop) => return Ok(stopped(name, &stop)),
        };
        let mut made = Vec::new();
        for (n, resource) in resources.into_iter().enumerate() {
            let report = self.report(trigger, &resource, proof);
            let (report, unreported) = match report {
                Ok(report) => (report, None),
                Err(why) => (None, Some(why)),
            };
            let result = self.make(resource, &format!("{place}/{n}"), report.as_ref()).await.map(|mut made| {
                if let Some(target) = report {
                    made["report"] = json!(target.words());
                }
                if let Some(why) = unreported {
                    made["unreported"] = json!(why);
                }
                made
            });
            match result {
                Ok(one) => made.push(one),
                Err(Fault::Later(error)) => return Err(error),
                Err(Fault::Told(why)) => {
                    let why = format!("resourcetemplates[{n}]: {why}");
                    return Ok(
                        json!({ "trigger": name, "result": "error", "by": "template", "why": why, "made": made }),
                    );
                }
            }
        }
        Ok(json!({ "trigger": name, "result": "fired", "made": made }))
    }

    /// Where the result of an object is written back to. A secret of ours is used for nobody who has not proved that the
    /// event is from the forge. The error is a sentence.
    fn report(&self, trigger: &Trigger, resource: &Resource, of_group: Proof) -> Result<Option<Target>, String> {
        if !matches!(resource.kind.as_str(), "PipelineRun" | "TaskRun") {
            return Ok(None);
        }
        let own = resource.object["metadata"]["annotations"].as_object();
        let own = own.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        let own: BTreeMap<String, String> = own.collect();
        let layers: Vec<_> = [&own, &trigger.annotations].into_iter().chain(self.of_listener).collect();
        let Some(wanted) = report::read(&layers, &trigger.namespace)? else { return Ok(None) };
        let proof = prove(&trigger.interceptors, self.event, self.held.of(&trigger.namespace)).unwrap_or(Proof::None);
        if proof.max(of_group) == Proof::None {
            return Err(
                "no interceptor of the trigger has a `secretRef`, so anybody could have sent the event".to_owned()
            );
        }
        let body = self.event.body.json()?;
        Target::of(wanted, &trigger.name, body).map(Some)
    }

    /// Makes an object, or finds that it was made.
    async fn make(&self, resource: Resource, place: &str, report: Option<&Target>) -> Result<Value, Fault> {
        let Resource { api_version, kind, namespace, name, mut object } = resource;
        if !KINDS.contains(&(api_version.as_str(), kind.as_str())) {
            return Err(Fault::Told(format!("a {kind} of {api_version} cannot be made here")));
        }
        let is_run = matches!(kind.as_str(), "PipelineRun" | "TaskRun");
        if name.is_empty() && !is_run {
            let stem = object["metadata"]["generateName"].as_str().unwrap_or_default();
            object["metadata"]["name"] = json!(format!("{stem}{}", letters(&self.row.event, place, 0)));
        }
        let (text, options) = (object.to_string(), ReadOptions { namespace: namespace.clone() });
        let read = tekton::read(&[Source { file: "", text: &text }], &options);
        let run = read.map_err(|found| told(&found))?.runs.first().map(|doc| doc.to_json());
        let by = format!("hook {}/{}", self.row.namespace, self.row.listener);
        if let Some(document) = run {
            return self.run(document, &by, place, report).await;
        }
        let app = self.app;
        let (kind, name) = objects::kind_and_name(&object).map_err(|why| Fault::Told(format!("{why:#}")))?;
        let (kind, name) = (kind.to_owned(), name.to_owned());
        // As on a cluster, nothing that is there is changed. Two triggers of one event may make the same.
        let _alone = app.hooks.making.lock().await;
        match app.store.object(&kind, &namespace, &name).await? {
            Some(there) if labels(&there.doc) == labels(&object) => {}
            Some(_) => {
                let why = format!("there is a {kind} `{name}` in `{namespace}` already");
                return Err(Fault::Told(format!("{why}; let the template say `generateName`")));
            }
            None => {
                objects::put(&app.store, &app.vault, &object, &namespace, &by, clock::now()).await?;
            }
        }
        Ok(json!({ "kind": kind, "namespace": namespace, "name": object["metadata"]["name"] }))
    }

    async fn run(&self, mut document: Value, by: &str, place: &str, report: Option<&Target>) -> Result<Value, Fault> {
        let app = self.app;
        let kind = document["kind"].as_str().unwrap_or_default().to_owned();
        let namespace = document["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let kinds = DEFINITIONS.map(str::to_owned).to_vec();
        let filter = ObjectFilter { kinds, namespace: Some(namespace.clone()), ..ObjectFilter::default() };
        let definitions: Vec<Value> =
            app.store.objects(&filter, Paging::ALL).await?.rows.iter().map(objects::document).collect();
        let stem = document["metadata"]["generateName"].as_str().unwrap_or_default().to_owned();
        let given = document["metadata"]["name"].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
        for round in 0..NAMES {
            let name = given.clone().unwrap_or_else(|| format!("{stem}{}", letters(&self.row.event, place, round)));
            document["metadata"]["name"] = json!(name);
            let how = How { namespace: &namespace, one_machine: false, on: None, by, now: clock::now() };
            let mut new = start::new(document.clone(), &definitions, how).map_err(|error| match error {
                StartError::Compile(found) => told(&found),
                StartError::Other(error) => error.into(),
            })?;
            new.run.run_type = RunType::Event;
            app.hooks.pods.iter().for_each(|place| new.on_engine(place));
            new.run.conf.extend(report.map(|target| (CONF.to_owned(), json!(target))));
            let path = format!("tekton:{namespace}/{name}");
            let made = start::create(&app.store, new.run, new.object, &new.compiled, &path, None).await?;
            let run = match made {
                CreateRun::Created(run) => {
                    app.scheduler.look();
                    run
                }
                CreateRun::Exists { run, .. } if self.is_ours(&run, &document) => run,
                CreateRun::Exists { run, .. } if given.is_some() => {
                    let why = format!("there is a {kind} `{name}` already: run {} of `{}`", run.key, run.workflow);
                    return Err(Fault::Told(format!("{why}; let the template say `generateName`")));
                }
                CreateRun::Exists { .. } => continue,
            };
            app.store.add_notices(super::report::notice(&run, clock::now()).into_iter().collect()).await?;
            return Ok(
                json!({ "kind": kind, "namespace": namespace, "name": name, "run": run.key, "workflow": run.workflow }),
            );
        }
        Err(Fault::Told(format!("no name that begins with `{stem}` is free")))
    }

    /// It was made of this event by this trigger, before a crash.
    fn is_ours(&self, run: &RunRecord, document: &Value) -> bool {
        let theirs = run.conf.get(DOCUMENT).map(labels);
        theirs.is_some_and(|theirs| theirs.0.is_some() && theirs == labels(document))
    }
}

/// By what an object is known to be made of an event by a trigger.
fn labels(document: &Value) -> (Option<String>, Option<String>) {
    let label = |name: &str| document["metadata"]["labels"][name].as_str().map(str::to_owned);
    (label(EVENT), label(TRIGGER))
}

/// The first that is wrong.
fn told(found: &[Diagnostic]) -> Fault {
    let first = found.iter().find(|one| one.severity == Severity::Error).or(found.first());
    Fault::Told(first.map_or_else(String::new, |one| match &one.hint {
        Some(hint) => format!("{} ({hint})", one.message),
        None => one.message.clone(),
    }))
}

/// The repository and the commit that an event of a forge is about.
pub fn subject(body: &Value) -> Option<(&str, &str)> {
    let text = |paths: &[&str]| paths.iter().find_map(|path| body.pointer(path)?.as_str());
    let repository = text(&["/repository/full_name", "/project/path_with_namespace"])?;
    let commit = text(&[
        "/pull_request/head/sha",
        "/object_attributes/last_commit/id",
        "/pullrequest/source/commit/hash",
        "/push/changes/0/new/target/hash",
        "/check_run/head_sha",
        "/checkout_sha",
        "/after",
    ])?;
    Some((repository, commit))
}

fn digest(event: &str, place: &str, round: u32) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [event.as_bytes(), place.as_bytes(), &round.to_be_bytes()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The end of a generated name.
fn letters(event: &str, place: &str, round: u32) -> String {
    let digest = digest(event, place, round);
    digest.iter().take(5).map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
}

fn uid(event: &str, place: &str) -> String {
    let digest = digest(event, place, u32::MAX);
    let (bytes, _) = digest.split_first_chunk::<16>().expect("a digest has 32 bytes");
    uuid::Builder::from_custom_bytes(*bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_for_the_same_event_and_others_for_another() {
        let one = letters("e-1", "ci/push#0/0", 0);
        assert!(one.len() == 5 && one.bytes().all(|letter| LETTERS.contains(&letter)), "{one}");
        assert_eq!(one, letters("e-1", "ci/push#0/0", 0));
        for other in [("e-2", "ci/push#0/0", 0), ("e-1", "ci/push#1/0", 0), ("e-1", "ci/push#0/0", 1)] {
            assert_ne!(one, letters(other.0, other.1, other.2), "{other:?}");
        }
        assert_eq!(uid("e-1", "a"), uid("e-1", "a"));
        assert_ne!(uid("e-1", "a"), uid("e-1", "b"));
    }

    #[test]
    fn events_of_forges_are_about_a_commit() {
        let github = json!({"repository": {"full_name": "acme/app"}, "after": "a1"});
        assert_eq!(subject(&github), Some(("acme/app", "a1")));
        let pull =
            json!({"repository": {"full_name": "acme/app"}, "after": "x", "pull_request": {"head": {"sha": "b2"}}});
        assert_eq!(subject(&pull), Some(("acme/app", "b2")));
        let gitlab = json!({"project": {"path_with_namespace": "acme/app"}, "checkout_sha": "c3"});
        assert_eq!(subject(&gitlab), Some(("acme/app", "c3")));
        assert_eq!(subject(&json!({"text": ["deploy"]})), None);
    }
}
