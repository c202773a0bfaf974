//! The outbox of notifications: what was sent, what waits, what was given up.

use axum::Json;
use axum::extract::{Extension, Path, State};
use pitcrew_control::clock;
use pitcrew_control::notify::view::Line;
use pitcrew_store::{AuditEntry, NoticeFilter, NoticeState};
use serde_json::{Value, json};

use crate::Site;
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::{Query, workflow_id};

/// `state`, `channel`, `workflow`, `limit`, `offset`; the newest first.
pub async fn list(State(site): State<Site>, query: Query) -> ApiResult<Json<Value>> {
    let state = match query.text("state") {
        None => None,
        Some(text) => Some(NoticeState::from_name(text).ok_or_else(|| {
            ApiError::bad_request(format!("`state` must be waiting, sent, failed or merged, found `{text}`"))
        })?),
    };
    let workflow = query.text("workflow").map(workflow_id).transpose()?;
    let filter = NoticeFilter { state, channel: query.text("channel").map(str::to_owned), workflow };
    let page = site.app.store.notices(&filter, query.paging()?).await?;
    let notices: Vec<Line> = page.rows.iter().map(Line::from).collect();
    Ok(Json(json!({ "notices": notices, "total_entries": page.total })))
}

/// Lets a notice be tried at once; of one that was sent it is a conflict.
pub async fn retry(
    State(site): State<Site>,
    Path(id): Path<String>,
    Extension(user): Extension<User>,
) -> ApiResult<Json<Line>> {
    let missing = || ApiError::not_found(format!("there is no notice {id}"));
    let number: i64 = id.parse().map_err(|_| missing())?;
    let store = &site.app.store;
    let notice = store.notice(number).await?.ok_or_else(missing)?;
    let mut audit = AuditEntry::new(clock::now(), user.name.clone(), "notice.retry");
    audit.detail = json!({ "id": number });
    if !store.retry_notice(number, clock::now(), audit).await? {
        return Err(ApiError::conflict(format!("notice {number} is {}", notice.state.name())));
    }
    Ok(Json(Line::from(&store.notice(number).await?.ok_or_else(missing)?)))
}
