//! The page of a run: how it stands, its graph, its tasks on the time axis, what it was given and what it left.

use std::sync::{Arc, Mutex};

use askama::Template;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use pitcrew_core::TaskId;
use pitcrew_core::engine::record::{InstanceRecord, RunRecord, RunStop};
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::ir::{Task, Work, Workflow};
use pitcrew_store::StateCounts;
use serde_json::Value;

use super::gantt::{Axis, Bar};
use super::page::{PageResult, Shell, html, render};
use super::paging::{Pager, rows_of};
use super::runs::{Share, shares};
use super::{files, fmt, graph};
use crate::clock;
use crate::server::Site;
use crate::server::auth::{Role, User};
use crate::server::error::ApiResult;
use crate::server::input::{Query, run_id, workflow_id};
use crate::server::links;
use crate::server::live::{Look, Part, Watch, follow};
use crate::server::own;
use crate::server::own::artifacts;
use crate::server::view::{Filter, Instances, RunView, STATES, TaskSummary, find_run, state_name};

/// Tasks, or instances, on one page.
const PAGE: u32 = 100;
/// Instances listed under a mapped task.
const LISTED: usize = 20;
/// A larger graph is drawn when somebody asks for it: it makes a page of a megabyte, again with every change.
const DRAWN: usize = 300;
/// Outputs and files listed of a run.
const OUTPUTS: usize = 24;
const FILES: usize = 12;

/// What the address asks for.
#[derive(Debug, Clone, Copy)]
struct Wish {
    state: Option<&'static str>,
    page: u64,
    /// Draw the graph however large it is.
    graph: bool,
}

impl Wish {
    fn of(query: &Query) -> ApiResult<Wish> {
        Ok(Wish {
            state: query.text("state").and_then(state_name),
            page: query.number("page")?.unwrap_or(1),
            graph: query.boolean("graph")?.unwrap_or(false),
        })
    }
}

#[derive(Template)]
#[template(path = "run.html")]
struct RunPage {
    shell: Shell,
    run: RunRecord,
    workflow_href: String,
    tabs: Tabs,
    head: String,
    graph: String,
    tasks: String,
    side: String,
}

#[derive(Template)]
#[template(path = "run_head.html")]
struct Head<'a> {
    run: &'a RunRecord,
    href: String,
    workflow_href: String,
    counts: Vec<(&'static str, u64)>,
    bar: Vec<Share>,
    /// The user may change it.
    may: bool,
    can_retry: bool,
    can_mark: bool,
    stopped: Option<String>,
}

/// The parts of a run's page.
pub struct Tabs {
    pub href: String,
    pub chosen: &'static str,
    /// Kept files.
    pub files: usize,
}

#[derive(Template, Default)]
#[template(path = "run_graph.html")]
struct Graph {
    svg: String,
    /// Tasks of a graph that is not drawn unless it is asked for.
    large: Option<usize>,
}

/// A task, or one instance of it, in the table.
struct Row {
    name: String,
    /// How a form names it.
    pick: String,
    href: String,
    kind: String,
    state: &'static str,
    attempts: String,
    elapsed: String,
    bar: Option<Bar>,
    message: String,
    /// Of a mapped task: its instances.
    many: Option<Many>,
}

struct Many {
    total: u64,
    shares: Vec<Share>,
    counts: Vec<(&'static str, u64)>,
    rows: Vec<Row>,
    more: u64,
}

#[derive(Template)]
#[template(path = "run_tasks.html")]
struct Tasks {
    rows: Vec<Row>,
    pager: Pager,
    length: String,
    /// Links that narrow the list, with how many there are and which is chosen.
    filters: Vec<(&'static str, u64, String, bool)>,
    all: (u64, String, bool),
    href: String,
    /// The user may change it.
    may: bool,
}

/// An output as listed.
struct Output {
    task: String,
    href: String,
    name: String,
    value: String,
}

/// A kept file as listed.
struct File {
    name: String,
    href: String,
    bytes: u64,
}

#[derive(Template)]
#[template(path = "run_side.html")]
struct Side<'a> {
    params: Vec<(&'a String, &'a Value)>,
    outputs: Vec<Output>,
    more_outputs: bool,
    files: Vec<File>,
    more_files: usize,
    files_href: String,
}

/// A run as it is rendered: everything that its parts need, read once.
struct Reading<'a> {
    site: &'a Site,
    view: &'a RunView,
    wish: Wish,
    /// What the one who sees it may do.
    role: Role,
}

