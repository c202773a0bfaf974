//! Jobs, tasks and nodes of Amazon ECS, in the fields and words of the system that Pitcrew replaces.

use std::str::FromStr;

use axum::Json;
use axum::extract::State;
use pitcrew_store::{EcsFilter, EcsJobStatus, EcsNodeStatus, EcsOrigin, EcsTaskStatus};
use serde_json::{Value, json};

use crate::Site;
use crate::auth::Role::Viewer;
use crate::error::{ApiError, ApiResult};
use crate::input::Query;
use crate::openapi::doc;
use crate::routes::Access::Role;
use crate::routes::Routes;

pub fn routes() -> Routes {
    const QUERY: &str = "status: text, origin: text, job_id: text";
    Routes::api()
        .get("/api/pitcrew/v1/ecs/jobs", Role(Viewer), jobs)
        .doc(
            doc("ECS", "Lists jobs on ECS, the newest first, and those that were imported")
                .query(QUERY)
                .paged()
                .answer(200, "EcsJobs"),
        )
        .get("/api/pitcrew/v1/ecs/tasks", Role(Viewer), tasks)
        .doc(
            doc("ECS", "Lists tasks that ECS was given, and those that were imported")
                .query(QUERY)
                .paged()
                .answer(200, "EcsTasks"),
        )
        .get("/api/pitcrew/v1/ecs/nodes", Role(Viewer), nodes)
        .doc(
            doc("ECS", "Lists machines of ECS, and those that were imported")
                .query("status: text, origin: text")
                .paged()
                .answer(200, "EcsNodes"),
        )
}

fn filter<S: FromStr<Err = String>>(query: &Query) -> ApiResult<EcsFilter> {
    let status = query.text("status");
    if let Some(status) = status {
        status.parse::<S>().map_err(|wrong| ApiError::bad_request(format!("`status`: {wrong}")))?;
    }
    let origin = query.text("origin").map(str::parse::<EcsOrigin>).transpose();
    let origin = origin.map_err(|wrong| ApiError::bad_request(format!("`origin`: {wrong}")))?;
    let job_id = query.text("job_id").map(str::to_owned);
    Ok(EcsFilter { status: status.map(str::to_owned), origin, job_id, run: None })
}

async fn jobs(State(site): State<Site>, query: Query) -> ApiResult<Json<Value>> {
    let page = site.app.store.ecs_jobs(&filter::<EcsJobStatus>(&query)?, query.paging()?).await?;
    Ok(Json(json!({ "total_entries": page.total, "jobs": page.rows })))
}

async fn tasks(State(site): State<Site>, query: Query) -> ApiResult<Json<Value>> {
    let page = site.app.store.ecs_tasks(&filter::<EcsTaskStatus>(&query)?, query.paging()?).await?;
    Ok(Json(json!({ "total_entries": page.total, "tasks": page.rows })))
}

async fn nodes(State(site): State<Site>, query: Query) -> ApiResult<Json<Value>> {
    let page = site.app.store.ecs_nodes(&filter::<EcsNodeStatus>(&query)?, query.paging()?).await?;
    Ok(Json(json!({ "total_entries": page.total, "nodes": page.rows })))
}
