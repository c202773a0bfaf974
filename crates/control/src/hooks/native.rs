//! Webhooks of native workflows: `on: {github: …}` at `/hooks/WORKFLOW`.
//!
//! All is as for listeners: an event is proved, written down, and looked at afterwards. Each entry of `on` goes its own way.
//! The run is named after the event, so whoever looks at it again after a crash finds the run.

use std::collections::BTreeSet;

use pitcrew_core::engine::record::RunType;
use pitcrew_core::ir::HookSource;
use pitcrew_core::{RunId, WorkflowId};
use pitcrew_exec::secrets::SecretRef;
use pitcrew_lang::triggers::event::Event;
use pitcrew_lang::triggers::replay::Proof;
use pitcrew_lang::triggers::sample::Share;
use pitcrew_lang::triggers::{Interceptor, Stop, native, prove};
use pitcrew_store::DeliveryRow;
use serde_json::{Map, Value, json};

use super::fire::{self, stopped, subject};
use super::report::{self, Target};
use super::{Held, OfNamespace};
use crate::app::{App, Trigger, TriggerError};
use crate::clock;

/// Where secrets of native workflows are held: no namespace has this name.
pub const NOWHERE: &str = "";

/// The webhooks of a workflow.
pub struct Native {
    pub workflow: WorkflowId,
    is_paused: bool,
    hooks: Vec<Hook>,
}

/// One entry of its `on`.
struct Hook {
    /// `github`, `github[1]`.
    name: String,
    source: HookSource,
    interceptors: Vec<Interceptor>,
}

impl Native {
    /// Those of the workflow as it is now; `None`: there is none of this name, or it has no webhooks.
    pub async fn find(app: &App, name: &str) -> anyhow::Result<Option<Native>> {
        let Ok(id) = WorkflowId::new(name) else { return Ok(None) };
        let Some(row) = app.store.workflow(&id).await?.filter(|row| row.active) else { return Ok(None) };
        let workflow = app.catalog.load(&app.store, &row.id, &row.version).await?;
        let mut hooks = Vec::new();
        for source in &workflow.hooks {
            let before = hooks.iter().filter(|hook: &&Hook| hook.source.sender == source.sender).count();
            let more = if before == 0 { String::new() } else { format!("[{before}]") };
            let interceptors = native::interceptors(source).map_err(anyhow::Error::msg)?;
            hooks.push(Hook { name: format!("{}{more}", source.sender.name()), source: source.clone(), interceptors });
        }
        Ok((!hooks.is_empty()).then_some(Native { workflow: id, is_paused: row.is_paused, hooks }))
    }

    /// The secrets that its events are proved by. One that cannot be had is left out: then nothing is proved by it.
    pub async fn held(&self, app: &App) -> anyhow::Result<Held> {
        let mut wanted = BTreeSet::new();
        self.hooks.iter().flat_map(|hook| &hook.interceptors).for_each(|one| one.secrets(&mut wanted));
        let secrets = crate::secrets::open(&app.store, &app.vault, &app.aws)?;
        let mut held = OfNamespace::default();
        for (name, key) in wanted {
            let reference: Result<SecretRef, _> = name.parse();
            let found = match reference {
                Ok(reference) => secrets.get(&reference).await,
                Err(error) => Err(error),
            };
            match found {
                Ok(found) => drop(held.0.insert((name, key), found.value.expose().to_vec())),
                Err(error) => {
                    tracing::warn!("a webhook of `{}` cannot use the secret `{name}`: {error}", self.workflow);
                }
            }
        }
        Ok(Held::nowhere(held))
    }

    /// What an event proves: the strongest of it, or what each entry says to it.
    pub fn judge(&self, event: &Event, held: &Held) -> Result<Proof, Value> {
        let mut best: Option<Proof> = None;
        let mut refusals = Vec::new();
        for hook in &self.hooks {
            match prove(&hook.interceptors, event, held.of(NOWHERE)) {
                Ok(proof) => best = best.max(Some(proof)),
                Err(stop) => refusals.push(stopped(&hook.name, &stop)),
            }
        }
        best.ok_or(Value::Array(refusals))
    }
}

