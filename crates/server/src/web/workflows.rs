//! Every workflow with its last runs, and what is wrong with the files.

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use pitcrew_control::links;
use pitcrew_core::WorkflowId;
use pitcrew_store::{FileError, RunBrief, WorkflowFilter, WorkflowRow};

use super::fmt;
use super::page::{PageResult, Shell, html, render};
use super::paging::{Pager, rows_of};
use crate::Site;
use crate::auth::{Role, User};
use crate::error::ApiResult;
use crate::input::Query;
use crate::live::{Look, Part, Watch, follow};

/// Workflows on one page.
const PAGE: u32 = 200;
/// Last runs shown of each.
const RUNS: u32 = 14;

/// What the address asks for.
#[derive(Debug, Clone, Default)]
struct Wish {
    search: String,
    tag: String,
    /// `paused`, `active`, or all.
    show: String,
    page: u64,
}

impl Wish {
    fn of(query: &Query) -> ApiResult<Wish> {
        let text = |key| query.text(key).unwrap_or_default().to_owned();
        Ok(Wish { search: text("q"), tag: text("tag"), show: text("show"), page: query.number("page")?.unwrap_or(1) })
    }

    fn filter(&self) -> WorkflowFilter {
        WorkflowFilter {
            contains: (!self.search.is_empty()).then(|| self.search.clone()),
            tags: if self.tag.is_empty() { Vec::new() } else { vec![self.tag.clone()] },
            paused: match self.show.as_str() {
                "paused" => Some(true),
                "active" => Some(false),
                _ => None,
            },
            active: Some(true),
        }
    }

    fn is_narrow(&self) -> bool {
        !self.search.is_empty() || !self.tag.is_empty() || !self.show.is_empty()
    }
}

/// A run as a square.
pub struct Square {
    pub state: &'static str,
    pub href: String,
    pub label: String,
}

impl Square {
    pub fn of(run: &RunBrief) -> Square {
        let state = run.state.name();
        let took = match (run.start, run.end) {
            (Some(start), Some(end)) => format!(" in {}", fmt::duration(end.duration_since(start))),
            _ => String::new(),
        };
        let label = format!("{} {}{took}", run.run_id, fmt::words(state));
        Square { state, href: links::run(&run.workflow, &run.run_id), label }
    }
}

struct Row {
    href: String,
    row: WorkflowRow,
    /// The oldest first.
    squares: Vec<Square>,
    last: Option<RunBrief>,
    next: Option<Timestamp>,
}

#[derive(Template)]
#[template(path = "workflows.html")]
struct WorkflowsPage {
    shell: Shell,
    wish: Wish,
    tags: Vec<String>,
    errors: String,
    list: String,
}

#[derive(Template)]
#[template(path = "workflows_list.html")]
struct List {
    rows: Vec<Row>,
    pager: Pager,
    is_narrow: bool,
    /// May the reader pause and start?
    is_user: bool,
}

#[derive(Template)]
#[template(path = "file_errors.html")]
struct Errors {
    errors: Vec<FileError>,
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult {
    let wish = Wish::of(&query)?;
    let address = format!(
        "/live/workflows?q={}&tag={}&show={}&page={}",
        links::encode(&wish.search),
        links::encode(&wish.tag),
        links::encode(&wish.show),
        wish.page
    );
    let shell = Shell::new(&site, &user, "Workflows").section("workflows").live(address);
    let (errors, list) = (errors(&site).await?, list(&site, &wish, shell.is_user()).await?);
    let tags = site.app.store.tags().await?;
    Ok(html(WorkflowsPage { shell, wish, tags, errors, list }))
}

async fn errors(site: &Site) -> ApiResult<String> {
    Ok(render(Errors { errors: site.app.store.file_errors().await? }))
}

async fn list(site: &Site, wish: &Wish, is_user: bool) -> ApiResult<String> {
    let page = site.app.store.workflows(&wish.filter(), rows_of(wish.page, PAGE)).await?;
    let keep = [("q", wish.search.as_str()), ("tag", &wish.tag), ("show", &wish.show)];
    let pager = Pager::new("/workflows", &keep, wish.page, PAGE, page.total);
    let ids: Vec<WorkflowId> = page.rows.iter().map(|row| row.id.clone()).collect();
    let mut recent = site.app.store.recent_runs(&ids, RUNS).await?;
    let row = |row: WorkflowRow| {
        let runs = recent.remove(&row.id).unwrap_or_default();
        Row {
            href: links::workflow(&row.id),
            squares: runs.iter().rev().map(Square::of).collect(),
            last: runs.into_iter().next(),
            next: row.next_run.filter(|_| !row.is_paused),
            row,
        }
    };
    let rows = page.rows.into_iter().map(row).collect();
    Ok(render(List { rows, pager, is_narrow: wish.is_narrow(), is_user }))
}

pub async fn live(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult<Response> {
    let wish = Wish::of(&query)?;
    let is_user = user.role >= Role::User;
    let watch = Watch::everything(&site.app);
    let key = format!("workflows {wish:?} {is_user}");
    let looker = site.clone();
    let look = move || {
        let (site, wish) = (looker.clone(), wish.clone());
        async move {
            let list = Part { id: "workflows", html: list(&site, &wish, is_user).await.ok()? };
            let errors = Part { id: "file-errors", html: errors(&site).await.ok()? };
            Some(Look { parts: vec![errors, list], elsewhere: true })
        }
    };
    Ok(follow(&site, key, watch, look).into_response())
}