impl Reading<'_> {
    fn run(&self) -> &RunRecord {
        &self.view.run
    }

    fn href(&self) -> String {
        links::run(&self.run().workflow, &self.run().run_id)
    }

    fn head(&self, counts: &StateCounts) -> String {
        let run = self.run();
        let has = |state: &str| counts.get(state).is_some_and(|count| *count > 0);
        let stopped = run.stop.as_ref().map(|stop| match stop {
            RunStop::Cancelled { by } => format!("cancelled by {by}"),
            RunStop::TimedOut => "stopped: it ran longer than its timeout".to_owned(),
            RunStop::FailFast { task } => format!("stopped because `{task}` failed (fail_fast)"),
        });
        render(Head {
            run,
            href: self.href(),
            workflow_href: links::workflow(&run.workflow),
            counts: by_rank(counts),
            bar: shares(counts),
            may: self.role >= Role::User,
            can_retry: has("failed") || has("upstream_failed"),
            can_mark: counts.keys().any(|state| !matches!(*state, "success" | "skipped" | "removed")),
            stopped,
        })
    }

    async fn graph(&self) -> ApiResult<String> {
        let Some(workflow) = self.view.workflow.as_deref() else { return Ok(render(Graph::default())) };
        if workflow.tasks.len() > DRAWN && !self.wish.graph {
            return Ok(render(Graph { svg: String::new(), large: Some(workflow.tasks.len()) }));
        }
        if !graph::fits(workflow) {
            return Ok(render(Graph { svg: graph::of_workflow(workflow), large: None }));
        }
        let ids: Vec<TaskId> = workflow.tasks.iter().map(|task| task.id.clone()).collect();
        let tasks = self.view.tasks(&self.site.app, &ids).await?;
        Ok(render(Graph { svg: graph::of_run(workflow, self.run(), &tasks), large: None }))
    }

    async fn tasks(&self, counts: &StateCounts) -> ApiResult<String> {
        let axis = Axis::of(self.run(), clock::now());
        let (rows, total) = match self.wish.state {
            None => self.all_tasks(&axis).await?,
            Some(state) => self.instances_in(state, &axis).await?,
        };
        let href = self.href();
        let pager = Pager::new(&href, &[("state", self.wish.state.unwrap_or_default())], self.wish.page, PAGE, total);
        let filters = by_rank(counts)
            .into_iter()
            .map(|(state, count)| {
                (state, count, format!("{href}?state={state}#run-tasks"), self.wish.state == Some(state))
            })
            .collect();
        let all = (counts.values().sum(), format!("{href}#run-tasks"), self.wish.state.is_none());
        let may = self.role >= Role::User;
        Ok(render(Tasks { rows, pager, length: axis.length(), filters, all, href, may }))
    }

    /// One row a task, the instances of a mapped one below it.
    async fn all_tasks(&self, axis: &Axis) -> ApiResult<(Vec<Row>, u64)> {
        let ids = self.view.task_ids();
        let paging = rows_of(self.wish.page, PAGE);
        let shown: Vec<TaskId> = ids.iter().skip(paging.offset as usize).take(PAGE as usize).cloned().collect();
        let summaries = self.view.tasks(&self.site.app, &shown).await?;
        Ok((summaries.iter().map(|summary| self.task_row(summary, axis)).collect(), ids.len() as u64))
    }

    /// One row an instance.
    async fn instances_in(&self, state: &'static str, axis: &Axis) -> ApiResult<(Vec<Row>, u64)> {
        let filter = Filter { states: vec![state], task: None };
        let page = self.view.page(&self.site.app, &filter, rows_of(self.wish.page, PAGE)).await?;
        Ok((page.rows.iter().map(|row| self.instance_row(row, axis)).collect(), page.total))
    }

    fn task_row(&self, summary: &TaskSummary, axis: &Axis) -> Row {
        match summary.rows.first() {
            Some(row) if !summary.is_mapped() => self.instance_row(row, axis),
            _ => {
                let rows: Vec<Row> = summary.rows.iter().take(LISTED).map(|row| self.instance_row(row, axis)).collect();
                let more = summary.total() - rows.len() as u64;
                // Together they take the time from the first start to the last end.
                let bar = if summary.total() == summary.rows.len() as u64 { axis.span(summary) } else { None };
                let many = Many {
                    total: summary.total(),
                    shares: shares(&summary.counts),
                    counts: by_rank(&summary.counts),
                    rows,
                    more,
                };
                Row {
                    name: summary.task.to_string(),
                    pick: summary.task.to_string(),
                    href: links::task(&self.run().workflow, &self.run().run_id, &summary.task, UNMAPPED),
                    kind: self.kind(&summary.task),
                    state: summary.state.name(),
                    attempts: String::new(),
                    elapsed: String::new(),
                    bar,
                    message: String::new(),
                    many: Some(many),
                }
            }
        }
    }

    fn instance_row(&self, row: &InstanceRecord, axis: &Axis) -> Row {
        let name = match &row.item {
            Some(item) => format!("{}[{}] {}", row.task, row.map_index, crate::server::rest::short(item, 60)),
            None if row.map_index != UNMAPPED => format!("{}[{}]", row.task, row.map_index),
            None => row.task.to_string(),
        };
        let index = if row.map_index == UNMAPPED { String::new() } else { format!("[{}]", row.map_index) };
        Row {
            name,
            pick: format!("{}{index}", row.task),
            href: links::task(&self.run().workflow, &self.run().run_id, &row.task, row.map_index),
            kind: self.kind(&row.task),
            state: row.state.name(),
            attempts: if row.attempt > 1 { format!("attempt {}", row.attempt) } else { String::new() },
            elapsed: fmt::row_elapsed(row),
            bar: axis.bar(row),
            message: if row.state.name() == "success" { String::new() } else { last_lines(&row.message) },
            many: None,
        }
    }

    fn kind(&self, id: &TaskId) -> String {
        let workflow = self.view.workflow.as_deref();
        workflow.and_then(|w| w.by_name.get(id).map(|ix| kind_of(w.task(*ix)))).unwrap_or_default()
    }

    async fn side(&self) -> ApiResult<String> {
        let run = self.run();
        let mut outputs = Vec::new();
        if let Instances::Loaded(rows) = &self.view.instances {
            let all = rows.iter().flat_map(|row| row.outputs.iter().map(move |(name, value)| (row, name, value)));
            outputs.extend(all.take(OUTPUTS + 1).map(|(row, name, value)| Output {
                task: if row.map_index == UNMAPPED {
                    row.task.to_string()
                } else {
                    format!("{}[{}]", row.task, row.map_index)
                },
                href: links::task(&run.workflow, &run.run_id, &row.task, row.map_index),
                name: name.clone(),
                value: crate::server::rest::short(value, 120),
            }));
        }
        let more_outputs = outputs.len() > OUTPUTS;
        outputs.truncate(OUTPUTS);
        let mut files = files::in_order(artifacts::of_run(self.site, run.key).await?);
        let more_files = files.len().saturating_sub(FILES);
        files.truncate(FILES);
        let files_href = format!("{}/files", self.href());
        let files = files.into_iter().map(|file| File {
            href: files::address(run, &file.path),
            name: file.path,
            bytes: file.bytes,
        });
        let files = files.collect();
        Ok(render(Side { params: run.params.iter().collect(), outputs, more_outputs, files, more_files, files_href }))
    }
}

