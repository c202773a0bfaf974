//! Backfills: runs for a span of past time, looked at before they are made, and watched while they run.

use askama::Template;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use pitcrew_control::backfill::{self, BackfillError, MAX_ACTIVE_RUNS, Outlook, Step};
use pitcrew_control::clock;
use pitcrew_control::links;
use pitcrew_core::WorkflowId;
use pitcrew_store::{Backfill, BackfillFilter, NewBackfill, Paging, Reprocess, RunCounts, StateCounts, WorkflowFilter};
use serde_json::Value;

use crate::Site;
use crate::auth::{Role, User};
use crate::error::{ApiError, ApiResult};
use crate::input::{Query, parse_time};
use crate::live::{Look, Part, Watch, follow};
use crate::web::fmt;
use crate::web::form::{Field, Form, FormPage, Kind, Typed};
use crate::web::page::{PageError, PageResult, Shell, html, render};
use crate::web::paging::{Pager, rows_of};
use crate::web::runs::{Share, shares};

const PAGE: u32 = 50;
const LIST: &str = "/backfills";
/// Times that a look ahead lists.
const LISTED: usize = 200;

struct Row {
    backfill: Backfill,
    workflow_href: String,
    bar: Vec<Share>,
    total: u64,
    ended: u64,
    failed: u64,
}

impl Row {
    fn of(backfill: Backfill, counts: RunCounts) -> Row {
        let states = [
            ("success", counts.success),
            ("failed", counts.failed + counts.cancelled),
            ("running", counts.running),
            ("queued", counts.queued),
        ];
        let states: StateCounts = states.into_iter().filter(|(_, count)| *count > 0).collect();
        let total = states.values().sum();
        let failed = counts.failed + counts.cancelled;
        let (bar, ended) = (shares(&states), counts.success + failed);
        Row { workflow_href: links::workflow(&backfill.new.workflow), backfill, bar, total, ended, failed }
    }

    /// In a word, what it does now.
    fn state(&self) -> &'static str {
        match &self.backfill {
            Backfill { completed: Some(_), cancelled: false, .. } => "done",
            Backfill { cancelled: true, .. } => "cancelled",
            Backfill { is_paused: true, .. } => "paused",
            _ => "under way",
        }
    }

    fn can_change(&self) -> bool {
        self.backfill.is_open() && !self.backfill.cancelled
    }
}

#[derive(Template)]
#[template(path = "admin/backfills.html")]
struct BackfillsPage {
    shell: Shell,
    list: String,
}

#[derive(Template)]
#[template(path = "admin/backfills_list.html")]
struct List {
    rows: Vec<Row>,
    pager: Pager,
    is_user: bool,
}

