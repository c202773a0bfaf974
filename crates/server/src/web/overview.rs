//! The first page: what runs, what waits and why, what failed lately, how well it goes, and what comes next.

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use pitcrew_control::clock;
use pitcrew_control::links;
use pitcrew_control::scheduler::{Queue, Waiting};
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::state::RunState;
use pitcrew_core::{RunKey, TaskId};
use pitcrew_store::{InstanceOrder, InstanceQuery, Paging, RunFilter, RunOrder, WorkflowFilter, WorkflowRow};

use super::figures::{Figure, figures, unread};
use super::fmt;
use super::page::{PageResult, Shell, html, render};
use super::runs::{Share, shares};
use crate::Site;
use crate::auth::{Role, User};
use crate::error::ApiResult;
use crate::live::{Look, Part, Watch, follow};

/// Rows of each list; the rest is a link away.
const SHOWN: u32 = 8;
/// Of those that wait so many are looked at, and of the failed runs; who is like another is not shown again.
const GATHERED: u32 = 64;
/// Failed instances among which those of the failed runs are looked for.
const LOOKED_AT: u32 = 200;

struct Running {
    run: RunRecord,
    href: String,
    bar: Vec<Share>,
}

/// Who waits: a run or an instance, and how many like it.
struct Waits {
    item: Waiting,
    href: String,
    name: String,
    count: usize,
}

/// The last run of a workflow that failed.
struct Failed {
    run: RunRecord,
    /// Failed runs of the workflow before this one, as far as was looked, and their address.
    before: usize,
    before_href: String,
    href: String,
    /// The task that failed: its name, its page, and the end of what it said.
    task: Option<(String, String, String)>,
}

struct Next {
    row: WorkflowRow,
    href: String,
    at: Timestamp,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    shell: Shell,
    files: String,
    figures: String,
    now: String,
    failed: String,
    next: String,
}

#[derive(Template)]
#[template(path = "overview_now.html")]
struct NowPart {
    running: Vec<Running>,
    more_running: bool,
    queue: Queue,
    waiting: Vec<Waits>,
    more_waiting: usize,
}

#[derive(Template)]
#[template(path = "overview_failed.html")]
struct FailedPart {
    failed: Vec<Failed>,
    any_runs: bool,
    /// May the reader retry?
    is_user: bool,
}

#[derive(Template)]
#[template(path = "overview_next.html")]
struct NextPart {
    next: Vec<Next>,
}

#[derive(Template)]
#[template(path = "overview_figures.html")]
struct FiguresPart {
    figures: Vec<Figure>,
}

/// The figures as far as they are known; the live part of the page waits for them, the page does not.
fn known_figures(site: &Site) -> String {
    let targets = site.settings.targets();
    let known = site.figures.known(&site.app.store, clock::now());
    render(FiguresPart { figures: known.map_or_else(|| unread(&targets), |days| figures(&days, &targets)) })
}

async fn figures_part(site: &Site) -> ApiResult<String> {
    let days = site.figures.days(&site.app.store, clock::now()).await?;
    Ok(render(FiguresPart { figures: figures(&days, &site.settings.targets()) }))
}

#[derive(Template)]
#[template(path = "overview_files.html")]
struct FilesPart {
    broken: Vec<String>,
}

async fn files_part(site: &Site) -> ApiResult<String> {
    let broken = site.app.store.file_errors().await?.into_iter().map(|error| error.path).collect();
    Ok(render(FilesPart { broken }))
}

async fn newest(site: &Site, state: RunState, order: RunOrder, limit: u32) -> ApiResult<Vec<RunRecord>> {
    let filter = RunFilter { states: vec![state], order, ..RunFilter::default() };
    Ok(site.app.store.runs(&filter, Paging::first(limit)).await?.rows)
}

fn waits(item: Waiting, count: usize) -> Waits {
    let (workflow, run) = (&item.workflow, &item.run_id);
    let (href, name) = match &item.instance {
        Some((task, index)) => {
            // Many instances are named by their task.
            let index = if count > 1 { UNMAPPED } else { *index };
            (links::task(workflow, run, task, index), format!("{workflow} / {}", named(task, index)))
        }
        None => (links::run(workflow, run), workflow.to_string()),
    };
    Waits { href, name, count, item }
}

/// Those that wait for the same reason together: runs of a workflow, and instances of a task of a run.
fn gathered(items: Vec<Waiting>) -> Vec<Waits> {
    let is_like = |a: &Waiting, b: &Waiting| match (&a.instance, &b.instance) {
        (Some((one, _)), Some((other, _))) => one == other && a.run_id == b.run_id,
        (None, None) => true,
        _ => false,
    };
    let mut found: Vec<(Waiting, usize)> = Vec::new();
    for item in items {
        let same = |(one, _): &&mut (Waiting, usize)| {
            one.workflow == item.workflow && one.reason == item.reason && is_like(one, &item)
        };
        match found.iter_mut().find(same) {
            Some((_, count)) => *count += 1,
            None => found.push((item, 1)),
        }
    }
    found.truncate(SHOWN as usize);
    found.into_iter().map(|(item, count)| waits(item, count)).collect()
}

