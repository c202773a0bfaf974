//! The pages: rendered by the server, live by one small script, and complete without it.
//!
//! Each page is one module with its view and its template. Parts that follow what happens are templates of their own,
//! rendered into the page at first and sent again when they change.

mod account;
mod actions;
mod admin;
mod ansi;
mod assets;
mod calendar;
pub mod figures;
mod files;
mod fmt;
mod form;
mod gantt;
mod graph;
mod grid;
mod log;
mod nav;
pub mod notebook;
mod overview;
pub mod page;
mod paging;
mod run;
mod runs;
mod search;
mod task;
mod trigger;
mod workflow;
mod workflows;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};

use super::Site;
use super::auth::Role::{User, Viewer};
use super::error::ApiError;
use super::routes::Access::{Open, Role};
use super::routes::Routes;
use super::{auth, oidc};

pub fn routes() -> Routes {
    const WORKFLOW: &str = "/workflows/{workflow}";
    const RUN: &str = "/workflows/{workflow}/runs/{run}";
    let at = |base: &str, rest: &str| format!("{base}{rest}");
    Routes::pages()
        .get("/login", Open, auth::login_form)
        .post("/login", Open, auth::login)
        .get("/login/oidc", Open, oidc::begin)
        .get("/login/oidc/callback", Open, oidc::finish)
        .post("/logout", Open, auth::logout)
        .get("/account", Role(Viewer), account::page)
        .post("/account/password", Role(Viewer), account::password)
        .post("/logout/everywhere", Role(Viewer), auth::logout_everywhere)
        .get("/assets/{name}", Open, assets::serve)
        .get("/favicon.ico", Open, assets::favicon)
        .get("/", Role(Viewer), overview::page)
        .get("/live/overview", Role(Viewer), overview::live)
        .get("/workflows", Role(Viewer), workflows::page)
        .get("/live/workflows", Role(Viewer), workflows::live)
        .get("/runs", Role(Viewer), runs::page)
        .get("/runs/{run_key}", Role(Viewer), run::short)
        .get("/live/runs", Role(Viewer), runs::live)
        .post("/runs/bulk", Role(User), runs::bulk)
        .get(WORKFLOW, Role(Viewer), workflow::page)
        .get(at(WORKFLOW, "/runs"), Role(Viewer), workflow::runs)
        .get(at(WORKFLOW, "/graph"), Role(Viewer), workflow::graph)
        .get(at(WORKFLOW, "/calendar"), Role(Viewer), calendar::page)
        .get(at(WORKFLOW, "/source"), Role(Viewer), workflow::source)
        .post(at(WORKFLOW, "/pause"), Role(User), actions::pause)
        .get(at(WORKFLOW, "/trigger"), Role(User), trigger::form)
        .post(at(WORKFLOW, "/trigger"), Role(User), trigger::submit)
        .get("/live/workflows/{workflow}", Role(Viewer), workflow::live)
        .get("/live/workflows/{workflow}/runs", Role(Viewer), workflow::live_runs)
        .get(RUN, Role(Viewer), run::page)
        .post(at(RUN, "/cancel"), Role(User), actions::cancel)
        .post(at(RUN, "/retry"), Role(User), actions::retry)
        .post(at(RUN, "/clear"), Role(User), actions::clear)
        .post(at(RUN, "/tasks"), Role(User), actions::tasks)
        .post(at(RUN, "/mark"), Role(User), actions::mark)
        .post(at(RUN, "/note"), Role(User), actions::note)
        .get(at(RUN, "/files"), Role(Viewer), files::list)
        .get(at(RUN, "/files/{*path}"), Role(Viewer), files::one)
        .get("/live/runs/{run_key}", Role(Viewer), run::live)
        .get(at(RUN, "/tasks/{task}"), Role(Viewer), task::page)
        .get(at(RUN, "/tasks/{task}/{map_index}"), Role(Viewer), task::mapped_page)
        .get("/live/tasks/{run_key}/{task}", Role(Viewer), task::mapped::live)
        .get("/live/tasks/{run_key}/{task}/{map_index}", Role(Viewer), task::live)
        .get("/live/logs/{run_key}/{task}/{map_index}/{attempt}", Role(Viewer), log::live)
        .get("/logs/{run_key}/{task}/{map_index}/{attempt}", Role(Viewer), log::download)
        .get("/logs/{run_key}/{task}/{map_index}/{attempt}/part", Role(Viewer), log::part)
        .merge(admin::routes())
}

/// What is asked for is not there; the API says so in JSON, the pages in a page.
pub async fn not_found(State(site): State<Site>, from: auth::Peer, headers: HeaderMap, uri: Uri) -> Response {
    if uri.path().starts_with("/api/") || uri.path().starts_with("/auth/") {
        return ApiError::not_found("Not Found").into_response();
    }
    let response = page::PageError::not_found("There is no such page.").into_response();
    match auth::reader(&site, from, &headers).await {
        Some(user) => page::with_navigation(&site, &user, response),
        None => response,
    }
}
