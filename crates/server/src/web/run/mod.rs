//! The page of a run: how it stands, its graph, its tasks on the time axis, what it was given and what it left.

mod side;
mod tasks;

use std::sync::{Arc, Mutex};

use askama::Template;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use pitcrew_control::links;
use pitcrew_control::recovery::view::state;
use pitcrew_core::TaskId;
use pitcrew_core::engine::record::{RunRecord, RunStop, StopHow};
use pitcrew_store::StateCounts;

use super::page::{PageResult, Shell, html, render};
use super::runs::{Share, shares};
use super::{fmt, graph};
use crate::Site;
use crate::auth::{Role, User};
use crate::error::ApiResult;
use crate::input::{Query, run_id, workflow_id};
use crate::live::{Look, Part, Watch, follow};
use crate::own;
use crate::own::artifacts;
use crate::view::{RunView, by_rank, find_run, state_name};

/// A larger graph is drawn when somebody asks for it: it makes a page of a megabyte, again with every change.
const DRAWN: usize = 300;

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
    /// Those that hit its jobs: name, page, and what became of them.
    incidents: Vec<(String, String, String)>,
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

    async fn head(&self, counts: &StateCounts) -> ApiResult<String> {
        let run = self.run();
        let has = |state: &str| counts.get(state).is_some_and(|count| *count > 0);
        let stopped = run.stop.as_ref().map(|stop| match stop {
            RunStop::Cancelled { by, how: StopHow::DrainThenFinally } => {
                format!("cancelled by {by}: nothing new begins")
            }
            RunStop::Cancelled { by, how: StopHow::ThenFinally | StopHow::Everything } => format!("cancelled by {by}"),
            RunStop::TimedOut => "stopped: it ran longer than its timeout".to_owned(),
            RunStop::TasksTimedOut => "stopped: its tasks took longer than their timeout".to_owned(),
            RunStop::FinallyTimedOut => "stopped: its finally tasks took longer than their timeout".to_owned(),
            RunStop::FailFast { task } => format!("stopped because `{task}` failed (fail_fast)"),
            RunStop::Drain { task } => format!("`{task}` failed: nothing new began"),
            RunStop::Refused { reason, message } => format!("it could not run: {reason}: {message}"),
        });
        let hits = own::incidents::of_run(self.site, run).await?;
        let incidents = hits.iter().rev().map(|one| {
            let about = format!("of {}, {}", one.node, state(one).replace('_', " "));
            (one.id.to_string(), links::incident(one.id), about)
        });
        Ok(render(Head {
            run,
            href: self.href(),
            workflow_href: links::workflow(&run.workflow),
            counts: by_rank(counts),
            bar: shares(counts),
            may: self.role >= Role::User,
            can_retry: has("failed") || has("upstream_failed"),
            can_mark: counts.keys().any(|state| !matches!(*state, "success" | "skipped" | "removed")),
            stopped,
            incidents: incidents.collect(),
        }))
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
    let (head, graph) = (reading.head(&counts).await?, reading.graph().await?);
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
    reading.head(&view.counts(&site.app).await?).await
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
        Part { id: "run-head", html: reading.head(&counts).await? },
        Part { id: "run-graph", html: reading.graph().await? },
        Part { id: "run-tasks", html: reading.tasks(&counts).await? },
        Part { id: "run-side", html: reading.side().await? },
    ];
    Ok(Look { parts, elsewhere })
}
