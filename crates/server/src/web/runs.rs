//! Runs of all workflows, the newest first: narrowed by what the address says, so that a list can be kept and shared.
//!
//! A page goes on from the last run of the one before it, so the thousandth costs what the first does.

use askama::Template;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use jiff::Timestamp;
use pitcrew_control::links::{self, encode};
use pitcrew_control::scheduler::Clear;
use pitcrew_core::engine::record::{RunRecord, RunType};
use pitcrew_core::state::RunState;
use pitcrew_core::{RunKey, WorkflowId};
use pitcrew_store::{Between, Paging, RunFilter, StateCounts, WorkflowFilter};

use super::fmt;
use super::form::Typed;
use super::page::{PageError, PageResult, Shell, html, render};
use crate::Site;
use crate::auth::{Role, User};
use crate::error::{ApiError, ApiResult};
use crate::input::Query;
use crate::live::{Look, Part, Watch, follow};

const PAGE: u32 = 50;
/// Runs that can be retried or cancelled at once.
const BULK: usize = 500;
/// Names that the field for a workflow suggests.
const SUGGESTED: u32 = 500;
const STATES: [RunState; 5] =
    [RunState::Queued, RunState::Running, RunState::Success, RunState::Failed, RunState::Cancelled];

/// A list of runs: of one workflow or of all, in one state or in any.
#[derive(Clone, Default)]
pub struct RunsWish {
    pub workflow: Option<WorkflowId>,
    pub state: Option<RunState>,
    /// Where the list is, for its links.
    pub path: String,
    /// Whether the list is of one workflow whatever the query says.
    is_of_one: bool,
    run_type: Option<RunType>,
    /// When they were made.
    made: Between,
    /// When they were due, which a calendar goes by.
    due: Between,
    before: Option<RunKey>,
    /// Each row can be chosen.
    can_choose: bool,
}

impl RunsWish {
    pub fn of(query: &Query, workflow: Option<WorkflowId>, path: String) -> ApiResult<RunsWish> {
        let wrong =
            |key, word: &str, what| ApiError::invalid(&["query", key], "enum", format!("`{word}` is no {what}"));
        let state =
            query.text("state").map(|word| RunState::from_name(word).ok_or_else(|| wrong("state", word, "state")));
        let run_type =
            query.text("type").map(|word| RunType::from_name(word).ok_or_else(|| wrong("type", word, "type of run")));
        let is_of_one = workflow.is_some();
        let workflow = match (workflow, query.text("workflow").map(str::trim)) {
            (None, Some(name)) if !name.is_empty() => Some(
                WorkflowId::new(name)
                    .map_err(|error| ApiError::invalid(&["query", "workflow"], "value_error", error.to_string()))?,
            ),
            (workflow, _) => workflow,
        };
        Ok(RunsWish {
            workflow,
            state: state.transpose()?,
            path,
            is_of_one,
            run_type: run_type.transpose()?,
            made: Between { from: query.time("from")?, to: query.time("to")? },
            due: Between { from: query.time("due_from")?, to: query.time("due_to")? },
            before: query.number("before")?.map(RunKey),
            can_choose: false,
        })
    }

    fn filter(&self) -> RunFilter {
        RunFilter {
            workflow: self.workflow.clone(),
            states: self.state.into_iter().collect(),
            run_type: self.run_type,
            queued: self.made,
            run_after: self.due,
            before: self.before,
            ..RunFilter::default()
        }
    }

    fn workflow_word(&self) -> &str {
        self.workflow.as_ref().filter(|_| !self.is_of_one).map_or("", WorkflowId::as_str)
    }

    /// The query that asks for the same list, with another state, from another run on.
    fn query_of(&self, state: Option<RunState>, before: Option<RunKey>) -> String {
        let time = |at: Option<Timestamp>| at.map_or_else(String::new, |at| at.to_string());
        let pairs = [
            ("state", state.map_or("", RunState::name).to_owned()),
            ("workflow", self.workflow_word().to_owned()),
            ("type", self.run_type.map_or("", RunType::name).to_owned()),
            ("from", time(self.made.from)),
            ("to", time(self.made.to)),
            ("due_from", time(self.due.from)),
            ("due_to", time(self.due.to)),
            ("before", before.map_or_else(String::new, |key| key.to_string())),
        ];
        let kept = pairs.iter().filter(|(_, value)| !value.is_empty());
        kept.map(|(key, value)| format!("{key}={}", encode(value))).collect::<Vec<_>>().join("&")
    }

    /// The query that asks for the same list.
    pub fn query(&self) -> String {
        self.query_of(self.state, self.before)
    }

    fn at(&self, query: &str) -> String {
        if query.is_empty() { self.path.clone() } else { format!("{}?{query}", self.path) }
    }

