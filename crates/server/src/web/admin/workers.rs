//! The machines that come for their work: how each stands and what it did, the queues with who waits in them, and what an
//! administrator does to a worker.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use pitcrew_control::fleet::{self as machines, NodeView, TaskOnNode, WorkerView};
use pitcrew_control::links;
use pitcrew_core::state::Exit;
use pitcrew_store::{AuditFilter, AuditRow, Paging};

use super::fleet::{self, NodeShown};
use crate::Site;
use crate::auth::{Role, User};
use crate::error::ApiResult;
use crate::live::{Watch, follow_part};
use crate::own::{nodes, workers};
use crate::web::fmt;
use crate::web::form::Typed;
use crate::web::page::{PageResult, Shell, html, render};

const LIST: &str = "/workers";
/// Entries of the audit log that are looked through, and how many of a worker are shown.
const LOOKED_AT: u32 = 300;
const EVENTS: usize = 12;
/// Attempts that ended there that are shown.
const LATELY: u32 = 20;

#[derive(Template)]
#[template(path = "admin/workers.html")]
struct WorkersPage {
    shell: Shell,
    list: String,
}

#[derive(Template)]
#[template(path = "admin/workers_list.html")]
struct List {
    queues: Vec<QueueRow>,
    rows: Vec<WorkerView>,
    is_admin: bool,
}

/// A queue: who waits in it, and who takes from it.
struct QueueRow {
    name: String,
    waiting: usize,
    /// Workers that serve it and take work, and those that serve it and do not.
    serving: Vec<String>,
    away: Vec<String>,
    slots: u32,
    running: usize,
}

impl QueueRow {
    /// Every queue that somebody serves, waits in, or is sent to.
    fn all(workers: &[WorkerView], waiting: &BTreeMap<String, usize>, default: Option<String>) -> Vec<QueueRow> {
        let served = workers.iter().flat_map(|worker| &worker.queues);
        let names: BTreeSet<&String> = served.chain(waiting.keys()).chain(&default).collect();
        let row = |name: &String| {
            let its = || workers.iter().filter(|worker| worker.queues.contains(name));
            let names =
                |takes: bool| its().filter(|worker| worker.takes_work() == takes).map(|w| w.name.clone()).collect();
            QueueRow {
                name: name.clone(),
                waiting: waiting.get(name).copied().unwrap_or_default(),
                serving: names(true),
                away: names(false),
                slots: its().filter(|worker| worker.takes_work()).map(|worker| worker.slots).sum(),
                running: its().map(|worker| worker.running).sum(),
            }
        };
        names.into_iter().map(row).collect()
    }

    fn is_unserved(&self) -> bool {
        self.serving.is_empty()
    }
}

#[derive(Template)]
#[template(path = "admin/worker.html")]
struct WorkerPage {
    shell: Shell,
    worker: String,
}

#[derive(Template)]
#[template(path = "admin/worker_parts.html")]
struct Worker {
    worker: WorkerView,
    node: NodeView,
    gpus: String,
    lately: Vec<TaskOnNode>,
    events: Vec<Event>,
    is_admin: bool,
}

/// What somebody did to a worker.
struct Event {
    row: AuditRow,
    words: &'static str,
}

/// How an attempt on a node is shown.
pub(super) trait TaskShown {
    fn end(&self) -> (&'static str, String);
    fn took(&self) -> String;
    fn attempt_page(&self) -> String;
}

impl TaskShown for TaskOnNode {
    /// The state that its attempt had at the end, and what is to be said of it.
    fn end(&self) -> (&'static str, String) {
        match self.over.as_ref().map(|(_, exit)| exit) {
            None => ("running", String::new()),
            Some(exit) if exit.is_success() => ("success", String::new()),
            Some(Exit::Cancelled) => ("cancelled", String::new()),
            Some(exit @ Exit::Lost { .. }) => ("recovering", exit.to_string()),
            Some(exit) => ("failed", exit.to_string()),
        }
    }

    fn took(&self) -> String {
        fmt::elapsed(&self.since, &self.over.as_ref().map(|(at, _)| *at), false)
    }

    fn attempt_page(&self) -> String {
        format!("{}?attempt={}", self.page, self.attempt)
    }
}

/// How a worker is shown.
pub(super) trait WorkerShown {
    fn sign(&self) -> &'static str;
    fn page(&self) -> String;
    fn share(&self) -> f64;
    fn load_text(&self) -> String;
    fn is_overloaded(&self) -> bool;
    fn cores(&self) -> String;
    fn memory(&self) -> String;
}

impl WorkerShown for WorkerView {
    fn sign(&self) -> &'static str {
        match self.standing.as_str() {
            "ready" => "success",
            "cordoned" | "draining" => "queued",
            _ => "failed",
        }
    }

    fn page(&self) -> String {
        format!("{LIST}/{}", links::encode(&self.name))
    }

    /// Of a bar 100 wide, the slots in use.
    fn share(&self) -> f64 {
        100.0 * (self.running as f64 / f64::from(self.slots.max(1))).min(1.0)
    }