/// The end of a message: what went wrong, and the exit code that follows it.
fn last_lines(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().rev().map(str::trim).filter(|line| !line.is_empty()).take(2).collect();
    lines.reverse();
    crate::server::rest::short(&Value::String(lines.join(" · ")), 160)
}

/// Counts of states, what stands out most first.
pub fn by_rank(counts: &StateCounts) -> Vec<(&'static str, u64)> {
    STATES.into_iter().filter_map(|state| counts.get(state).map(|count| (state, *count))).collect()
}

/// What a task is, in a word.
pub fn kind_of(task: &Task) -> String {
    match &task.work {
        Work::Noop => "milestone".to_owned(),
        Work::Steps(steps) if steps.len() == 1 => "script".to_owned(),
        Work::Steps(steps) => format!("{} steps", steps.len()),
        Work::Action { uses, .. } => uses.clone(),
    }
}

/// The names of a task's steps; an action's are not known before it runs.
pub fn step_names(workflow: Option<&Workflow>, task: &TaskId) -> Vec<String> {
    let task = workflow.and_then(|w| w.by_name.get(task).map(|ix| w.task(*ix)));
    match task.map(|task| &task.work) {
        Some(Work::Steps(steps)) => steps.iter().map(|step| step.name.clone()).collect(),
        Some(Work::Action { uses, .. }) => vec![uses.clone()],
        Some(Work::Noop) | None => Vec::new(),
    }
}

