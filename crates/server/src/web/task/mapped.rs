//! The page of a mapped task: the list of its instances, narrowed by state. It follows what happens.

use askama::Template;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use pitcrew_control::links;
use pitcrew_core::TaskId;
use pitcrew_core::engine::record::{InstanceRecord, RunRecord};
use pitcrew_core::id::UNMAPPED;

use super::details::kind_of;
use crate::Site;
use crate::auth::{Role, User};
use crate::error::ApiResult;
use crate::input::{Query, task_id};
use crate::live::{Look, Part, Watch, follow};
use crate::own;
use crate::view::{Filter, RunView, by_rank, state_name};
use crate::web::fmt;
use crate::web::page::{PageResult, Shell, html, render};
use crate::web::paging::{Pager, rows_of};

/// Instances of a mapped task on one page.
const PAGE: u32 = 100;

/// What the address asks for.
#[derive(Debug, Clone, Copy)]
struct Wish {
    state: Option<&'static str>,
    page: u64,
}

impl Wish {
    fn of(query: &Query) -> ApiResult<Wish> {
        Ok(Wish { state: query.text("state").and_then(state_name), page: query.number("page")?.unwrap_or(1) })
    }
}

#[derive(Template)]
#[template(path = "task_mapped.html")]
struct MappedPage {
    shell: Shell,
    run: RunRecord,
    run_href: String,
    workflow_href: String,
    list: String,
}

#[derive(Template)]
#[template(path = "task_mapped_list.html")]
struct List<'a> {
    run_href: String,
    task: &'a TaskId,
    kind: String,
    rows: Vec<(InstanceRecord, String)>,
    pager: Pager,
    /// Links that narrow the list to a state, with how many there are and which is chosen.
    filters: Vec<(&'static str, u64, String, bool)>,
    all: (u64, String, bool),
    /// The user may change it.
    may: bool,
}

async fn list(site: &Site, role: Role, view: &RunView, task: &TaskId, wish: Wish) -> ApiResult<String> {
    let summary = view.tasks(&site.app, std::slice::from_ref(task)).await?.pop();
    let counts = summary.map(|summary| summary.counts).unwrap_or_default();
    let filter = Filter { states: wish.state.into_iter().collect(), task: Some(task.clone()) };
    let rows = view.page(&site.app, &filter, rows_of(wish.page, PAGE)).await?;
    let run = &view.run;
    let href = links::task(&run.workflow, &run.run_id, task, UNMAPPED);
    let pager = Pager::new(&href, &[("state", wish.state.unwrap_or_default())], wish.page, PAGE, rows.total);
    let kind = view.workflow.as_deref().and_then(|w| w.by_name.get(task).map(|ix| kind_of(w.task(*ix))));
    let link = |row: &InstanceRecord| links::task(&run.workflow, &run.run_id, &row.task, row.map_index);
    let rows = rows.rows.into_iter().map(|row| (row.clone(), link(&row))).collect();
    let filters = by_rank(&counts)
        .into_iter()
        .map(|(name, count)| (name, count, format!("{href}?state={name}"), wish.state == Some(name)));
    Ok(render(List {
        run_href: links::run(&run.workflow, &run.run_id),
        task,
        kind: kind.unwrap_or_default(),
        rows,
        pager,
        filters: filters.collect(),
        all: (counts.values().sum(), href.clone(), wish.state.is_none()),
        may: role >= Role::User,
    }))
}

pub async fn page(site: &Site, user: &User, view: RunView, task: TaskId, query: &Query) -> PageResult {
    let wish = Wish::of(query)?;
    let list = list(site, user.role, &view, &task, wish).await?;
    let (run, state) = (view.run, wish.state.unwrap_or_default());
    let live = format!("/live/tasks/{}/{}?state={state}&page={}", run.key, links::encode(task.as_str()), wish.page);
    let shell =
        Shell::new(site, user, format!("{task} · {} · {}", run.run_id, run.workflow)).section("runs").live(live);
    let workflow_href = links::workflow(&run.workflow);
    Ok(html(MappedPage { shell, run_href: links::run(&run.workflow, &run.run_id), workflow_href, run, list }))
}

pub async fn live(
    State(site): State<Site>,
    Path((key, task)): Path<(String, String)>,
    Extension(user): Extension<User>,
    query: Query,
) -> PageResult<Response> {
    let (run, task, wish) = (own::find(&site, &key).await?, task_id(&task)?, Wish::of(&query)?);
    let watch = Watch::run(&site.app, run.key);
    let key = format!("mapped {} {task} {wish:?} {:?}", run.key, user.role);
    let looker = site.clone();
    let look = move || {
        let (site, task, role) = (looker.clone(), task.clone(), user.role);
        async move {
            let run = site.app.store.run(run.key).await.ok()??;
            let is_ours = site.app.scheduler.snapshot(run.key).await.is_some();
            let view = RunView::load(&site.app, run).await.ok()?;
            let html = list(&site, role, &view, &task, wish).await.ok()?;
            Some(Look { parts: vec![Part { id: "instances", html }], elsewhere: !is_ours })
        }
    };
    Ok(follow(&site, key, watch, look).into_response())
}
