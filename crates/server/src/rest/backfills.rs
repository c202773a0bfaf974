//! Backfills: runs for a span of past time.

use axum::Json;
use axum::extract::{Extension, Path, State};
use pitcrew_control::backfill::{self, Outlook, Step};
use pitcrew_control::clock;
use pitcrew_store::{Backfill, BackfillFilter, NewBackfill, Paging, Reprocess};
use serde_json::{Value, json};

use super::dags;
use crate::Site;
use crate::auth::Role::{self as UserRole, Viewer};
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::{Body, Query, number, workflow_id};
use crate::openapi::doc;
use crate::routes::{Access::Role, Routes};

pub fn routes() -> Routes {
    const ONE: &str = "/api/v2/backfills/{backfill_id}";
    let mut routes = Routes::api()
        .get("/api/v2/backfills", Role(Viewer), list)
        .doc(
            doc("Backfill", "Lists backfills")
                .paged()
                .query("dag_id: text, order_by: text")
                .answer(200, "BackfillCollectionResponse"),
        )
        .post("/api/v2/backfills", Role(UserRole::User), create)
        .doc(doc("Backfill", "Makes a backfill").body("BackfillPostBody").answer(200, "BackfillResponse"))
        .post("/api/v2/backfills/dry_run", Role(UserRole::User), dry_run)
        .doc(
            doc("Backfill", "Says which runs a backfill would make")
                .body("BackfillPostBody")
                .answer(200, "DryRunBackfillCollectionResponse"),
        )
        .get(ONE, Role(Viewer), get)
        .doc(doc("Backfill", "Shows a backfill").answer(200, "BackfillResponse"));
    // Airflow's document says PUT; its own command line sends POST.
    for (word, summary) in [
        ("pause", "Lets no more runs of a backfill begin"),
        ("unpause", "Lets runs of a backfill begin again"),
        ("cancel", "Ends a backfill; runs under way go on"),
    ] {
        let answer = move |State(site): State<Site>, Path(id): Path<String>, Extension(user): Extension<User>| async move {
            change(&site, &id, word, &user).await
        };
        let about = || doc("Backfill", summary).answer(200, "BackfillResponse");
        routes = routes.put(format!("{ONE}/{word}"), Role(UserRole::User), answer).doc(about());
        routes = routes.post(format!("{ONE}/{word}"), Role(UserRole::User), answer).doc(about());
    }
    routes
}

pub async fn list(State(site): State<Site>, query: Query) -> ApiResult<Json<Value>> {
    let workflow = query.text("dag_id").map(workflow_id).transpose()?;
    let filter = BackfillFilter { workflow, open: None };
    let paging = query.paging()?;
    let (rows, total) = match query.text("order_by") {
        Some("-id" | "-created_at") => {
            let page = site.app.store.backfills(&filter, paging).await?;
            (page.rows, page.total)
        }
        None | Some("id" | "created_at") => {
            // The store lists the newest first; this is the same list from its end.
            let total = site.app.store.backfills(&filter, Paging::first(1)).await?.total;
            let end = total.saturating_sub(paging.offset);
            let start = end.saturating_sub(u64::from(paging.limit));
            let window = Paging { limit: (end - start) as u32, offset: start };
            let mut rows = site.app.store.backfills(&filter, window).await?.rows;
            rows.reverse();
            (rows, total)
        }
        Some(other) => return Err(ApiError::bad_request(format!("backfills cannot be ordered by `{other}`"))),
    };
    let shown: Vec<Value> = rows.iter().map(shape).collect();
    Ok(Json(json!({ "backfills": shown, "total_entries": total })))
}

