//! The server itself: its jobs, what it can do, how it is set up.

use axum::Json;
use axum::extract::{Path, State};
use pitcrew_control::{actions, clock};
use serde_json::{Value, json};

use crate::Site;
use crate::auth::Role::{Admin, Viewer};
use crate::error::{ApiError, ApiResult};
use crate::input::Query;
use crate::openapi::doc;
use crate::routes::{Access::Role, Routes};

/// The one section of the configuration.
const SECTION: &str = "pitcrew";

pub fn routes() -> Routes {
    Routes::api()
        .get("/api/v2/jobs", Role(Viewer), jobs)
        .doc(
            doc("Job", "Lists the scheduler, which lives with the server that answers")
                .paged()
                .query("order_by: text, is_alive: bool, job_type: text, job_state: text, hostname: text")
                .query("executor_class: text")
                .answer(200, "JobCollectionResponse"),
        )
        .get("/api/v2/providers", Role(Viewer), providers)
        .doc(doc("Provider", "Lists the actions and backends").paged().answer(200, "ProviderCollectionResponse"))
        .get("/api/v2/config", Role(Admin), config)
        .doc(doc("Config", "Lists the settings of the server").query("section: text").answer(200, "Config"))
        .get("/api/v2/config/section/{section}/option/{option}", Role(Admin), option)
        .doc(doc("Config", "Shows a setting of the server").answer(200, "Config"))
}

/// Whoever gets this answer gets it from a process whose scheduler lives.
pub async fn jobs(query: Query) -> ApiResult<Json<Value>> {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let paging = query.paging()?;
    let is = |key: &str, value: &str| query.text(key).is_none_or(|wanted| wanted == value);
    let wanted = query.boolean("is_alive")?.unwrap_or(true)
        && is("job_type", "SchedulerJob")
        && is("job_state", "running")
        && is("hostname", &hostname)
        && query.text("executor_class").is_none();
    let job = json!({
        "id": 1,
        "dag_id": null,
        "dag_display_name": null,
        "state": "running",
        "job_type": "SchedulerJob",
        "start_date": null,
        "end_date": null,
        "latest_heartbeat": clock::now(),
        "executor_class": null,
        "hostname": hostname,
        "unixname": null,
    });
    let shown: Vec<Value> = (wanted && paging.limit > 0 && paging.offset == 0).then_some(job).into_iter().collect();
    Ok(Json(json!({ "jobs": shown, "total_entries": u8::from(wanted) })))
}

pub async fn providers(query: Query) -> ApiResult<Json<Value>> {
    let paging = query.paging()?;
    let actions = actions::infos().iter().map(|info| (info.name.clone(), "an action"));
    let backends = pitcrew_control::backends::KINDS.iter().map(|kind| (kind.name().to_owned(), "a backend"));
    let all: Vec<Value> = actions
        .chain(backends)
        .map(|(name, what)| {
            json!({
                "package_name": format!("pitcrew-{name}"),
                "description": format!("`{name}`, {what} of Pitcrew"),
                "version": env!("CARGO_PKG_VERSION"),
                "documentation_url": null,
            })
        })
        .collect();
    let total = all.len();
    let shown: Vec<Value> = all.into_iter().skip(paging.offset as usize).take(paging.limit as usize).collect();
    Ok(Json(json!({ "providers": shown, "total_entries": total })))
}

/// Key and value of each setting; secrets are left out by the settings themselves.
fn settings(site: &Site) -> Vec<(String, String)> {
    site.settings.shown().into_iter().map(|setting| (setting.key.name.to_owned(), setting.text.clone())).collect()
}

fn shape(options: Vec<(String, String)>) -> Json<Value> {
    let options: Vec<Value> = options.into_iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
    Json(json!({ "sections": [{ "name": SECTION, "options": options }] }))
}

pub async fn config(State(site): State<Site>, query: Query) -> ApiResult<Json<Value>> {
    match query.text("section") {
        None | Some(SECTION) => Ok(shape(settings(&site))),
        Some(other) => Err(ApiError::not_found(format!("Section {other} not found."))),
    }
}

pub async fn option(
    State(site): State<Site>,
    Path((section, option)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    let mut all = settings(&site);
    all.retain(|(key, _)| section == SECTION && *key == option);
    if all.is_empty() {
        return Err(ApiError::not_found(format!("Option [{section}/{option}] not found.")));
    }
    Ok(shape(all))
}
