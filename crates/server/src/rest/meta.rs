//! Health, version, and tokens: what a client asks before it asks for anything else.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::SignedDuration;
use pitcrew_control::clock;
use serde_json::{Value, json};

use crate::Site;
use crate::auth::{Peer, Use};
use crate::input::Body;
use crate::openapi::doc;
use crate::routes::{Access::Open, Routes};

const TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(24);
const CLI_TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(1);

pub fn routes() -> Routes {
    let token = |summary| doc("Login", summary).body("LoginBody").answer(201, "LoginResponse");
    Routes::api()
        .get("/api/v2/monitor/health", Open, health)
        .doc(doc("Monitor", "Says whether the server and its database are well").answer(200, "HealthInfoResponse"))
        .get("/api/v2/version", Open, version)
        .doc(doc("Version", "Shows the version of the server").answer(200, "VersionInfo"))
        .post("/auth/token", Open, self::token)
        .doc(token("Gives a token for a day"))
        .post("/auth/token/cli", Open, cli_token)
        .doc(token("Gives a token for an hour"))
}

pub async fn version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION"), "git_version": null }))
}

/// The scheduler and the watcher of files live and die with this process, so what answers is healthy; the database
/// is asked.
pub async fn health(State(site): State<Site>) -> Json<Value> {
    let now = clock::now().to_string();
    let database = match site.app.store.setting("auth.key").await {
        Ok(_) => "healthy",
        Err(_) => "unhealthy",
    };
    Json(json!({
        "metadatabase": { "status": database },
        "scheduler": { "status": "healthy", "latest_scheduler_heartbeat": now },
        "triggerer": { "status": "healthy", "latest_triggerer_heartbeat": now },
        "dag_processor": { "status": "healthy", "latest_dag_processor_heartbeat": now },
    }))
}

pub async fn token(site: State<Site>, from: Peer, body: Body) -> Result<(StatusCode, Json<Value>), Response> {
    issue(site, from, body, TOKEN_LIFE).await
}

pub async fn cli_token(site: State<Site>, from: Peer, body: Body) -> Result<(StatusCode, Json<Value>), Response> {
    issue(site, from, body, CLI_TOKEN_LIFE).await
}

async fn issue(
    State(site): State<Site>,
    Peer(from): Peer,
    mut body: Body,
    life: SignedDuration,
) -> Result<(StatusCode, Json<Value>), Response> {
    let name = body.required_text("username");
    let password = body.required_text("password");
    body.finish().map_err(IntoResponse::into_response)?;
    let now = clock::now();
    let user = site.auth.sign_in(&name, &password, from, now).await.map_err(IntoResponse::into_response)?;
    let token = site.auth.issue(&user, Use::Api, life, now);
    Ok((StatusCode::CREATED, Json(json!({ "access_token": token }))))
}
