//! The page of a workflow: its graph, its params, its runs; and its source.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use pitcrew_core::ir::{Param, Workflow};
use pitcrew_store::{FileError, Version, WorkflowRow};
use serde_json::Value;

use super::fmt;
use super::graph;
use super::page::{PageResult, Shell, html};
use super::runs::{self, RunsWish};
use crate::server::Site;
use crate::server::auth::User;
use crate::server::error::ApiResult;
use crate::server::input::Query;
use crate::server::links;
use crate::server::live::{Look, Part, Watch, follow};
use crate::server::rest::dags;

/// What the top of the page shows, on every tab.
struct Head {
    row: WorkflowRow,
    href: String,
    tab: &'static str,
    error: Option<FileError>,
}

impl Head {
    async fn load(site: &Site, name: &str, tab: &'static str) -> ApiResult<Head> {
        let row = dags::find(site, name).await?;
        let error = site.app.store.file_errors().await?.into_iter().find(|error| error.path == row.path);
        Ok(Head { href: links::workflow(&row.id), row, tab, error })
    }
}

#[derive(Template)]
#[template(path = "workflow.html")]
struct WorkflowPage {
    shell: Shell,
    head: Head,
    workflow: Option<Arc<Workflow>>,
    params: Vec<ParamView>,
    graph: String,
    runs: String,
}

/// A param as listed.
struct ParamView {
    name: String,
    /// `None`: it must be given.
    default: Option<String>,
    help: Option<String>,
}

impl ParamView {
    fn of(param: &Param) -> ParamView {
        let help = param.schema.get("description").or_else(|| param.schema.get("title"));
        ParamView {
            name: param.name.clone(),
            default: param.default.as_ref().map(fmt::value),
            help: help.and_then(Value::as_str).map(str::to_owned),
        }
    }
}

pub async fn page(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    query: Query,
) -> PageResult {
    let head = Head::load(&site, &name, "runs").await?;
    let wish = RunsWish::of(&query, Some(head.row.id.clone()), head.href.clone())?;
    let workflow = site.app.catalog.load(&site.app.store, &head.row.id, &head.row.version).await.ok();
    let graph = workflow.as_deref().map(graph::of_workflow).unwrap_or_default();
    let runs = runs::list(&site, &wish).await?;
    let live = format!("/live{}?{}", head.href, wish.query());
    let shell = Shell::new(&site, &user, head.row.id.as_str()).section("workflows").live(live);
    let params = workflow.iter().flat_map(|workflow| &workflow.params).map(ParamView::of).collect();
    Ok(html(WorkflowPage { shell, head, workflow, params, graph, runs }))
}

pub async fn live(State(site): State<Site>, Path(name): Path<String>, query: Query) -> PageResult<Response> {
    let row = dags::find(&site, &name).await?;
    let wish = RunsWish::of(&query, Some(row.id.clone()), links::workflow(&row.id))?;
    let watch = Watch::everything(&site.app);
    let looker = site.clone();
    let look = move || {
        let (site, wish) = (looker.clone(), wish.clone());
        async move {
            let html = runs::list(&site, &wish).await.ok()?;
            Some(Look { parts: vec![Part { id: "runs", html }], elsewhere: true })
        }
    };
    Ok(follow(&site, watch, look).into_response())
}

#[derive(Template)]
#[template(path = "source.html")]
struct SourcePage {
    shell: Shell,
    head: Head,
    versions: Vec<Version>,
    /// The hash of the one that is shown.
    shown: String,
    lines: Vec<String>,
}

/// The source of the newest version, or of the one that `version` names.
pub async fn source(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    query: Query,
) -> PageResult {
    let head = Head::load(&site, &name, "source").await?;
    let versions = site.app.store.versions(&head.row.id).await?;
    let wanted = query.text("version").unwrap_or(&head.row.version);
    let shown = versions.iter().map(|version| &version.hash).find(|hash| hash.starts_with(wanted));
    let shown = shown.unwrap_or(&head.row.version).clone();
    let source = site.app.store.version_source(&head.row.id, &shown).await?.unwrap_or_default();
    let lines = source.lines().map(str::to_owned).collect();
    let title = format!("Source of {}", head.row.id);
    let shell = Shell::new(&site, &user, title).section("workflows");
    Ok(html(SourcePage { shell, head, versions, shown, lines }))
}
