//! Deliveries of webhooks: what was posted, and what it came to.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use pitcrew_control::clock;
use pitcrew_control::hooks::view::{self, Line};
use pitcrew_store::{DeliveryFilter, DeliveryRow, DeliveryState};
use serde_json::{Value, json};

use crate::Site;
use crate::auth::Role::{Op, Viewer};
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::Query;
use crate::openapi::doc;
use crate::routes::Access::Role;
use crate::routes::Routes;

pub fn routes() -> Routes {
    const DELIVERIES: &str = "/api/pitcrew/v1/deliveries";
    Routes::api()
        .get(DELIVERIES, Role(Viewer), list)
        .doc(
            doc("Delivery", "Lists what was posted to listeners, the newest first")
                .query("namespace: text, listener: text, state: text")
                .paged()
                .answer(200, "object"),
        )
        .get(format!("{DELIVERIES}/{{delivery}}"), Role(Op), show)
        .doc(doc("Delivery", "Shows a delivery with its headers and its body").answer(200, "object"))
        .post(format!("{DELIVERIES}/{{delivery}}/redeliver"), Role(Op), redeliver)
        .doc(doc("Delivery", "Sends a delivery once more").answer(202, "object"))
}

/// The filter of a query; the error says which states there are.
pub fn filter(query: &Query) -> ApiResult<DeliveryFilter> {
    let state = match query.text("state") {
        None => None,
        Some(text) => Some(DeliveryState::from_name(text).ok_or_else(|| {
            ApiError::bad_request(format!("`state` must be waiting, done, refused or duplicate, found `{text}`"))
        })?),
    };
    let text = |name: &str| query.text(name).map(str::to_owned);
    Ok(DeliveryFilter { namespace: text("namespace"), listener: text("listener"), state })
}

async fn list(State(site): State<Site>, query: Query) -> ApiResult<Json<Value>> {
    let page = site.app.store.deliveries(&filter(&query)?, query.paging()?).await?;
    let deliveries: Vec<Line> = page.rows.iter().map(Line::from).collect();
    Ok(Json(json!({ "deliveries": deliveries, "total_entries": page.total })))
}

/// The delivery of that number, or 404.
pub async fn find(site: &Site, id: &str) -> ApiResult<DeliveryRow> {
    let missing = || ApiError::not_found(format!("there is no delivery {id}"));
    let number: i64 = id.parse().map_err(|_| missing())?;
    site.app.store.delivery(number).await?.ok_or_else(missing)
}

async fn show(State(site): State<Site>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let row = find(&site, &id).await?;
    let mut shown = json!(Line::from(&row));
    shown["posted"] = json!(view::posted(&site.app.vault, &row)?);
    Ok(Json(shown))
}

async fn redeliver(
    State(site): State<Site>,
    Path(id): Path<String>,
    Extension(user): Extension<User>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let row = find(&site, &id).await?;
    let made = view::redeliver(&site.app.store, row.id, &user.name, clock::now()).await?;
    let made =
        made.ok_or_else(|| ApiError::conflict(format!("what was posted by delivery {} was not kept", row.id)))?;
    site.app.hooks.wake();
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": made }))))
}
