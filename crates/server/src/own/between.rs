//! What servers of one database ask each other: about tasks on the machine of the one that is asked.
//!
//! Not for people and their tokens: who asks shows that it has the key of the servers ([`Peers::is_one`]). Each answer is
//! about this server's own data directory, whatever paths the question names.
//!
//! [`Peers::is_one`]: pitcrew_control::cluster::peers::Peers::is_one

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::SignedDuration;
use pitcrew_control::cluster::homed::Homed;
use pitcrew_control::cluster::peers::{Bytes, Cancel, Log, Observe, Offer, One, ROOT, Taken};
use pitcrew_exec::worker::files::{blob, chunks};
use pitcrew_exec::worker::protocol::Manifest;
use pitcrew_exec::{Backend, LogChunk, Observation};

use crate::Site;
use crate::error::{ApiError, ApiResult};
use crate::openapi::doc;
use crate::routes::{Access, Routes};

/// The most bytes of a log in one answer.
const MOST: usize = 4 << 20;

pub fn routes() -> Routes {
    let at = |what: &str| format!("{ROOT}/{{home}}/{what}");
    let about = |summary| doc("Server", summary).answer(200, "any");
    Routes::api()
        .post(at("observe"), Access::Server, observe)
        .here()
        .doc(about("Says what is true of tasks on the machine of the server"))
        .post(at("cancel"), Access::Server, cancel)
        .here()
        .doc(about("Ends a task on the machine of the server"))
        .post(at("cleanup"), Access::Server, cleanup)
        .here()
        .doc(about("Removes what a task that is over needs no more"))
        .post(at("log"), Access::Server, log)
        .here()
        .doc(about("Gives a part of the log of a task on the machine of the server"))
        .post(at("log-size"), Access::Server, log_size)
        .here()
        .doc(about("Says how long that log is"))
        .post(at("files"), Access::Server, files)
        .here()
        .doc(about("Lists the files of a run on the machine of the server"))
        .post(at("bytes"), Access::Server, bytes)
        .here()
        .doc(about("Reads the bytes of a file of a run").media("application/octet-stream"))
        .post(at("taken"), Access::Server, taken)
        .here()
        .doc(about("Notes that another server has the files of a run"))
}

fn local(site: &Site, home: &str) -> ApiResult<Arc<Homed>> {
    let local = site.app.backends.homed().filter(|local| local.home() == home);
    local.ok_or_else(|| {
        ApiError::Status(StatusCode::CONFLICT, format!("this server does not have the data directory `{home}`"))
    })
}

async fn observe(
    State(site): State<Site>,
    Path(home): Path<String>,
    Json(question): Json<Observe>,
) -> ApiResult<Json<Vec<Observation>>> {
    Ok(Json(local(&site, &home)?.tell(&question.handles).await))
}

async fn cancel(
    State(site): State<Site>,
    Path(home): Path<String>,
    Json(question): Json<Cancel>,
) -> ApiResult<Json<()>> {
    let local = local(&site, &home)?;
    let grace = SignedDuration::from_millis(i64::try_from(question.grace_ms).unwrap_or(i64::MAX));
    let handle = local.own(&question.handle);
    let asked = match question.lost {
        Some(reason) => local.lose(&handle, grace, &reason).await,
        None => local.cancel(&handle, grace).await,
    };
    asked.map_err(anyhow::Error::from)?;
    Ok(Json(()))
}

async fn cleanup(State(site): State<Site>, Path(home): Path<String>, Json(question): Json<One>) -> ApiResult<Json<()>> {
    let local = local(&site, &home)?;
    local.cleanup(&local.own(&question.handle)).await.map_err(anyhow::Error::from)?;
    Ok(Json(()))
}

async fn log(
    State(site): State<Site>,
    Path(home): Path<String>,
    Json(question): Json<Log>,
) -> ApiResult<Json<LogChunk>> {
    let local = local(&site, &home)?;
    let (handle, bytes) = (local.own(&question.handle), question.max_bytes.min(MOST));
    Ok(Json(local.logs(&handle, question.offset, bytes).await.map_err(anyhow::Error::from)?))
}

async fn log_size(
    State(site): State<Site>,
    Path(home): Path<String>,
    Json(question): Json<One>,
) -> ApiResult<Json<u64>> {
    let local = local(&site, &home)?;
    Ok(Json(local.log_size(&local.own(&question.handle)).await.map_err(anyhow::Error::from)?))
}

async fn files(
    State(site): State<Site>,
    Path(home): Path<String>,
    Json(question): Json<Offer>,
) -> ApiResult<Json<Manifest>> {
    let local = local(&site, &home)?;
    let busy = || {
        let why = format!("somebody works with the files of run {}: ask again", question.run);
        ApiError::Status(StatusCode::SERVICE_UNAVAILABLE, why)
    };
    let offered = local.files().offer(question.run, question.by).await.map_err(anyhow::Error::msg)?;
    offered.map(Json).ok_or_else(busy)
}

async fn bytes(State(site): State<Site>, Path(home): Path<String>, Json(question): Json<Bytes>) -> ApiResult<Response> {
    let dir = local(&site, &home)?.files().dir(question.run);
    let open = move || blob(&dir, &question.sha256, question.path.as_deref());
    let opened = tokio::task::spawn_blocking(open).await.map_err(anyhow::Error::from)?;
    let (file, size) = opened.map_err(|error| ApiError::not_found(error.to_string()))?;
    Ok(Body::from_stream(chunks(file, size)).into_response())
}

async fn taken(State(site): State<Site>, Path(home): Path<String>, Json(question): Json<Taken>) -> ApiResult<Json<()>> {
    let local = local(&site, &home)?;
    local.files().taken(question.run, question.by, question.digest).await.map_err(anyhow::Error::msg)?;
    Ok(Json(()))
}
