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

pub use shapes::short;

use super::auth::Role::{User, Viewer};
use super::routes::Access::{Open, Role};
use super::routes::Routes;

pub fn routes() -> Routes {
    const RUN: &str = "/api/v2/dags/{dag}/dagRuns/{run}";
    const TASK: &str = "/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}";
    let at = |base: &str, rest: &str| format!("{base}{rest}");
    Routes::api()
        .get("/api/v2/monitor/health", Open, meta::health)
        .get("/api/v2/version", Open, meta::version)
        .post("/auth/token", Open, meta::token)
        .post("/auth/token/cli", Open, meta::cli_token)
        .get("/api/v2/dags", Role(Viewer), dags::list)
        .get("/api/v2/dags/{dag}", Role(Viewer), dags::get)
        .patch("/api/v2/dags/{dag}", Role(User), dags::patch)
        .get("/api/v2/dags/{dag}/details", Role(Viewer), dags::details)
        .get("/api/v2/dagTags", Role(Viewer), dags::tags)
        .get("/api/v2/dagSources/{dag}", Role(Viewer), dags::source)
        .get("/api/v2/importErrors", Role(Viewer), dags::import_errors)
        .post("/api/v2/dags/{dag}/clearTaskInstances", Role(User), clear::clear)
        .get("/api/v2/dags/{dag}/dagRuns", Role(Viewer), runs::list)
        .post("/api/v2/dags/{dag}/dagRuns", Role(User), runs::trigger)
        .get(RUN, Role(Viewer), runs::get)
        .patch(RUN, Role(User), runs::patch)
        .get(at(RUN, "/taskInstances"), Role(Viewer), instances::list)
        .get(TASK, Role(Viewer), instances::get)
        .patch(TASK, Role(User), mark::task)
        .get(at(TASK, "/listMapped"), Role(Viewer), instances::list_mapped)
        .get(at(TASK, "/tries"), Role(Viewer), instances::tries)
        .get(at(TASK, "/logs/{try}"), Role(Viewer), logs::get)
        .get(at(TASK, "/{map_index}"), Role(Viewer), instances::get_mapped)
        .patch(at(TASK, "/{map_index}"), Role(User), mark::instance)
        .get(at(TASK, "/{map_index}/tries"), Role(Viewer), instances::tries_mapped)
}
