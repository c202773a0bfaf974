//! The pages: rendered by the server, live by one small script, and complete without it.
//!
//! Each page is one module with its view and its template. Parts that follow what happens are templates of their own,
//! rendered into the page at first and sent again when they change.

mod actions;
mod ansi;
mod assets;
mod field;
mod fmt;
mod gantt;
mod graph;
mod log;
mod overview;
pub mod page;
mod paging;
mod run;
mod runs;
mod task;
mod trigger;
mod workflow;

use axum::Router;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::error::ApiError;
use super::{Site, auth};

/// Pages that need a user.
pub fn routes() -> Router<Site> {
    const WORKFLOW: &str = "/workflows/{workflow}";
    const RUN: &str = "/workflows/{workflow}/runs/{run}";
    let at = |base: &str, rest: &str| format!("{base}{rest}");
    Router::new()
        .route("/", get(overview::page))
        .route("/live/overview", get(overview::live))
        .route("/runs", get(runs::page))
        .route("/runs/{key}", get(run::short))
        .route("/live/runs", get(runs::live))
        .route(WORKFLOW, get(workflow::page))
        .route(&at(WORKFLOW, "/source"), get(workflow::source))
        .route(&at(WORKFLOW, "/pause"), post(actions::pause))
        .route(&at(WORKFLOW, "/trigger"), get(trigger::form).post(trigger::submit))
        .route("/live/workflows/{workflow}", get(workflow::live))
        .route(RUN, get(run::page))
        .route(&at(RUN, "/cancel"), post(actions::cancel))
        .route(&at(RUN, "/retry"), post(actions::retry))
        .route(&at(RUN, "/clear"), post(actions::clear))
        .route("/live/runs/{key}", get(run::live))
        .route(&at(RUN, "/tasks/{task}"), get(task::page))
        .route(&at(RUN, "/tasks/{task}/{map_index}"), get(task::mapped_page))
        .route("/live/tasks/{key}/{task}/{map_index}", get(task::live))
        .route("/live/logs/{key}/{task}/{map_index}/{attempt}", get(log::live))
        .route("/logs/{key}/{task}/{map_index}/{attempt}", get(log::download))
}

/// The way in, and what it looks like.
pub fn open_routes() -> Router<Site> {
    Router::new()
        .route("/login", get(auth::login_form).post(auth::login))
        .route("/logout", post(auth::logout))
        .route("/assets/{name}", get(assets::serve))
        .route("/favicon.ico", get(assets::favicon))
}

/// What is asked for is not there; the API says so in JSON, the pages in a page.
pub async fn not_found(uri: Uri) -> Response {
    if uri.path().starts_with("/api/") || uri.path().starts_with("/auth/") {
        return ApiError::not_found("Not Found").into_response();
    }
    page::PageError::not_found("There is no such page.").into_response()
}
