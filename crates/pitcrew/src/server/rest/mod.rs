//! Airflow's REST API: its paths, its shapes, its words for errors.
//!
//! Its clients check answers strictly, so every key is there, `null` where Pitcrew has nothing to say. What Airflow has
//! no word for is under `/api/pitcrew/v1`.

mod clear;
pub mod dags;
mod instances;
mod logs;
mod mark;
mod meta;
mod runs;
mod shapes;

use axum::Router;
use axum::routing::{get, post};

pub use shapes::short;

use super::Site;

/// Routes that need a token.
pub fn routes() -> Router<Site> {
    const RUN: &str = "/api/v2/dags/{dag}/dagRuns/{run}";
    const TASK: &str = "/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}";
    let at = |base: &str, rest: &str| format!("{base}{rest}");
    Router::new()
        .route("/api/v2/dags", get(dags::list))
        .route("/api/v2/dags/{dag}", get(dags::get).patch(dags::patch))
        .route("/api/v2/dags/{dag}/details", get(dags::details))
        .route("/api/v2/dagTags", get(dags::tags))
        .route("/api/v2/dagSources/{dag}", get(dags::source))
        .route("/api/v2/importErrors", get(dags::import_errors))
        .route("/api/v2/dags/{dag}/clearTaskInstances", post(clear::clear))
        .route("/api/v2/dags/{dag}/dagRuns", get(runs::list).post(runs::trigger))
        .route(RUN, get(runs::get).patch(runs::patch))
        .route(&at(RUN, "/taskInstances"), get(instances::list))
        .route(TASK, get(instances::get).patch(mark::task))
        .route(&at(TASK, "/listMapped"), get(instances::list_mapped))
        .route(&at(TASK, "/tries"), get(instances::tries))
        .route(&at(TASK, "/logs/{try}"), get(logs::get))
        .route(&at(TASK, "/{map_index}"), get(instances::get_mapped).patch(mark::instance))
        .route(&at(TASK, "/{map_index}/tries"), get(instances::tries_mapped))
}

/// Routes that anybody may ask.
pub fn open_routes() -> Router<Site> {
    Router::new()
        .route("/api/v2/monitor/health", get(meta::health))
        .route("/api/v2/version", get(meta::version))
        .route("/auth/token", post(meta::token))
        .route("/auth/token/cli", post(meta::cli_token))
}
