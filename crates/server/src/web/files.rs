//! The kept files of a run inside its page: a list, and the chosen one in a frame that can do nothing.
//!
//! The frame shows the file as [`artifacts`] serves it, with a policy of its own; here is only decided whether a browser
//! has something to show.

use askama::Template;
use axum::extract::{Extension, Path, State};
use pitcrew_control::links;
use pitcrew_core::engine::record::RunRecord;

use super::page::{PageResult, Shell, html};
use super::run::{self, Tabs};
use super::{fmt, notebook};
use crate::Site;
use crate::auth::User;
use crate::error::ApiError;
use crate::input::{Query, run_id, workflow_id};
use crate::own::artifacts::{self, Artifact};
use crate::view::{RunView, find_run};

#[derive(Template)]
#[template(path = "files.html")]
struct FilesPage {
    shell: Shell,
    run: RunRecord,
    workflow_href: String,
    tabs: Tabs,
    head: String,
    files: Vec<Listed>,
    /// Another server has more.
    elsewhere: bool,
    shown: Option<Shown>,
}

struct Listed {
    folder: String,
    name: String,
    href: String,
    bytes: u64,
    chosen: bool,
}

/// The file in the frame.
struct Shown {
    path: String,
    raw: String,
    frame: String,
    kind: Frame,
}

#[derive(PartialEq)]
enum Frame {
    /// Without script and without origin.
    Sandboxed,
    /// The browser's own viewer, which does not work in a sandbox; the file's policy keeps it from anything else.
    Viewer,
    /// There is nothing that a browser could show.
    None,
}

/// What people come for first: the report, other pages and documents, then the rest by name.
pub fn in_order(mut files: Vec<Artifact>) -> Vec<Artifact> {
    let rank = |path: &str| match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" if path.contains("report") => 0,
        "html" => 1,
        "ipynb" => 2,
        "pdf" => 3,
        _ => 4,
    };
    files.sort_by_cached_key(|file| (rank(&file.path), file.path.clone()));
    files
}

/// Where a file is shown.
pub fn address(run: &RunRecord, path: &str) -> String {
    let parts: Vec<String> = path.split('/').map(links::encode).collect();
    format!("{}/files/{}", links::run(&run.workflow, &run.run_id), parts.join("/"))
}

pub async fn list(
    State(site): State<Site>,
    Path((workflow, run)): Path<(String, String)>,
    Extension(user): Extension<User>,
    query: Query,
) -> PageResult {
    show(&site, &user, (&workflow, &run), None, &query).await
}

pub async fn one(
    State(site): State<Site>,
    Path((workflow, run, path)): Path<(String, String, String)>,
    Extension(user): Extension<User>,
    query: Query,
) -> PageResult {
    show(&site, &user, (&workflow, &run), Some(path), &query).await
}

async fn show(
    site: &Site,
    user: &User,
    (workflow, run): (&str, &str),
    wanted: Option<String>,
    query: &Query,
) -> PageResult {
    let run = find_run(&site.app, &workflow_id(workflow)?, &run_id(run)?).await?;
    let view = RunView::load(&site.app, run).await?;
    let (files, elsewhere) = artifacts::listed(site, view.run.key, query).await?;
    let files = in_order(files);
    let path = match wanted {
        Some(wanted) if files.iter().any(|file| file.path == wanted) => Some(wanted),
        Some(wanted) => return Err(ApiError::not_found(format!("the run has no artifact `{wanted}`")).into()),
        None => files.first().map(|file| file.path.clone()),
    };
    let shown = path.clone().map(|path| {
        let raw = links::artifact(view.run.key, &path);
        let kind = frame(&path);
        let frame = if notebook::is_notebook(&path) { format!("{raw}?view=notebook") } else { raw.clone() };
        Shown { raw, frame, kind, path }
    });
    let tabs = Tabs { href: links::run(&view.run.workflow, &view.run.run_id), chosen: "files", files: files.len() };
    let listed = files.into_iter().map(|file| {
        let (folder, name) =
            file.path.rsplit_once('/').map_or(("", file.path.as_str()), |(folder, name)| (folder, name));
        Listed {
            folder: folder.to_owned(),
            name: name.to_owned(),
            href: address(&view.run, &file.path),
            bytes: file.bytes,
            chosen: path.as_ref() == Some(&file.path),
        }
    });
    let files = listed.collect();
    let shell = Shell::new(site, user, format!("Files · {} · {}", view.run.run_id, view.run.workflow)).section("runs");
    let head = run::head(site, &view, user).await?;
    let workflow_href = links::workflow(&view.run.workflow);
    Ok(html(FilesPage { shell, run: view.run, workflow_href, tabs, head, files, elsewhere, shown }))
}

fn frame(path: &str) -> Frame {
    match artifacts::kind_of(path).0 {
        "application/pdf" => Frame::Viewer,
        artifacts::UNKNOWN => Frame::None,
        _ => Frame::Sandboxed,
    }
}