    /// `0.52 0.48 0.40`: over 1, 5 and 15 minutes, as far as it is told.
    fn load_text(&self) -> String {
        let told = [self.load1, self.load5, self.load15].into_iter().flatten().map(|load| format!("{load:.2}"));
        told.collect::<Vec<_>>().join(" ")
    }

    /// More wants to run there than it has cores.
    fn is_overloaded(&self) -> bool {
        self.load1.is_some_and(|load| self.cpu > 0.0 && load > self.cpu)
    }

    fn cores(&self) -> String {
        match self.cpu {
            cpu if cpu <= 0.0 => "its cores are not known".to_owned(),
            1.0 => "1 core".to_owned(),
            cpu => format!("{cpu} cores"),
        }
    }

    fn memory(&self) -> String {
        let all = if self.memory_mib == 0 { "–".to_owned() } else { fmt::bytes(&(self.memory_mib << 20)) };
        match self.memory_used_mib {
            Some(used) => format!("{} of {all}", fmt::bytes(&(used << 20))),
            None => all,
        }
    }
}

async fn list(site: &Site, is_admin: bool) -> ApiResult<String> {
    let rows = workers::all(site).await?;
    let waiting = site.app.scheduler.queue(0).await.queues;
    let queues = QueueRow::all(&rows, &waiting, site.settings.default_queue());
    Ok(render(List { queues, rows, is_admin }))
}

/// What was done to this worker since it enrolled, the newest first.
async fn events(site: &Site, worker: &WorkerView) -> ApiResult<Vec<Event>> {
    let mut events = Vec::new();
    for (prefix, key) in [("worker.", "worker"), ("node.", "node")] {
        let filter = AuditFilter { event_prefix: Some(prefix.to_owned()), ..AuditFilter::default() };
        let rows = site.app.store.audit(&filter, Paging::first(LOOKED_AT)).await?.rows;
        // A worker of before may have had the name.
        let is_its = |row: &AuditRow| row.entry.detail[key] == worker.name.as_str() && row.entry.at >= worker.enrolled;
        events.extend(rows.into_iter().filter(is_its).map(|row| Event { words: words(&row.entry.event), row }));
    }
    events.sort_by_key(|event| Reverse(event.row.id));
    events.truncate(EVENTS);
    Ok(events)
}

fn words(event: &str) -> &'static str {
    match event {
        "worker.enrol" => "enrolled",
        "worker.drain" => "drained",
        "worker.undrain" => "let take work again",
        "worker.revoke" => "revoked",
        "node.cordon" => "cordoned",
        "node.uncordon" => "uncordoned",
        "node.label" => "labelled",
        "node.taint" => "tainted",
        _ => "changed",
    }
}

async fn worker(site: &Site, name: &str, is_admin: bool) -> ApiResult<String> {
    let (worker, node) = (workers::one(site, name).await?, nodes::one(site, name).await?);
    let events = events(site, &worker).await?;
    let lately = machines::ended(&site.app.store, name, LATELY).await?;
    Ok(render(Worker { gpus: fleet::gpus(site, &node), worker, node, lately, events, is_admin }))
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    let shell = Shell::new(&site, &user, "Workers").section("workers").live("/live/workers".to_owned());
    let list = list(&site, shell.is_admin()).await?;
    Ok(html(WorkersPage { shell, list }))
}

pub async fn live(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult<Response> {
    let is_admin = user.role >= Role::Admin;
    let (key, watch) = (format!("workers {is_admin}"), Watch::machines(&site.app));
    let render = move |site: Site| async move { list(&site, is_admin).await };
    Ok(follow_part(&site, key, watch, "workers", render).into_response())
}

pub async fn one(State(site): State<Site>, Path(name): Path<String>, Extension(user): Extension<User>) -> PageResult {
    let shell = Shell::new(&site, &user, &name).section("workers");
    let worker = worker(&site, &name, shell.is_admin()).await?;
    Ok(html(WorkerPage { shell: shell.live(format!("/live/workers/{}", links::encode(&name))), worker }))
}

pub async fn live_one(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
) -> PageResult<Response> {
    let is_admin = user.role >= Role::Admin;
    workers::one(&site, &name).await?;
    let key = format!("worker {is_admin} {name}");
    let render = move |site: Site| {
        let name = name.clone();
        async move { worker(&site, &name, is_admin).await }
    };
    Ok(follow_part(&site, key, Watch::machines(&site.app), "worker", render).into_response())
}

/// Lets a worker take no more work and end, or take work again.
pub async fn drain(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    typed: Typed,
) -> PageResult<Redirect> {
    typed.only(&["drain"])?;
    let worker = workers::set_drain(&site, &user, &name, typed.text("drain") == "true").await?;
    Ok(Redirect::to(&worker.page()))
}

/// Lets a worker in no more.
pub async fn revoke(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    typed: Typed,
) -> PageResult<Redirect> {
    typed.only(&[])?;
    workers::end(&site, &user, &name).await?;
    Ok(Redirect::to(LIST))
}
