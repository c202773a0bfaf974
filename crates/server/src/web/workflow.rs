//! The pages of a workflow: its grid, its runs, its graph with params and limits, its source in every version.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use pitcrew_control::links;
use pitcrew_core::ir::{Param, Workflow};
use pitcrew_store::{FileError, Version, WorkflowRow};
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use super::page::{PageResult, Shell, html};
use super::runs::{self, RunsWish};
use super::{fmt, graph, grid};
use crate::Site;
use crate::auth::{Role, User};
use crate::error::ApiResult;
use crate::input::Query;
use crate::live::{Look, Part, Watch, follow};
use crate::rest::dags;

/// What the top of the page shows, on every tab.
pub struct Head {
    pub row: WorkflowRow,
    pub href: String,
    pub tab: &'static str,
    pub error: Option<FileError>,
    /// The user may pause it and start runs.
    pub can_run: bool,
}

impl Head {
    pub async fn load(site: &Site, user: &User, name: &str, tab: &'static str) -> ApiResult<Head> {
        let row = dags::find(site, name).await?;
        let error = site.app.store.file_errors().await?.into_iter().find(|error| error.path == row.path);
        Ok(Head { href: links::workflow(&row.id), row, tab, error, can_run: user.role >= Role::User })
    }

    pub fn tabs(&self) -> [(&'static str, &'static str, String); 5] {
        [
            ("grid", "Grid", self.href.clone()),
            ("runs", "Runs", format!("{}/runs", self.href)),
            ("graph", "Graph", format!("{}/graph", self.href)),
            ("calendar", "Calendar", format!("{}/calendar", self.href)),
            ("source", "Source", format!("{}/source", self.href)),
        ]
    }

    /// Tabs of a browser are told apart by their titles.
    pub fn shell(&self, site: &Site, user: &User, live: String) -> Shell {
        let part = self.tabs().into_iter().find(|(tab, ..)| *tab == self.tab && *tab != "grid");
        let title = part.map_or_else(|| self.row.id.to_string(), |(_, name, _)| format!("{name} · {}", self.row.id));
        Shell::new(site, user, title).section("workflows").live(live)
    }
}

/// The newest version, unless it is no longer understood.
async fn definition(site: &Site, row: &WorkflowRow) -> Option<Arc<Workflow>> {
    site.app.catalog.load(&site.app.store, &row.id, &row.version).await.ok()
}

#[derive(Template)]
#[template(path = "workflow.html")]
struct GridPage {
    shell: Shell,
    head: Head,
    wish: grid::Wish,
    part: String,
}

/// The grid of tasks and runs.
pub async fn page(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    query: Query,
) -> PageResult {
    let head = Head::load(&site, &user, &name, "grid").await?;
    let wish = grid::Wish::of(&query)?;
    let workflow = definition(&site, &head.row).await;
    let part = grid::view(&site, &head.row.id, workflow.as_deref(), &wish).await?;
    let shell = head.shell(&site, &user, format!("/live{}?{}", head.href, wish.query()));
    Ok(html(GridPage { shell, head, wish, part }))
}

pub async fn live(State(site): State<Site>, Path(name): Path<String>, query: Query) -> PageResult<Response> {
    let row = dags::find(&site, &name).await?;
    let wish = grid::Wish::of(&query)?;
    let watch = Watch::everything(&site.app);
    let key = format!("grid {} {}", row.id, wish.query());
    let looker = site.clone();
    let look = move || {
        let (site, row, wish) = (looker.clone(), row.clone(), wish.clone());
        async move {
            let workflow = definition(&site, &row).await;
            let html = grid::view(&site, &row.id, workflow.as_deref(), &wish).await.ok()?;
            Some(Look { parts: vec![Part { id: "grid", html }], elsewhere: true })
        }
    };
    Ok(follow(&site, key, watch, look).into_response())
}

#[derive(Template)]
#[template(path = "workflow_runs.html")]
struct RunsPage {
    shell: Shell,
    head: Head,
    list: String,
}

/// Its runs, as a list.
pub async fn runs(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    query: Query,
) -> PageResult {
    let head = Head::load(&site, &user, &name, "runs").await?;
    let wish = RunsWish::of(&query, Some(head.row.id.clone()), format!("{}/runs", head.href))?;
    let list = runs::list(&site, &wish).await?;
    let shell = head.shell(&site, &user, format!("/live{}/runs?{}", head.href, wish.query()));
    Ok(html(RunsPage { shell, head, list }))
}

pub async fn live_runs(State(site): State<Site>, Path(name): Path<String>, query: Query) -> PageResult<Response> {
    let row = dags::find(&site, &name).await?;
    let wish = RunsWish::of(&query, Some(row.id.clone()), format!("{}/runs", links::workflow(&row.id)))?;
    Ok(runs::follow_list(&site, wish))
}

