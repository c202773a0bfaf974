//! The page of a task instance: why it is in its state, its attempts and what they used, what it handed on, its log.

mod details;
mod incidents;
pub mod mapped;

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use pitcrew_control::links;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord};
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::ir::Task;
use pitcrew_core::state::State as TaskState;
use pitcrew_core::{RunKey, TaskId};
use pitcrew_store::Paging;
use serde_json::Value;

pub use self::details::kind_of;
use self::details::{Details, attempt_state, facts, step_names, used, waited};
use self::incidents::Ended;
use super::fmt;
use super::log::{LogView, Place};
use super::page::{PageResult, Shell, html, render};
use super::search::{self, Hits};
use crate::Site;
use crate::auth::{Role, User};
use crate::error::{ApiError, ApiResult};
use crate::input::{Query, number, run_id, task_id, workflow_id};
use crate::live::{Look, Part, Watch, follow};
use crate::own;
use crate::view::{Filter, RunView, attempts, find_run};

#[derive(Template)]
#[template(path = "task.html")]
struct TaskPage {
    shell: Shell,
    run: RunRecord,
    run_href: String,
    workflow_href: String,
    name: String,
    head: String,
    tab: &'static str,
    tabs: Vec<(&'static str, &'static str, String)>,
    log: LogView,
    /// Of the log that is shown; empty: there is none yet.
    log_path: String,
    /// The number of the attempt that is shown.
    shown: u32,
    hits: Option<Hits>,
    details: Option<Details>,
}

/// One attempt in the row of tabs.
struct Tab {
    number: u32,
    href: String,
    state: &'static str,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "task_head.html")]
struct Head<'a> {
    run_href: String,
    row: &'a InstanceRecord,
    name: String,
    kind: String,
    description: String,
    reasons: Vec<String>,
    /// When it is tried again, if it waits for that.
    retry_at: Option<Timestamp>,
    tabs: Vec<Tab>,
    /// The one whose log and facts are shown.
    attempt: Option<&'a AttemptRecord>,
    /// Changes when another attempt than the shown one became the newest, and the page must be read anew.
    newest: u32,
    facts: Vec<(&'static str, String)>,
    /// The incidents in which it ended.
    incidents: Vec<&'a Ended>,
    outputs: &'a BTreeMap<String, Value>,
    item: Option<String>,
    /// How a form names it.
    pick: String,
    /// The user may change it.
    may: bool,
    can_clear: bool,
}

/// One instance with everything that its page shows.
struct Reading {
    view: RunView,
    row: InstanceRecord,
    attempts: Vec<AttemptRecord>,
    /// The number of the attempt that is shown.
    shown: u32,
    reasons: Vec<String>,
    incidents: Vec<Ended>,
}

impl Reading {
    async fn load(
        site: &Site,
        run: RunRecord,
        task: &TaskId,
        map_index: i32,
        wanted: Option<u32>,
    ) -> ApiResult<Reading> {
        let view = RunView::load(&site.app, run).await?;
        let row = view.instance(&site.app, task, map_index).await?;
        let row = row.ok_or_else(|| {
            let index = if map_index == UNMAPPED { String::new() } else { format!("[{map_index}]") };
            ApiError::not_found(format!("this run has no task `{task}{index}`"))
        })?;
        let attempts = attempts(&site.app, &view.run, task, map_index).await?;
        let newest = attempts.last().map_or(0, |attempt| attempt.number);
        let reasons = if row.state.is_final() || row.state.name() == "running" {
            Vec::new()
        } else {
            let index = (map_index != UNMAPPED).then_some(map_index);
            own::reasons(site, &view, task.as_str(), index).await?
        };
        let incidents = incidents::of_instance(site, &view, task, map_index, &attempts).await?;
        Ok(Reading { view, row, attempts, shown: wanted.unwrap_or(newest), reasons, incidents })
    }

    fn task(&self) -> Option<&Task> {
        let workflow = self.view.workflow.as_deref()?;
        workflow.by_name.get(&self.row.task).map(|ix| workflow.task(*ix))
    }

    fn name(&self) -> String {
        if self.row.map_index == UNMAPPED {
            self.row.task.to_string()
        } else {
            format!("{}[{}]", self.row.task, self.row.map_index)
        }
    }

    fn attempt(&self) -> Option<&AttemptRecord> {
        self.attempts.iter().find(|attempt| attempt.number == self.shown)
    }