    fn is_narrow(&self) -> bool {
        let times = !self.made.is_open() || !self.due.is_open();
        self.state.is_some() || self.run_type.is_some() || times || !self.workflow_word().is_empty()
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
    show_workflow: bool,
    can_choose: bool,
    is_narrow: bool,
    /// Links that narrow the list, with the one that is chosen.
    states: Vec<(&'static str, String, bool)>,
    path: String,
    newest: Option<String>,
    older: Option<String>,
}

#[derive(Template)]
#[template(path = "runs.html")]
struct RunsPage {
    shell: Shell,
    wish: RunsWish,
    list: String,
    workflows: Vec<WorkflowId>,
    types: Vec<(&'static str, bool)>,
    /// What became of the runs that were chosen.
    told: Option<String>,
}

impl RunsPage {
    fn state(&self) -> &'static str {
        self.wish.state.map_or("", RunState::name)
    }

    /// A time as the field for it takes it.
    fn field(&self, at: &Option<Timestamp>) -> String {
        at.map_or_else(String::new, |at| at.strftime("%Y-%m-%dT%H:%M").to_string())
    }
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
    let mut found = site.app.store.runs(&wish.filter(), Paging::first(PAGE + 1)).await?.rows;
    let is_more = found.len() > PAGE as usize;
    found.truncate(PAGE as usize);
    let last = found.last().map(|run| run.key).filter(|_| is_more);
    let keys: Vec<RunKey> = found.iter().map(|run| run.key).collect();
    let mut counts = site.app.store.state_counts(&keys).await?;
    let rows = found.into_iter().map(|run| {
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
    let mut states = vec![("all", wish.at(&wish.query_of(None, None)), wish.state.is_none())];
    states.extend(STATES.map(|s| (s.name(), wish.at(&wish.query_of(Some(s), None)), wish.state == Some(s))));
    Ok(render(List {
        rows,
        show_workflow: !wish.is_of_one,
        can_choose: wish.can_choose,
        is_narrow: wish.is_narrow(),
        states,
        path: wish.path.clone(),
        newest: wish.before.map(|_| wish.at(&wish.query_of(wish.state, None))),
        older: last.map(|key| wish.at(&wish.query_of(wish.state, Some(key)))),
    }))
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult {
    let mut wish = RunsWish::of(&query, None, "/runs".to_owned())?;
    wish.can_choose = user.role >= Role::User;
    let shell = Shell::new(&site, &user, "Runs").section("runs").live(format!("/live/runs?{}", wish.query()));
    let list = list(&site, &wish).await?;
    let active = WorkflowFilter { active: Some(true), ..WorkflowFilter::default() };
    let workflows = site.app.store.workflows(&active, Paging::first(SUGGESTED)).await?.rows;
    let workflows = workflows.into_iter().map(|row| row.id).collect();
    let types = [RunType::Scheduled, RunType::Manual, RunType::Backfill, RunType::Event];
    let types = types.map(|t| (t.name(), wish.run_type == Some(t))).into();
    let told = told(&query)?;
    Ok(html(RunsPage { shell, wish, list, workflows, types, told }))
}

/// What [`bulk`] has to tell.
fn told(query: &Query) -> ApiResult<Option<String>> {
    let Some(done) = query.number::<u64>("done")? else { return Ok(None) };
    let left = query.number::<u64>("left")?.unwrap_or(0);
    let verb = if query.text("action") == Some("cancel") { "cancelled" } else { "started again" };
    let rest = match left {
        0 => String::new(),
        1 => "; 1 was left as it is".to_owned(),
        left => format!("; {left} were left as they are"),
    };
    Ok(Some(format!("{} {verb}{rest}.", fmt::count(&done, "run"))))
}

pub async fn live(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult<Response> {
    let mut wish = RunsWish::of(&query, None, "/runs".to_owned())?;
    wish.can_choose = user.role >= Role::User;
    Ok(follow_list(&site, wish))
}

/// The list, sent again when it changes.
pub fn follow_list(site: &Site, wish: RunsWish) -> Response {
    let watch = Watch::everything(&site.app);
    let key = format!("{}?{} {}", wish.path, wish.query(), wish.can_choose);
    let looker = site.clone();
    let look = move || {
        let (site, wish) = (looker.clone(), wish.clone());
        async move {
            let html = list(&site, &wish).await.ok()?;
            Some(Look { parts: vec![Part { id: "runs", html }], elsewhere: true })
        }
    };
    follow(site, key, watch, look).into_response()
}

/// Retries or cancels the runs that were chosen; one that is not in a state for it is left alone.
pub async fn bulk(
    State(site): State<Site>,
    Extension(user): Extension<User>,
    query: Query,
    typed: Typed,
) -> PageResult {
    typed.only(&["run", "action"])?;
    let wish = RunsWish::of(&query, None, "/runs".to_owned())?;
    let action = typed.text("action");
    if !matches!(action, "retry" | "cancel") {
        return Err(PageError::new(StatusCode::UNPROCESSABLE_ENTITY, "`action` must be `retry` or `cancel`"));
    }
    let keys: Result<Vec<RunKey>, _> = typed.all("run").into_iter().map(|key| key.parse().map(RunKey)).collect();
    let keys =
        keys.map_err(|_| PageError::new(StatusCode::UNPROCESSABLE_ENTITY, "`run` must be the number of a run"))?;
    if keys.is_empty() || keys.len() > BULK {
        let message = format!("choose at least one run, and at most {BULK} at a time");
        return Err(PageError::new(StatusCode::UNPROCESSABLE_ENTITY, message));
    }
    let (mut done, mut left) = (0, 0);
    for key in keys {
        let acted = match site.app.store.run(key).await? {
            Some(run) if action == "cancel" && !run.state.is_final() => {
                site.app.scheduler.cancel(key, &user.name).await.map(|()| true)
            }
            Some(run) if action == "retry" && run.state.is_final() && run.state != RunState::Success => {
                site.app.scheduler.clear(key, Clear::Failed, &user.name).await.map(|cleared| !cleared.is_empty())
            }
            _ => Ok(false),
        };
        match acted {
            Ok(true) => done += 1,
            Ok(false) => left += 1,
            Err(error) => {
                tracing::warn!(run = key.0, "run {key} was left out: {error}");
                left += 1;
            }
        }
    }
    let query = wish.query();
    let joint = if query.is_empty() { "" } else { "&" };
    Ok(Redirect::to(&format!("/runs?{query}{joint}action={action}&done={done}&left={left}")).into_response())
}