/// `task`, or `task[3]`.
fn named(task: &TaskId, map_index: i32) -> String {
    if map_index < 0 { task.to_string() } else { format!("{task}[{map_index}]") }
}

async fn now_part(site: &Site) -> ApiResult<String> {
    let mut runs = newest(site, RunState::Running, RunOrder::Newest, SHOWN + 1).await?;
    let more_running = runs.len() > SHOWN as usize;
    runs.truncate(SHOWN as usize);
    let keys: Vec<RunKey> = runs.iter().map(|run| run.key).collect();
    let mut counts = site.app.store.state_counts(&keys).await?;
    let row = |run: RunRecord| Running {
        href: links::run(&run.workflow, &run.run_id),
        bar: shares(&counts.remove(&run.key).unwrap_or_default()),
        run,
    };
    let running = runs.into_iter().map(row).collect();
    let mut queue = site.app.scheduler.queue(GATHERED as usize).await;
    let waiting = gathered(std::mem::take(&mut queue.waiting));
    let more_waiting = queue.total - waiting.iter().map(|row| row.count).sum::<usize>();
    Ok(render(NowPart { running, more_running, queue, waiting, more_waiting }))
}

async fn failed_part(site: &Site, is_user: bool) -> ApiResult<String> {
    let mut runs: Vec<(RunRecord, usize)> = Vec::new();
    for run in newest(site, RunState::Failed, RunOrder::EndDescending, GATHERED).await? {
        match runs.iter_mut().find(|(newer, _)| newer.workflow == run.workflow) {
            Some((_, before)) => *before += 1,
            None => runs.push((run, 0)),
        }
    }
    runs.truncate(SHOWN as usize);
    let query =
        InstanceQuery { states: vec!["failed"], order: InstanceOrder::EndDescending, ..InstanceQuery::default() };
    // Tasks that failed lately are those of the runs that did, as a rule; a run without one here is shown without.
    let rows = site.app.store.task_instances(&query, Paging::first(LOOKED_AT)).await?.rows;
    let failed = runs.into_iter().map(|(run, before)| {
        let row = rows.iter().rfind(|row| row.run.key == run.key).map(|row| &row.instance);
        let task = row.map(|row| {
            let href = links::task(&run.workflow, &run.run_id, &row.task, row.map_index);
            (named(&row.task, row.map_index), href, fmt::last_lines(&row.message))
        });
        let before_href = format!("/runs?state=failed&workflow={}", links::encode(run.workflow.as_str()));
        Failed { href: links::run(&run.workflow, &run.run_id), run, before, before_href, task }
    });
    let failed: Vec<Failed> = failed.collect();
    let any_runs =
        !failed.is_empty() || !site.app.store.runs(&RunFilter::default(), Paging::first(1)).await?.rows.is_empty();
    Ok(render(FailedPart { failed, any_runs, is_user }))
}

async fn next_part(site: &Site) -> ApiResult<String> {
    let filter = WorkflowFilter { paused: Some(false), active: Some(true), ..WorkflowFilter::default() };
    let rows = site.app.store.workflows(&filter, Paging::ALL).await?.rows;
    let next = |row: WorkflowRow| Some(Next { at: row.next_run?, href: links::workflow(&row.id), row });
    let mut next: Vec<Next> = rows.into_iter().filter_map(next).collect();
    next.sort_by(|a, b| (a.at, &a.row.id).cmp(&(b.at, &b.row.id)));
    next.truncate(SHOWN as usize);
    Ok(render(NextPart { next }))
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    let shell = Shell::new(&site, &user, "Overview").section("overview").live("/live/overview".to_owned());
    let (files, figures) = (files_part(&site).await?, known_figures(&site));
    let (now, failed, next) =
        (now_part(&site).await?, failed_part(&site, shell.is_user()).await?, next_part(&site).await?);
    Ok(html(OverviewPage { shell, files, figures, now, failed, next }))
}

async fn look(site: &Site, is_user: bool) -> ApiResult<Look> {
    let parts = vec![
        Part { id: "files", html: files_part(site).await? },
        Part { id: "figures", html: figures_part(site).await? },
        Part { id: "now", html: now_part(site).await? },
        Part { id: "failed", html: failed_part(site, is_user).await? },
        Part { id: "next", html: next_part(site).await? },
    ];
    Ok(Look { parts, elsewhere: true })
}

pub async fn live(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult<Response> {
    let is_user = user.role >= Role::User;
    let watch = Watch::everything(&site.app);
    let key = format!("overview {is_user}");
    let looker = site.clone();
    let look = move || {
        let site = looker.clone();
        async move { look(&site, is_user).await.ok() }
    };
    Ok(follow(&site, key, watch, look).into_response())
}