#[derive(Template)]
#[template(path = "workflow_graph.html")]
struct GraphPage {
    shell: Shell,
    head: Head,
    workflow: Option<Arc<Workflow>>,
    params: Vec<ParamView>,
    graph: String,
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

/// Its graph, params and limits.
pub async fn graph(State(site): State<Site>, Path(name): Path<String>, Extension(user): Extension<User>) -> PageResult {
    let head = Head::load(&site, &user, &name, "graph").await?;
    let workflow = definition(&site, &head.row).await;
    let graph = workflow.as_deref().map(graph::of_workflow).unwrap_or_default();
    let params = workflow.iter().flat_map(|workflow| &workflow.params).map(ParamView::of).collect();
    let shell = head.shell(&site, &user, String::new());
    Ok(html(GraphPage { shell, head, workflow, params, graph }))
}

#[derive(Template)]
#[template(path = "source.html")]
struct SourcePage {
    shell: Shell,
    head: Head,
    versions: Vec<Version>,
    /// The hash of the one that is shown.
    shown: String,
    /// The one that it is compared with; empty: none.
    against: String,
    lines: Vec<SourceLine>,
}

impl SourcePage {
    /// How many lines came or went.
    fn changed(&self, change: &str) -> String {
        fmt::count(&(self.lines.iter().filter(|line| line.change == change).count() as u64), "line")
    }
}

/// As many lines around a change are shown.
const AROUND: usize = 3;

/// A line of a source, or of the difference between two.
struct SourceLine {
    /// In the version that is shown; 0: it is not there.
    number: usize,
    /// `add`, `del`, `gap` for lines that are left out, or nothing.
    change: &'static str,
    text: String,
}

/// The source of the newest version, or of the one that `version` names; with `against`, what changed since that one.
pub async fn source(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    query: Query,
) -> PageResult {
    let head = Head::load(&site, &user, &name, "source").await?;
    let versions = site.app.store.versions(&head.row.id).await?;
    let find = |wanted: &str| versions.iter().find(|version| version.hash.starts_with(wanted)).map(|v| v.hash.clone());
    let shown = query.text("version").and_then(find).unwrap_or_else(|| head.row.version.clone());
    let against = query.text("against").and_then(find).filter(|hash| *hash != shown);
    let read = async |hash: &str| -> ApiResult<String> {
        Ok(site.app.store.version_source(&head.row.id, hash).await?.unwrap_or_default())
    };
    let source = read(&shown).await?;
    let lines = match &against {
        Some(hash) => difference(&read(hash).await?, &source),
        None => plain(&source),
    };
    let shell = head.shell(&site, &user, String::new());
    Ok(html(SourcePage { shell, head, versions, shown, against: against.unwrap_or_default(), lines }))
}

fn plain(source: &str) -> Vec<SourceLine> {
    let line = |(at, text): (usize, &str)| SourceLine { number: at + 1, change: "", text: text.to_owned() };
    source.lines().enumerate().map(line).collect()
}

fn difference(old: &str, new: &str) -> Vec<SourceLine> {
    let diff = TextDiff::from_lines(old, new);
    let (mut lines, mut next) = (Vec::new(), 0);
    let gap = |count: usize| SourceLine { number: 0, change: "gap", text: fmt::count(&(count as u64), "line") };
    let line = |change: similar::Change<&str>| SourceLine {
        number: change.new_index().map_or(0, |at| at + 1),
        change: match change.tag() {
            ChangeTag::Insert => "add",
            ChangeTag::Delete => "del",
            ChangeTag::Equal => "",
        },
        text: change.value().trim_end_matches(['\r', '\n']).to_owned(),
    };
    for group in diff.grouped_ops(AROUND) {
        let start = group.first().map_or(next, |op| op.new_range().start);
        lines.extend((start > next).then(|| gap(start - next)));
        next = group.last().map_or(next, |op| op.new_range().end);
        lines.extend(group.iter().flat_map(|op| diff.iter_changes(op)).map(line));
    }
    let rest = new.lines().count().saturating_sub(next);
    lines.extend((rest > 0).then(|| gap(rest)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_numbers_the_lines_of_the_newer_version() {
        let lines = difference("a\nb\nc\n", "a\nc\nd\n");
        let seen: Vec<(usize, &str, &str)> = lines.iter().map(|l| (l.number, l.change, l.text.as_str())).collect();
        assert_eq!(seen, [(1, "", "a"), (0, "del", "b"), (2, "", "c"), (3, "add", "d")]);
    }

    #[test]
    fn a_difference_leaves_out_what_is_far_from_it() {
        let text = |from: u32, to: u32| (from..=to).map(|number| format!("{number}\n")).collect::<String>();
        let lines = difference(&text(1, 20), &format!("{}new\n{}", text(1, 9), text(10, 20)));
        let seen: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(seen, ["6 lines", "7", "8", "9", "new", "10", "11", "12", "8 lines"]);
        assert!(difference("a\n", "a\n").iter().all(|line| line.change == "gap"));
    }
}
