//! Runs of all workflows, the newest first.

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::state::RunState;
use pitcrew_core::{RunKey, WorkflowId};
use pitcrew_store::{RunFilter, StateCounts};

use super::fmt;
use super::page::{PageResult, Shell, html, render};
use super::paging::{Pager, rows_of};
use crate::server::Site;
use crate::server::auth::User;
use crate::server::error::ApiResult;
use crate::server::input::Query;
use crate::server::links;
use crate::server::live::{Look, Part, Watch, follow};

const PAGE: u32 = 50;
const STATES: [RunState; 5] =
    [RunState::Queued, RunState::Running, RunState::Success, RunState::Failed, RunState::Cancelled];

/// A list of runs: of one workflow or of all, in one state or in any.
#[derive(Clone)]
pub struct RunsWish {
    pub workflow: Option<WorkflowId>,
    pub state: Option<RunState>,
    pub page: u64,
    /// Where the list is, for its links.
    pub path: String,
}

impl RunsWish {
    pub fn of(query: &Query, workflow: Option<WorkflowId>, path: String) -> ApiResult<RunsWish> {
        let state = query.text("state").and_then(RunState::from_name);
        Ok(RunsWish { workflow, state, page: query.number("page")?.unwrap_or(1), path })
    }

    fn state_word(&self) -> &'static str {
        self.state.map_or("", RunState::name)
    }

    /// The query that asks for the same list.
    pub fn query(&self) -> String {
        format!("state={}&page={}", self.state_word(), self.page)
    }
}

struct Row {
    run: RunRecord,
    href: String,
    workflow_href: String,
    /// How far its tasks are: states that stand out first, with their shares of a bar 100 wide.
    bar: Vec<Share>,
    done: String,
}

/// A part of a bar.
pub struct Share {
    pub state: &'static str,
    pub x: f64,
    pub width: f64,
}

#[derive(Template)]
#[template(path = "runs_list.html")]
struct List {
    rows: Vec<Row>,
    pager: Pager,
    show_workflow: bool,
    /// Links that narrow the list, with the one that is chosen.
    states: Vec<(&'static str, String, bool)>,
}

#[derive(Template)]
#[template(path = "runs.html")]
struct RunsPage {
    shell: Shell,
    list: String,
}

/// Counts of states as shares of one bar: finished ones first.
pub fn shares(counts: &StateCounts) -> Vec<Share> {
    const ORDER: [&str; 13] = [
        "success",
        "failed",
        "upstream_failed",
        "skipped",
        "removed",
        "running",
        "recovering",
        "queued",
        "up_for_retry",
        "up_for_reschedule",
        "deferred",
        "scheduled",
        "none",
    ];
    let total: u64 = counts.values().sum();
    let mut x = 0.0;
    let present = ORDER.into_iter().filter_map(|state| counts.get(state).map(|count| (state, *count)));
    present
        .map(|(state, count)| {
            let width = 100.0 * count as f64 / total.max(1) as f64;
            let share = Share { state, x, width };
            x += width;
            share
        })
        .collect()
}

/// The list as HTML, with the id `runs`.
pub async fn list(site: &Site, wish: &RunsWish) -> ApiResult<String> {
    let filter =
        RunFilter { workflow: wish.workflow.clone(), states: wish.state.into_iter().collect(), ..RunFilter::default() };
    let page = site.app.store.runs(&filter, rows_of(wish.page, PAGE)).await?;
    let keys: Vec<RunKey> = page.rows.iter().map(|run| run.key).collect();
    let mut counts = site.app.store.state_counts(&keys).await?;
    let pager = Pager::new(&wish.path, &[("state", wish.state_word())], wish.page, PAGE, page.total);
    let rows = page.rows.into_iter().map(|run| {
        let counts = counts.remove(&run.key).unwrap_or_default();
        let of = |states: &[&str]| states.iter().filter_map(|state| counts.get(*state)).sum::<u64>();
        let failed = of(&["failed", "upstream_failed"]);
        let done = match (of(&["success"]), failed) {
            (success, 0) => format!("{} done", fmt::grouped(success)),
            (success, failed) => format!("{} done, {} failed", fmt::grouped(success), fmt::grouped(failed)),
        };
        Row {
            href: links::run(&run.workflow, &run.run_id),
            workflow_href: links::workflow(&run.workflow),
            bar: shares(&counts),
            done,
            run,
        }
    });
    let rows = rows.collect();
    let mut states = vec![("all", wish.path.clone(), wish.state.is_none())];
    states.extend(STATES.map(|s| (s.name(), format!("{}?state={}", wish.path, s.name()), wish.state == Some(s))));
    Ok(render(List { rows, pager, show_workflow: wish.workflow.is_none(), states }))
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult {
    let wish = RunsWish::of(&query, None, "/runs".to_owned())?;
    let shell = Shell::new(&site, &user, "Runs").section("runs").live(format!("/live/runs?{}", wish.query()));
    let list = list(&site, &wish).await?;
    Ok(html(RunsPage { shell, list }))
}

pub async fn live(State(site): State<Site>, query: Query) -> PageResult<Response> {
    let wish = RunsWish::of(&query, None, "/runs".to_owned())?;
    let watch = Watch::everything(&site.app);
    let looker = site.clone();
    let look = move || {
        let (site, wish) = (looker.clone(), wish.clone());
        async move {
            let html = list(&site, &wish).await.ok()?;
            Some(Look { parts: vec![Part { id: "runs", html }], elsewhere: true })
        }
    };
    Ok(follow(&site, watch, look).into_response())
}