/// The look ahead under the form.
#[derive(Template)]
#[template(path = "admin/backfill_steps.html")]
struct Steps {
    steps: Vec<(String, &'static str, Option<(String, String)>)>,
    total: usize,
    new: usize,
    again: usize,
}

async fn list(site: &Site, at: u64, is_user: bool) -> ApiResult<String> {
    let page = site.app.store.backfills(&BackfillFilter::default(), rows_of(at, PAGE)).await?;
    let ids: Vec<i64> = page.rows.iter().map(|backfill| backfill.id).collect();
    let counts = site.app.store.backfill_counts(&ids).await?;
    let row = |backfill: Backfill| {
        let counts = counts.get(&backfill.id).copied().unwrap_or_default();
        Row::of(backfill, counts)
    };
    let pager = Pager::new(LIST, &[], at, PAGE, page.total);
    Ok(render(List { rows: page.rows.into_iter().map(row).collect(), pager, is_user }))
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult {
    let at = query.number("page")?.unwrap_or(1);
    let live = format!("/live/backfills?page={at}");
    let shell = Shell::new(&site, &user, "Backfills").section("backfills").live(live);
    let list = list(&site, at, shell.is_user()).await?;
    Ok(html(BackfillsPage { shell, list }))
}

pub async fn live(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult<Response> {
    let at = query.number("page")?.unwrap_or(1);
    let is_user = user.role >= Role::User;
    let watch = Watch::everything(&site.app);
    let looker = site.clone();
    let look = move || {
        let site = looker.clone();
        async move {
            let html = list(&site, at, is_user).await.ok()?;
            Some(Look { parts: vec![Part { id: "backfills", html }], elsewhere: true })
        }
    };
    Ok(follow(&site, format!("backfills {at} {is_user}"), watch, look).into_response())
}

async fn blank_form(site: &Site, workflow: &str) -> ApiResult<Form> {
    let active = WorkflowFilter { active: Some(true), ..WorkflowFilter::default() };
    let rows = site.app.store.workflows(&active, Paging::first(500)).await?.rows;
    let names = rows.into_iter().filter(|row| row.schedule.is_some()).map(|row| row.id.to_string()).collect();
    let words = [
        ("none", "leave it as it is"),
        ("failed", "run it again if it failed or was cancelled"),
        ("completed", "run it again"),
    ];
    let words = words.map(|(value, word)| (value.to_owned(), word.to_owned()));
    Ok(Form::new(vec![
        Field::text("workflow", "Workflow").required().suggest(names).with(workflow).hint("one with a schedule"),
        Field::new("from", "From", Kind::Moment).required().hint("the first logical date, in UTC"),
        Field::new("to", "To", Kind::Moment).required().hint("the last one, in UTC, included"),
        Field::new("reprocess", "A time that has a run already", Kind::Choice(words.into())).with("none"),
        Field::new("reverse", "The newest first", Kind::Check),
        Field::new("max_active_runs", "Runs at a time", Kind::Number).required().with(MAX_ACTIVE_RUNS.to_string()),
        Field::new("conf", "Params", Kind::Lines(3))
            .json()
            .example("{}")
            .hint("a JSON object, for every run; empty: the defaults"),
    ]))
}

fn form_page(site: &Site, user: &User, form: Form, below: String) -> FormPage {
    let shell = Shell::new(site, user, "New backfill").section("backfills");
    let lead = "Makes the runs that the schedule names for a span of past time. Preview them first.";
    let (above, action) = ((LIST, "Backfills"), "/backfills/new".to_owned());
    FormPage { shell, above, lead, action, form, submit: "Preview", below }
}

pub async fn blank(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult {
    let form = blank_form(&site, query.text("workflow").unwrap_or_default()).await?;
    Ok(form_page(&site, &user, form, String::new()).response())
}

/// What the form asks for, if nothing is wrong with it.
fn read(form: &mut Form, user: &User) -> Option<NewBackfill> {
    let time = |text: &str| parse_time(text).ok_or("must be a time such as 2026-01-02T03:04");
    let workflow = form.parse("workflow", WorkflowId::new);
    let (from, to) = (form.parse("from", time), form.parse("to", time));
    let reprocess = Reprocess::from_name(form.text("reprocess"));
    let most = form.parse("max_active_runs", |text| match text.parse::<u32>() {
        Ok(most @ 1..) => Ok(most),
        _ => Err("must be at least 1"),
    });
    let conf = form.parse("conf", |text| match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err("must be a JSON object".to_owned()),
        Err(error) => Err(format!("is not JSON: {error}")),
    });
    if form.is_wrong() {
        return None;
    }
    Some(NewBackfill {
        workflow: workflow?,
        from: from?,
        to: to?,
        reprocess: reprocess?,
        reverse: form.is_checked("reverse"),
        max_active_runs: most?,
        conf: conf.unwrap_or_default(),
        by: user.name.clone(),
        created: clock::now(),
    })
}

/// Looks ahead, or with `make` makes the backfill.
pub async fn create(State(site): State<Site>, Extension(user): Extension<User>, mut typed: Typed) -> PageResult {
    let make = typed.take("make").is_some();
    let mut form = blank_form(&site, "").await?;
    form.fill(&typed)?;
    let Some(wish) = read(&mut form, &user) else { return Ok(form_page(&site, &user, form, String::new()).refused()) };
    let (store, catalog) = (&site.app.store, &site.app.catalog);
    let tried = match make {
        true => backfill::create(store, catalog, wish).await.map(|_| None),
        false => backfill::steps(store, catalog, &wish, None).await.map(Some),
    };
    match tried {
        Ok(None) => {
            site.app.schedules.notify_one();
            site.app.scheduler.look();
            Ok(Redirect::to(LIST).into_response())
        }
        Ok(Some(steps)) => {
            form.also = steps.iter().any(is_wanted).then_some(("make", "Create the runs"));
            Ok(form_page(&site, &user, form, render(preview(steps))).response())
        }
        Err(error) => {
            let field = match &error {
                BackfillError::NoSuchWorkflow(_) | BackfillError::NoSchedule(_) => "workflow",
                BackfillError::EndsFirst { .. } | BackfillError::NoTimes { .. } | BackfillError::TooMany => "to",
                BackfillError::Params(_) => "conf",
                BackfillError::UnderWay(_) => "",
                _ => return Err(ApiError::from(error).into()),
            };
            form.wrong(field, error.to_string());
            Ok(form_page(&site, &user, form, String::new()).refused())
        }
    }
}

fn is_wanted(step: &Step) -> bool {
    matches!(step.outlook, Outlook::New | Outlook::Again)
}

fn preview(steps: Vec<Step>) -> Steps {
    let count = |outlook| steps.iter().filter(|step| step.outlook == outlook).count();
    let (total, new, again) = (steps.len(), count(Outlook::New), count(Outlook::Again));
    let words = |outlook| match outlook {
        Outlook::New => "gets a run",
        Outlook::Again => "is run again",
        Outlook::Left => "stays as it is",
        Outlook::Done => "is done",
    };
    let shown = steps.into_iter().take(LISTED).map(|step| {
        let run = step.run.map(|run| (links::run(&run.workflow, &run.run_id), run.state.name().to_owned()));
        (fmt::clock(&step.occurrence.logical_date), words(step.outlook), run)
    });
    Steps { steps: shown.collect(), total, new, again }
}

/// Pauses, goes on with, or cancels one.
pub async fn change(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult<Redirect> {
    typed.only(&["id", "action"])?;
    let wrong = |text: &str| PageError::new(StatusCode::UNPROCESSABLE_ENTITY, text);
    let id: i64 = typed.text("id").parse().map_err(|_| wrong("`id` must be the number of a backfill"))?;
    let (store, by, now) = (&site.app.store, user.name.as_str(), clock::now());
    let changed = match typed.text("action") {
        "pause" => backfill::pause(store, id, true, by, now).await,
        "resume" => backfill::pause(store, id, false, by, now).await,
        "cancel" => backfill::cancel(store, id, by, now).await,
        _ => return Err(wrong("`action` must be `pause`, `resume` or `cancel`")),
    };
    changed.map_err(ApiError::from)?;
    site.app.schedules.notify_one();
    site.app.scheduler.look();
    Ok(Redirect::to(LIST))
}