fn shape(backfill: &Backfill) -> Value {
    let new = &backfill.new;
    // A cancelled one is over in Airflow at once; here its last runs may still end.
    let over = backfill.completed.or(backfill.cancelled.then_some(backfill.updated));
    json!({
        "id": backfill.id,
        "dag_id": new.workflow,
        "dag_display_name": new.workflow,
        "from_date": new.from,
        "to_date": new.to,
        "dag_run_conf": new.conf,
        "is_paused": backfill.is_paused,
        "reprocess_behavior": new.reprocess.name(),
        "max_active_runs": new.max_active_runs,
        "created_at": new.created,
        "completed_at": over,
        "updated_at": backfill.updated,
    })
}

async fn find(site: &Site, id: &str) -> ApiResult<Backfill> {
    let found = match number::<i64>("backfill_id", id)? {
        number if number >= 0 => site.app.store.backfill(number).await?,
        _ => None,
    };
    found.ok_or_else(|| ApiError::not_found(format!("Backfill with id `{id}` not found")))
}

pub async fn get(State(site): State<Site>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    Ok(Json(shape(&find(&site, &id).await?)))
}

/// What a body asks for.
async fn wish(site: &Site, user: &User, mut body: Body) -> ApiResult<NewBackfill> {
    let dag = body.required_text("dag_id");
    body.require("from_date");
    body.require("to_date");
    let (from, to) = (body.time("from_date"), body.time("to_date"));
    let reverse = body.boolean("run_backwards").unwrap_or(false);
    let conf = body.object("dag_run_conf").unwrap_or_default();
    let word = body.text("reprocess_behavior").unwrap_or_else(|| "none".to_owned());
    let reprocess = Reprocess::from_name(&word);
    if reprocess.is_none() {
        body.problem("reprocess_behavior", "enum", "must be `failed`, `completed` or `none`");
    }
    let active = body.integer("max_active_runs", 1, 100_000).unwrap_or(i64::from(backfill::MAX_ACTIVE_RUNS));
    // A run always has the newest version.
    body.ignore(&["run_on_latest_version"]);
    body.finish()?;
    let (Some(from), Some(to), Some(reprocess)) = (from, to, reprocess) else {
        return Err(ApiError::invalid(&["body"], "missing", "`from_date` and `to_date` are missing"));
    };
    Ok(NewBackfill {
        workflow: dags::find(site, &dag).await?.id,
        from,
        to,
        reprocess,
        reverse,
        max_active_runs: active as u32,
        conf,
        by: user.name.clone(),
        created: clock::now(),
    })
}

pub async fn create(State(site): State<Site>, Extension(user): Extension<User>, body: Body) -> ApiResult<Json<Value>> {
    let wish = wish(&site, &user, body).await?;
    let made = backfill::create(&site.app.store, &site.app.catalog, wish).await?;
    site.app.schedules.notify_one();
    site.app.scheduler.look();
    Ok(Json(shape(&made)))
}

/// The times that would get a run, or whose run would be run again.
pub async fn dry_run(State(site): State<Site>, Extension(user): Extension<User>, body: Body) -> ApiResult<Json<Value>> {
    let wish = wish(&site, &user, body).await?;
    let steps = backfill::steps(&site.app.store, &site.app.catalog, &wish, None).await?;
    let planned = steps.iter().filter(|step| matches!(step.outlook, Outlook::New | Outlook::Again));
    let one = |step: &Step| json!({ "logical_date": step.occurrence.logical_date, "partition_key": null, "partition_date": null });
    let shown: Vec<Value> = planned.map(one).collect();
    Ok(Json(json!({ "total_entries": shown.len(), "backfills": shown })))
}

async fn change(site: &Site, id: &str, word: &str, user: &User) -> ApiResult<Json<Value>> {
    let id = find(site, id).await?.id;
    let (store, by, now) = (&site.app.store, user.name.as_str(), clock::now());
    match word {
        "pause" => backfill::pause(store, id, true, by, now).await?,
        "unpause" => backfill::pause(store, id, false, by, now).await?,
        _ => backfill::cancel(store, id, by, now).await?,
    };
    site.app.schedules.notify_one();
    site.app.scheduler.look();
    Ok(Json(shape(&backfill::find(store, id).await?)))
}
