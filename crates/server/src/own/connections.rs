//! Whether a stored connection works, tried from this server.

use axum::Json;
use axum::extract::{Extension, Path, State};
use pitcrew_control::connection::Connection;
use pitcrew_control::ssh::{self, Tested};
use pitcrew_control::{clock, secrets};
use pitcrew_store::AuditEntry;
use serde_json::json;

use crate::Site;
use crate::auth::User;
use crate::error::{ApiError, ApiResult};

/// Signs in to the host of a connection of the type `ssh`, now. That it does not work is an answer, and no error.
pub async fn test(
    State(site): State<Site>,
    Path(id): Path<String>,
    Extension(user): Extension<User>,
) -> ApiResult<Json<Tested>> {
    let app = &site.app;
    let row = app.store.connection(&id).await?;
    let row = row.ok_or_else(|| ApiError::not_found(format!("there is no connection `{id}`")))?;
    let connection = Connection::open(row, &app.vault)?;
    let setup = ssh::setup(&app.data, &secrets::open(&app.store, &app.vault, &app.aws)?);
    let tested = ssh::test(&setup, &connection, &site.settings.ssh())
        .await
        .map_err(|error| ApiError::bad_request(format!("{error:#}")))?;
    let mut audit = AuditEntry::new(clock::now(), user.name.clone(), "connection.test");
    audit.detail = json!({ "id": id, "works": tested.status });
    app.store.record_audit(audit).await?;
    Ok(Json(tested))
}