/// All that a delivery comes to: a line for each entry. The error passes.
pub async fn all(app: &App, row: &DeliveryRow, event: &Event) -> anyhow::Result<Value> {
    let Some(found) = Native::find(app, &row.listener).await? else {
        let why = format!("the workflow `{}` has no webhooks any more", row.listener);
        return Ok(json!([fire::failed("", &why)]));
    };
    let held = found.held(app).await?;
    let mut lines = Vec::new();
    for hook in &found.hooks {
        let line = match one(app, &found, hook, event, &held).await {
            Ok(line) => line,
            Err(Fault::Stop(stop)) => stopped(&hook.name, &stop),
            Err(Fault::Later(error)) => return Err(error),
        };
        app.metrics.event(found.workflow.as_str(), fire::word(&line["result"]));
        lines.push(line);
    }
    Ok(Value::Array(lines))
}

enum Fault {
    Stop(Stop),
    Later(anyhow::Error),
}

impl From<Stop> for Fault {
    fn from(stop: Stop) -> Fault {
        Fault::Stop(stop)
    }
}

async fn one(app: &App, native: &Native, hook: &Hook, event: &Event, held: &Held) -> Result<Value, Fault> {
    let Native { workflow, is_paused, .. } = native;
    let id = format!("workflows/{workflow}/{}", hook.name);
    let asked = fire::Asked { app, event, held: held.of(NOWHERE), namespace: NOWHERE };
    let passed = asked.chain(&hook.interceptors, &id, Map::new()).await.map_err(Fault::Later)?;
    let (_, body, extensions) = passed?;
    native::passes(&hook.source, &body, &extensions)?;
    if *is_paused {
        return Err(Stop::filtered("the workflow is paused").into());
    }
    let json = body.json().map_err(Stop::failed)?;
    if let Some(share) = &hook.source.sample {
        let (repository, commit) = subject(json).unwrap_or((event.id.as_str(), ""));
        if !Share::parse(share).map_err(Stop::failed)?.takes(repository, commit) {
            let why = format!("the commit is not among {share}");
            return Ok(json!({ "trigger": hook.name, "result": "not sampled", "why": why }));
        }
    }
    let conf = native::params(&hook.source, json).map_err(|why| Stop::failed(why).by("params"))?;
    let target = native::report(&hook.source).map(|wanted| Target::of(wanted, workflow.as_str(), json));
    let (target, unreported) = match target.transpose() {
        Ok(target) => (target, None),
        Err(why) => (None, Some(why)),
    };
    let name = format!("{}__{}", hook.name.replace(['[', ']'], "_"), event.id);
    let trigger = Trigger {
        conf,
        run_id: Some(RunId::new(&name).map_err(|error| Stop::failed(error.to_string()))?),
        run_type: Some(RunType::Event),
        note: native::about(hook.source.sender, &event.headers),
        report: target,
        by: format!("hook {}", hook.source.sender.name()),
        ..Trigger::default()
    };
    let run = match app.trigger(workflow, trigger).await {
        Ok(run) => run,
        // Before a crash.
        Err(TriggerError::Exists(run)) => *run,
        Err(TriggerError::Store(error)) if error.is_transient() => return Err(Fault::Later(error.into())),
        Err(error) => return Err(Stop::failed(error.to_string()).into()),
    };
    let notice = report::notice(&run, clock::now());
    let told = notice.as_ref().and_then(|_| Target::of_run(&run)).map(|target| target.words());
    app.store.add_notices(notice.into_iter().collect()).await.map_err(|error| Fault::Later(error.into()))?;
    let mut made =
        json!({ "kind": "run", "namespace": workflow, "name": run.run_id, "run": run.key, "workflow": workflow });
    if let Some(told) = told {
        made["report"] = json!(told);
    }
    if let Some(why) = unreported {
        made["unreported"] = json!(why);
    }
    Ok(json!({ "trigger": hook.name, "result": "fired", "made": [made] }))
}
