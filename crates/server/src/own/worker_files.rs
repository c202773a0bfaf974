//! Files of runs, for the workers that their tasks run on.
//!
//! Invariant: a worker reads and changes the files of a run only for an attempt that is its own and not over: so one that
//! was cut off, and whose work somebody else does by now, undoes nothing.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use pitcrew_control::clock;
use pitcrew_core::{AttemptId, RunKey};
use pitcrew_exec::worker::files::{self, KeptError, Pipe};
use pitcrew_exec::worker::protocol::{Changes, Manifest};
use pitcrew_exec::{Handle, Place};
use pitcrew_store::WorkerRow;

use crate::Site;
use crate::error::{ApiError, ApiResult};
use crate::input::Query;

/// The directory of the run that an attempt of this worker belongs to.
async fn dir(site: &Site, worker: &WorkerRow, run: &str, query: &Query) -> ApiResult<(RunKey, PathBuf)> {
    let text = query.text("attempt").unwrap_or_default();
    let id: AttemptId = text.parse().map_err(|_| ApiError::bad_request(format!("`{text}` is no attempt")))?;
    let nobodys = || ApiError::not_found(format!("`{text}` is no attempt of this worker that is under way"));
    if id.run.to_string() != run {
        return Err(nobodys());
    }
    let rows = site.app.store.attempts(id.run, &id.task, id.map_index).await?;
    let row = rows.iter().find(|row| row.number == id.number && row.exit.is_none()).ok_or_else(nobodys)?;
    let handle: Handle = serde_json::from_value(row.handle.clone()).map_err(|_| nobodys())?;
    match handle.place {
        Some(Place::Worker(place)) if place.worker == worker.id => Ok((id.run, site.app.data.run(id.run))),
        Some(Place::Worker(_) | Place::Ssh(_) | Place::Ecs(_) | Place::Kubernetes(_)) | None => Err(nobodys()),
    }
}

fn failed(error: KeptError) -> ApiError {
    match error {
        KeptError::Refused(_) => ApiError::Status(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        KeptError::Missing(_) => ApiError::Status(StatusCode::FAILED_DEPENDENCY, error.to_string()),
        KeptError::Io(_) => {
            tracing::error!("{error}");
            ApiError::Status(
                StatusCode::SERVICE_UNAVAILABLE,
                "the server cannot keep files; its log says why".to_owned(),
            )
        }
    }
}

/// One at a time of each run; also of those who bring its files from other servers, or take them there.
fn turn(site: &Site, run: RunKey) -> Arc<tokio::sync::Mutex<()>> {
    match site.app.backends.homed() {
        Some(homed) => homed.files().turn(run),
        None => turn_alone(run),
    }
}

/// The same, on a server that has no others.
fn turn_alone(run: RunKey) -> Arc<tokio::sync::Mutex<()>> {
    static TURNS: LazyLock<Mutex<std::collections::HashMap<RunKey, Weak<tokio::sync::Mutex<()>>>>> =
        LazyLock::new(Mutex::default);
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(turn) = turns.get(&run).and_then(Weak::upgrade) {
        return turn;
    }
    turns.retain(|_, turn| turn.strong_count() > 0);
    let turn = Arc::default();
    turns.insert(run, Arc::downgrade(&turn));
    turn
}

/// Work that waits for a disk.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> Result<T, KeptError> + Send + 'static) -> ApiResult<T> {
    tokio::task::spawn_blocking(work).await.map_err(anyhow::Error::from)?.map_err(failed)
}

pub async fn list(
    State(site): State<Site>,
    Extension(worker): Extension<Arc<WorkerRow>>,
    Path(run): Path<String>,
    query: Query,
) -> ApiResult<Json<Manifest>> {
    // Asked before each task: what this server knows by heart is not read for it.
    let id = query.text("attempt").and_then(|text| text.parse::<AttemptId>().ok());
    let known = id.filter(|id| id.run.to_string() == run && site.app.workers.has(&worker.id, id) == Some(true));
    let (run, dir) = match known {
        Some(id) => (id.run, site.app.data.run(id.run)),
        None => dir(&site, &worker, &run, &query).await?,
    };
    site.has_files(run).await?;
    let turn = turn(&site, run).lock_owned().await;
    let listed = on_disk(move || {
        let _turn = turn;
        files::manifest(&dir, clock::now())
    });
    listed.await.map(Json)
}

pub async fn change(
    State(site): State<Site>,
    Extension(worker): Extension<Arc<WorkerRow>>,
    Path(run): Path<String>,
    query: Query,
    bytes: Bytes,
) -> ApiResult<StatusCode> {
    let (run, dir) = dir(&site, &worker, &run, &query).await?;
    let changes: Changes = serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::bad_request(format!("this cannot be read: {error}")))?;
    match site.has_files(run).await {
        // What it left is kept, whatever else of the run nobody can have any more.
        Err(error) if error.status() == StatusCode::GONE => tracing::debug!("{}", error.message()),
        other => other?,
    }
    let turn = turn(&site, run).lock_owned().await;
    // It goes on when nobody waits for the answer any more.
    on_disk(move || {
        let _turn = turn;
        files::apply(&dir, &changes, clock::now())
    })
    .await?;
    // Once it is answered, the worker never sends them again: whoever leads then must know whom to ask.
    if let Some(homed) = site.app.backends.homed() {
        homed.files().note(run).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

pub async fn get(
    State(site): State<Site>,
    Extension(worker): Extension<Arc<WorkerRow>>,
    Path((run, sha256)): Path<(String, String)>,
    query: Query,
) -> ApiResult<Response> {
    let (run, dir) = dir(&site, &worker, &run, &query).await?;
    site.has_files(run).await?;
    let missing = ApiError::not_found(format!("no file of the run has the digest `{sha256}` any more"));
    let path = query.text("path").map(str::to_owned);
    let (file, size) = match on_disk(move || files::blob(&dir, &sha256, path.as_deref())).await {
        Err(error) if error.status() == StatusCode::FAILED_DEPENDENCY => return Err(missing),
        other => other?,
    };
    let mut response = Body::from_stream(files::chunks(file, size)).into_response();
    response.headers_mut().insert(header::CONTENT_LENGTH, size.into());
    Ok(response)
}

pub async fn put(
    State(site): State<Site>,
    Extension(worker): Extension<Arc<WorkerRow>>,
    Path((run, sha256)): Path<(String, String)>,
    query: Query,
    body: Body,
) -> ApiResult<StatusCode> {
    let (_, dir) = dir(&site, &worker, &run, &query).await?;
    let bytes = files::lively(body.into_data_stream(), files::STILL);
    let staged = Pipe::through(bytes, move |bytes| match files::stage(&dir, &sha256, bytes) {
        // Not a fault of the disk: it comes again.
        Err(error) if bytes.is_broken() => {
            Err(ApiError::Status(StatusCode::SERVICE_UNAVAILABLE, format!("the file did not come to its end: {error}")))
        }
        other => other.map_err(failed),
    });
    staged.await.map_err(|error| failed(error.into()))??;
    Ok(StatusCode::NO_CONTENT)
}
