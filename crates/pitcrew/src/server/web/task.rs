//! The page of a task instance: why it is in its state, its attempts and what they used, what it handed on, its log.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord};
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::ir::Task;
use pitcrew_core::state::Exit;
use pitcrew_core::{RunKey, TaskId};
use pitcrew_exec::Usage;
use pitcrew_store::Page;
use serde_json::Value;

use super::fmt;
use super::log::LogView;
use super::page::{PageResult, Shell, html, render};
use super::paging::{Pager, rows_of};
use super::run::{kind_of, step_names};
use crate::server::Site;
use crate::server::auth::User;
use crate::server::error::{ApiError, ApiResult};
use crate::server::input::{Query, number, run_id, task_id, workflow_id};
use crate::server::links;
use crate::server::live::{Look, Part, Watch, follow};
use crate::server::own;
use crate::server::view::{Filter, RunView, attempts, find_run};

/// Instances of a mapped task on one page.
const PAGE: u32 = 100;

#[derive(Template)]
#[template(path = "task.html")]
struct TaskPage {
    shell: Shell,
    run: RunRecord,
    run_href: String,
    workflow_href: String,
    name: String,
    head: String,
    log: LogView,
    /// Of the log that is shown; empty: there is none yet.
    log_path: String,
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
    tabs: Vec<Tab>,
    /// The one whose log and facts are shown.
    attempt: Option<&'a AttemptRecord>,
    /// Changes when another attempt than the shown one became the newest, and the page must be read anew.
    newest: u32,
    facts: Vec<(&'static str, String)>,
    outputs: &'a BTreeMap<String, Value>,
    item: Option<String>,
    can_clear: bool,
}

#[derive(Template)]
#[template(path = "task_mapped.html")]
struct MappedPage {
    shell: Shell,
    run: RunRecord,
    run_href: String,
    workflow_href: String,
    task: TaskId,
    kind: String,
    rows: Vec<(InstanceRecord, String)>,
    pager: Pager,
}

/// One instance with everything that its page shows.
struct Reading {
    view: RunView,
    row: InstanceRecord,
    attempts: Vec<AttemptRecord>,
    /// The number of the attempt that is shown.
    shown: u32,
    reasons: Vec<String>,
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
        Ok(Reading { view, row, attempts, shown: wanted.unwrap_or(newest), reasons })
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

    fn head(&self) -> String {
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
            tabs: tabs.collect(),
            attempt: self.attempt(),
            newest: self.attempts.last().map_or(0, |attempt| attempt.number),
            facts: self.attempt().map(facts).unwrap_or_default(),
            outputs: &self.row.outputs,
            item: self.row.item.as_ref().map(fmt::pretty),
            can_clear: self.row.state.is_final(),
        })
    }
}

fn attempt_state(attempt: &AttemptRecord) -> &'static str {
    match &attempt.exit {
        Some(exit) if exit.is_success() => "success",
        Some(Exit::Cancelled) => "cancelled",
        Some(_) => "failed",
        None if attempt.start.is_some() => "running",
        None => "queued",
    }
}

/// What is known of an attempt, as names and texts.
fn facts(attempt: &AttemptRecord) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(exit) = attempt.exit.as_ref().filter(|exit| !exit.is_success()) {
        facts.push(("Exit", exit.to_string()));
    }
    if let Some(start) = attempt.start {
        let waited = start.duration_since(attempt.queued_at);
        facts.push(("Waited", fmt::duration(waited)));
    }
    facts.push(("Backend", attempt.backend.clone()));
    if !attempt.gpus.is_empty() {
        facts.push(("GPUs", attempt.gpus.join(", ")));
    }
    let Ok(usage) = serde_json::from_value::<Usage>(attempt.usage.clone()) else { return facts };
    let cpu = usage.user_cpu_seconds + usage.system_cpu_seconds;
    facts.push(("CPU time", fmt::duration(jiff::SignedDuration::from_millis((cpu * 1000.0) as i64))));
    if let Some(peak) = usage.peak_memory_bytes {
        facts.push(("Peak memory", fmt::bytes(&peak)));
    }
    for gpu in &usage.gpus {
        let memory = fmt::bytes(&gpu.max_memory_bytes);
        let use_of = format!(
            "{:.0} % mean, {:.0} % highest, {memory}",
            gpu.mean_utilization_percent, gpu.max_utilization_percent
        );
        facts.push(("GPU use", use_of));
    }
    facts
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
    let page: u64 = query.number("page")?.unwrap_or(1);
    let filter = Filter { states: Vec::new(), task: Some(task.clone()) };
    let rows = view.page(&site.app, &filter, rows_of(page, PAGE)).await?;
    if rows.rows.first().is_some_and(|row| row.map_index != UNMAPPED) {
        return Ok(mapped_list(&site, &user, view, task, rows, page));
    }
    instance(&site, &user, run, &task, UNMAPPED, &query).await
}