pub async fn page(
    State(site): State<Site>,
    Path((workflow, run)): Path<(String, String)>,
    Extension(user): Extension<User>,
    query: Query,
) -> PageResult {
    let wish = Wish::of(&query)?;
    let run = find_run(&site.app, &workflow_id(&workflow)?, &run_id(&run)?).await?;
    let view = RunView::load(&site.app, run).await?;
    let reading = Reading { site: &site, view: &view, wish, role: user.role };
    let counts = view.counts(&site.app).await?;
    let live = format!(
        "/live/runs/{}?state={}&page={}&graph={}",
        view.run.key,
        wish.state.unwrap_or_default(),
        wish.page,
        wish.graph
    );
    let shell =
        Shell::new(&site, &user, format!("{} · {}", view.run.run_id, view.run.workflow)).section("runs").live(live);
    let (head, graph) = (reading.head(&counts), reading.graph().await?);
    let (tasks, side) = (reading.tasks(&counts).await?, reading.side().await?);
    let workflow_href = links::workflow(&view.run.workflow);
    let files = artifacts::of_run(&site, view.run.key).await?.len();
    let tabs = Tabs { href: reading.href(), chosen: "tasks", files };
    Ok(html(RunPage { shell, run: view.run.clone(), workflow_href, tabs, head, graph, tasks, side }))
}

/// The short address of a run, by its number: what `run.url` is in templates.
pub async fn short(State(site): State<Site>, Path(key): Path<String>) -> PageResult<Redirect> {
    let run = own::find(&site, &key).await?;
    Ok(Redirect::to(&links::run(&run.workflow, &run.run_id)))
}

/// The head of the page, for its other parts.
pub async fn head(site: &Site, view: &RunView, user: &User) -> ApiResult<String> {
    let wish = Wish { state: None, page: 1, graph: false };
    let reading = Reading { site, view, wish, role: user.role };
    Ok(reading.head(&view.counts(&site.app).await?))
}

pub async fn live(
    State(site): State<Site>,
    Path(key): Path<String>,
    Extension(user): Extension<User>,
    query: Query,
) -> PageResult<Response> {
    let wish = Wish::of(&query)?;
    let run = own::find(&site, &key).await?;
    let watch = Watch::run(&site.app, run.key);
    let key = format!("run {} {wish:?} {:?}", run.key, user.role);
    let looker = site.clone();
    // A run that is over and is as it was need not be read again.
    let seen = Arc::new(Mutex::new(None));
    let look = move || {
        let (site, seen, role) = (looker.clone(), seen.clone(), user.role);
        async move {
            let run = site.app.store.run(run.key).await.ok()??;
            let is_ours = site.app.scheduler.snapshot(run.key).await.is_some();
            let known = |seen: &Mutex<Option<RunRecord>>, run| {
                let mut seen = seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                seen.replace(run)
            };
            let is_over = run.state.is_final() && !is_ours;
            if known(&seen, run.clone()).is_some_and(|before| is_over && before == run) {
                return Some(Look { parts: Vec::new(), elsewhere: true });
            }
            look(&site, role, run, wish, !is_ours).await.ok()
        }
    };
    Ok(follow(&site, key, watch, look).into_response())
}

async fn look(site: &Site, role: Role, run: RunRecord, wish: Wish, elsewhere: bool) -> ApiResult<Look> {
    let view = RunView::load(&site.app, run).await?;
    let reading = Reading { site, view: &view, wish, role };
    let counts = view.counts(&site.app).await?;
    let parts = vec![
        Part { id: "run-head", html: reading.head(&counts) },
        Part { id: "run-graph", html: reading.graph().await? },
        Part { id: "run-tasks", html: reading.tasks(&counts).await? },
        Part { id: "run-side", html: reading.side().await? },
    ];
    Ok(Look { parts, elsewhere })
}