    fn head(&self, role: Role) -> String {
        let run = &self.view.run;
        let href = links::task(&run.workflow, &run.run_id, &self.row.task, self.row.map_index);
        let tabs = self.attempts.iter().map(|attempt| Tab {
            number: attempt.number,
            href: format!("{href}?attempt={}", attempt.number),
            state: attempt_state(attempt),
            chosen: attempt.number == self.shown,
        });
        render(Head {
            run_href: links::run(&run.workflow, &run.run_id),
            row: &self.row,
            name: self.name(),
            kind: self.task().map(kind_of).unwrap_or_default(),
            description: self.task().map(|task| task.description.clone()).unwrap_or_default(),
            reasons: self.reasons.clone(),
            retry_at: match self.row.state {
                TaskState::UpForRetry { at } | TaskState::UpForReschedule { at } => Some(at),
                _ => None,
            },
            tabs: tabs.collect(),
            attempt: self.attempt(),
            newest: self.attempts.last().map_or(0, |attempt| attempt.number),
            facts: self.attempt().map(facts).unwrap_or_default(),
            incidents: self.incidents.iter().filter(|ended| ended.attempt == self.shown).collect(),
            outputs: &self.row.outputs,
            item: self.row.item.as_ref().map(fmt::pretty),
            pick: self.name(),
            may: role >= Role::User,
            can_clear: self.row.state.is_final(),
        })
    }
}

type TaskPath = Path<(String, String, String)>;

/// A task; of a mapped one the list of its instances.
pub async fn page(
    State(site): State<Site>,
    Path((workflow, run, task)): TaskPath,
    Extension(user): Extension<User>,
    query: Query,
) -> PageResult {
    let run = find_run(&site.app, &workflow_id(&workflow)?, &run_id(&run)?).await?;
    let task = task_id(&task)?;
    let view = RunView::load(&site.app, run.clone()).await?;
    let all = Filter { states: Vec::new(), task: Some(task.clone()) };
    let first = view.page(&site.app, &all, Paging::first(1)).await?;
    if first.rows.first().is_some_and(|row| row.map_index != UNMAPPED) {
        return mapped::page(&site, &user, view, task, &query).await;
    }
    instance(&site, &user, run, &task, UNMAPPED, &query).await
}

/// One instance of a mapped task.
pub async fn mapped_page(
    State(site): State<Site>,
    Path((workflow, run, task, map_index)): Path<(String, String, String, String)>,
    Extension(user): Extension<User>,
    query: Query,
) -> PageResult {
    let run = find_run(&site.app, &workflow_id(&workflow)?, &run_id(&run)?).await?;
    instance(&site, &user, run, &task_id(&task)?, number("map_index", &map_index)?, &query).await
}

async fn instance(
    site: &Site,
    user: &User,
    run: RunRecord,
    task: &TaskId,
    map_index: i32,
    query: &Query,
) -> PageResult {
    let wanted: Option<u32> = query.number("attempt")?;
    let reading = Reading::load(site, run, task, map_index, wanted).await?;
    let run = reading.view.run.clone();
    let tab = if query.text("tab") == Some("details") { "details" } else { "log" };
    let (mut log, mut hits, mut details) = (LogView::default(), None, None);
    match reading.attempt() {
        _ if tab == "details" => details = Some(reading.details(site).await),
        Some(attempt) => {
            let names = step_names(reading.view.workflow.as_deref(), task);
            log = LogView::load(&site.app, attempt, Place::of(query)?, &names).await?;
            if let Some(text) = query.text("q") {
                let text: String = text.chars().take(200).collect();
                hits = Some(search::find(&site.app, attempt, &text, query.number("from")?.unwrap_or(0)).await?);
            }
        }
        None => {}
    }
    let shown = wanted.map(|number| number.to_string()).unwrap_or_default();
    let live = format!("/live/tasks/{}/{}/{map_index}?attempt={shown}", run.key, links::encode(task.as_str()));
    let log_path = match reading.attempt() {
        Some(attempt) => format!("/{}/{}/{map_index}/{}", run.key, links::encode(task.as_str()), attempt.number),
        None => String::new(),
    };
    let href = links::task(&run.workflow, &run.run_id, task, map_index);
    let tabs = vec![
        ("log", "Log", if shown.is_empty() { href.clone() } else { format!("{href}?attempt={shown}") }),
        ("details", "Details", format!("{href}?tab=details&attempt={shown}")),
    ];
    let shell = Shell::new(site, user, format!("{} · {} · {}", reading.name(), run.run_id, run.workflow))
        .section("runs")
        .live(live);
    Ok(html(TaskPage {
        shell,
        run_href: links::run(&run.workflow, &run.run_id),
        workflow_href: links::workflow(&run.workflow),
        name: reading.name(),
        head: reading.head(user.role),
        tab,
        tabs,
        run,
        log,
        log_path,
        shown: reading.shown,
        hits,
        details,
    }))
}

pub async fn live(
    State(site): State<Site>,
    Path((key, task, map_index)): TaskPath,
    Extension(user): Extension<User>,
    query: Query,
) -> PageResult<Response> {
    let run = own::find(&site, &key).await?;
    let task = task_id(&task)?;
    let map_index: i32 = number("map_index", &map_index)?;
    let wanted: Option<u32> = query.number("attempt")?;
    let watch = Watch::run(&site.app, run.key);
    let key = format!("task {} {task} {map_index} {wanted:?} {:?}", run.key, user.role);
    let looker = site.clone();
    let look = move || {
        let (site, task, role) = (looker.clone(), task.clone(), user.role);
        async move { look(&site, role, run.key, &task, map_index, wanted).await.ok().flatten() }
    };
    Ok(follow(&site, key, watch, look).into_response())
}

async fn look(
    site: &Site,
    role: Role,
    key: RunKey,
    task: &TaskId,
    index: i32,
    wanted: Option<u32>,
) -> ApiResult<Option<Look>> {
    let Some(run) = site.app.store.run(key).await? else { return Ok(None) };
    let reading = Reading::load(site, run, task, index, wanted).await?;
    let is_ours = site.app.scheduler.snapshot(key).await.is_some();
    Ok(Some(Look { parts: vec![Part { id: "task-head", html: reading.head(role) }], elsewhere: !is_ours }))
}