fn mapped_list(
    site: &Site,
    user: &User,
    view: RunView,
    task: TaskId,
    rows: Page<InstanceRecord>,
    page: u64,
) -> Response {
    let run = view.run;
    let shell = Shell::new(site, user, format!("{task} · {}", run.run_id)).section("runs");
    let href = links::task(&run.workflow, &run.run_id, &task, UNMAPPED);
    let pager = Pager::new(&href, &[], page, PAGE, rows.total);
    let kind = view.workflow.as_deref().and_then(|w| w.by_name.get(&task).map(|ix| kind_of(w.task(*ix))));
    let link = |row: &InstanceRecord| links::task(&run.workflow, &run.run_id, &row.task, row.map_index);
    let rows = rows.rows.into_iter().map(|row| (row.clone(), link(&row))).collect();
    html(MappedPage {
        shell,
        run_href: links::run(&run.workflow, &run.run_id),
        workflow_href: links::workflow(&run.workflow),
        run,
        task,
        kind: kind.unwrap_or_default(),
        rows,
        pager,
    })
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
    let log = match reading.attempt() {
        Some(attempt) => {
            let names = step_names(reading.view.workflow.as_deref(), task);
            LogView::load(&site.app, attempt, query.number("offset")?, &names).await?
        }
        None => LogView::default(),
    };
    let shown = wanted.map(|number| number.to_string()).unwrap_or_default();
    let live = format!("/live/tasks/{}/{}/{map_index}?attempt={shown}", run.key, links::encode(task.as_str()));
    let log_path = match reading.attempt() {
        Some(attempt) => format!("/{}/{}/{map_index}/{}", run.key, links::encode(task.as_str()), attempt.number),
        None => String::new(),
    };
    let shell = Shell::new(site, user, format!("{} · {}", reading.name(), run.run_id)).section("runs").live(live);
    Ok(html(TaskPage {
        shell,
        run_href: links::run(&run.workflow, &run.run_id),
        workflow_href: links::workflow(&run.workflow),
        name: reading.name(),
        head: reading.head(),
        run,
        log,
        log_path,
    }))
}

pub async fn live(
    State(site): State<Site>,
    Path((key, task, map_index)): TaskPath,
    query: Query,
) -> PageResult<Response> {
    let run = own::find(&site, &key).await?;
    let task = task_id(&task)?;
    let map_index: i32 = number("map_index", &map_index)?;
    let wanted: Option<u32> = query.number("attempt")?;
    let watch = Watch::run(&site.app, run.key);
    let looker = site.clone();
    let look = move || {
        let (site, task) = (looker.clone(), task.clone());
        async move { look(&site, run.key, &task, map_index, wanted).await.ok().flatten() }
    };
    Ok(follow(&site, watch, look).into_response())
}

async fn look(site: &Site, key: RunKey, task: &TaskId, index: i32, wanted: Option<u32>) -> ApiResult<Option<Look>> {
    let Some(run) = site.app.store.run(key).await? else { return Ok(None) };
    let reading = Reading::load(site, run, task, index, wanted).await?;
    let is_ours = site.app.scheduler.snapshot(key).await.is_some();
    Ok(Some(Look { parts: vec![Part { id: "task-head", html: reading.head() }], elsewhere: !is_ours }))
}
