//! Workers: what they call, and what people do with them.
//!
//! Invariant: a worker proves itself by a credential of its own, which opens these calls and nothing else; tokens and
//! credentials are stored as digests, and each is shown once, to whoever made it.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use pitcrew_control::clock;
use pitcrew_control::fleet::WorkerView;
use pitcrew_control::fleet::workers::{Told, check};
use pitcrew_core::{AttemptId, RunKey};
use pitcrew_exec::gpu::kernel_log::{KernelLog, Told as KernelTold};
use pitcrew_exec::worker::protocol::{
    About, Answer, Enrol, Enrolled, LOG_PART, LogTaken, MOST_KEPT, PROTOCOL, REPLACED, REVOKED, ROOT, Sync,
};
use pitcrew_exec::worker::{NotTaken, Unanswered};
use pitcrew_store::{AuditEntry, Enrolment, NodeChange, Store, StoreError, WorkerChange, WorkerRow, WorkerToken};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{nodes, worker_files};
use crate::Site;
use crate::auth::Role::{Admin, Viewer};
use crate::auth::{User, digest, letters};
use crate::error::{ApiError, ApiResult};
use crate::input::{Body, Query, number};
use crate::openapi::doc;
use crate::routes::Access::{Enrolment as Enrolling, Role, Worker};
use crate::routes::Routes;

/// The largest body that a worker sends: outputs of many attempts that ended at once.
pub const MOST: usize = 64 << 20;
/// How long a token is good unless somebody says otherwise, and the word for one that is good until it is used up or revoked.
const LIFE: &str = "1h";
pub const NEVER: &str = "never";
/// How tokens and credentials begin.
const TOKEN: &str = "pwt_";
const CREDENTIAL: &str = "pw_";
const WAS_REVOKED: &str =
    "no worker has this credential, or it was revoked: enrol again with a token of `pitcrew workers token`";

pub fn routes() -> Routes {
    const WORKER: &str = "/api/pitcrew/v1/workers/{worker}";
    let at = |rest: &str| format!("{WORKER}/{rest}");
    let call = |rest: &str| format!("{ROOT}/{rest}");
    Routes::api()
        .post(call("enrol"), Enrolling, enrol)
        .doc(doc("Worker", "Makes a machine a worker").body("object").answer(200, "object"))
        .post(call("sync"), Worker, sync)
        .doc(doc("Worker", "Takes what a worker has, and says what it should do").body("object").answer(200, "object"))
        .post(call("log"), Worker, log)
        .doc(doc("Worker", "Takes a part of a log").query("attempt: text, offset: int").answer(200, "object"))
        .get(call("runs/{run}/files"), Worker, worker_files::list)
        .doc(doc("Worker", "Lists the files of a run").query("attempt: text").answer(200, "object"))
        .post(call("runs/{run}/files"), Worker, worker_files::change)
        .doc(doc("Worker", "Takes what an attempt did to the files of its run").query("attempt: text").body("object"))
        .get(call("runs/{run}/blobs/{sha256}"), Worker, worker_files::get)
        .doc(
            doc("Worker", "Reads the bytes of a file of a run")
                .query("attempt: text, path: text")
                .answer(200, "any")
                .media("application/octet-stream"),
        )
        .put(call("runs/{run}/blobs/{sha256}"), Worker, worker_files::put)
        .doc(doc("Worker", "Takes the bytes of a file of a run").query("attempt: text"))
        .get("/api/pitcrew/v1/workers", Role(Viewer), list)
        .doc(doc("Worker", "Lists workers").answer(200, "Workers"))
        .get(WORKER, Role(Viewer), show)
        .doc(doc("Worker", "Shows a worker").answer(200, "Worker"))
        .get("/api/pitcrew/v1/workers/token", Role(Admin), tokens)
        .doc(
            doc("Worker", "Lists the tokens with which machines enrol; themselves they are never shown again")
                .answer(200, "WorkerTokens"),
        )
        .delete("/api/pitcrew/v1/workers/token/{token_id}", Role(Admin), revoke_token)
        .doc(doc("Worker", "Takes a token back; workers that enrolled with it stay").nothing(204))
        .post("/api/pitcrew/v1/workers/token", Role(Admin), token)
        .doc(
            doc("Worker", "Makes a token with which machines enrol; it is shown once")
                .body("WorkerTokenBody")
                .answer(201, "WorkerToken"),
        )
        .post(at("drain"), Role(Admin), drain)
        .doc(doc("Worker", "Lets a worker take no more work; what it has goes on, and it stays").answer(200, "Worker"))
        .post(at("undrain"), Role(Admin), undrain)
        .doc(doc("Worker", "Lets a worker take work again").answer(200, "Worker"))
        .post(at("revoke"), Role(Admin), revoke)
        .doc(doc("Worker", "Lets a worker in no more; what it runs is lost").answer(200, "object"))
}

fn bearer(headers: &HeaderMap, prefix: &str) -> Option<String> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, proof) = text.split_once(' ')?;
    let proof = proof.trim();
    (scheme.eq_ignore_ascii_case("bearer") && proof.starts_with(prefix)).then(|| digest(proof))
}

/// Ends a worker, by a word for programs: a status alone could be that of a proxy.
fn shut_out(status: StatusCode, code: &str, why: String) -> Response {
    let mut response = (status, Json(json!({ "detail": why, "code": code }))).into_response();
    response.extensions_mut().insert(ApiError::Status(status, why));
    response
}

fn revoked() -> Response {
    let response = shut_out(StatusCode::UNAUTHORIZED, REVOKED, WAS_REVOKED.to_owned());
    ([(header::WWW_AUTHENTICATE, "Bearer")], response).into_response()
}

fn turned_away(why: &str) -> Response {
    let error = ApiError::Status(StatusCode::UNAUTHORIZED, why.to_owned());
    ([(header::WWW_AUTHENTICATE, "Bearer")], error).into_response()
}

/// Lets a worker pass, and tells the handler which one it is.
pub async fn guard(State(site): State<Site>, mut request: Request, next: Next) -> Response {
    let Some(hash) = bearer(request.headers(), CREDENTIAL) else {
        return turned_away("a worker proves itself by the credential that it was given when it enrolled");
    };
    match site.auth.worker(&hash, clock::now()).await {
        Ok(Some(row)) => {
            request.extensions_mut().insert(row);
            next.run(request).await
        }
        Ok(None) => revoked(),
        Err(error) => ApiError::from(error).into_response(),
    }
}

/// Lets a machine pass whose token works.
pub async fn guard_enrolment(State(site): State<Site>, mut request: Request, next: Next) -> Response {
    let Some(hash) = bearer(request.headers(), TOKEN) else {
        return turned_away(&format!("a machine enrols with a token: {HOW}"));
    };
    match site.app.store.worker_token(&hash).await {
        // Whether it still works, the call says: one that is repeated since its answer was lost needs no second use.
        Ok(Some(token)) => {
            request.extensions_mut().insert(token);
            next.run(request).await
        }
        Ok(None) => turned_away(&format!("{}: {HOW}", refusal(Enrolment::NoSuchToken))),
        Err(error) => ApiError::from(error).into_response(),
    }
}

const HOW: &str = "an administrator makes one with `pitcrew workers token`";

fn refusal(why: Enrolment) -> &'static str {
    match why {
        Enrolment::Done => "it is done",
        Enrolment::NoSuchToken => "there is no such token",
        Enrolment::Expired => "the token has expired",
        Enrolment::UsedUp => "the token has no use left",
        Enrolment::NameTaken => "another worker has that name",
    }
}

/// A newer worker may say more than is known here.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    serde_json::from_slice(bytes).map_err(|error| ApiError::bad_request(format!("this cannot be read: {error}")))
}

fn same_protocol(theirs: u32) -> ApiResult<()> {
    if theirs.abs_diff(PROTOCOL) <= 1 {
        return Ok(());
    }
    let older = if theirs < PROTOCOL { "worker" } else { "server" };
    let message = format!(
        "the worker speaks version {theirs} of the protocol and the server version {PROTOCOL}: upgrade the {older}"
    );
    Err(ApiError::Status(StatusCode::UPGRADE_REQUIRED, message))
}

async fn enrol(
    State(site): State<Site>,
    Extension(token): Extension<WorkerToken>,
    bytes: Bytes,
) -> Result<Json<Enrolled>, Response> {
    let wish: ApiResult<Enrol> = read(&bytes);
    let own = wish.as_ref().ok().and_then(|wish| wish.credential.clone());
    if let (Ok(wish), Some(own)) = (&wish, &own) {
        let known = site.app.store.worker_by_credential(&digest(own)).await;
        if let Some(worker) = known.map_err(|error| ApiError::from(error).into_response())? {
            return match worker.name == wish.name {
                // The answer was lost.
                true => Ok(Json(Enrolled { worker: worker.id, credential: own.clone() })),
                false => {
                    Err(ApiError::conflict(format!("this credential is that of `{}`", worker.name)).into_response())
                }
            };
        }
    }
    if let Some(why) = token.refusal(clock::now()) {
        return Err(turned_away(&format!("{}: {HOW}", refusal(why))));
    }
    enrolled(&site, token, wish.map_err(ApiError::into_response)?).await.map_err(ApiError::into_response)
}

/// Whether somebody who makes a credential itself made one that nobody guesses: as long as one that is made here.
fn is_credential(text: &str) -> bool {
    let letters = text.strip_prefix(CREDENTIAL).unwrap_or_default();
    (40..=200).contains(&letters.len()) && letters.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

async fn enrolled(site: &Site, token: WorkerToken, wish: Enrol) -> ApiResult<Json<Enrolled>> {
    same_protocol(wish.protocol)?;
    if wish.credential.as_ref().is_some_and(|own| !is_credential(own)) {
        return Err(ApiError::bad_request(
            "the credential that it made is none: `pw_` and 40 letters or digits at least",
        ));
    }
    check(&wish.name, &wish.about, &token.queues).map_err(ApiError::bad_request)?;
    let taken = || {
        ApiError::conflict(format!(
            "there is a node `{}` already: choose another name, or revoke that worker with `pitcrew workers revoke`",
            wish.name
        ))
    };
    if site.app.fleet.view(&wish.name).is_some() {
        return Err(taken());
    }
    let failed = |error: anyhow::Error| ApiError::Status(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    let credential = match wish.credential {
        Some(own) => own,
        None => fresh_credential().map_err(failed)?,
    };
    let told = Told { about: wish.about.clone(), may_serve: token.queues.clone(), moved: None };
    let worker = WorkerRow {
        id: letters::<16>().map_err(failed)?,
        name: wish.name.clone(),
        credential: digest(&credential),
        about: serde_json::to_value(&told).unwrap_or_default(),
        drain: false,
        enrolled: clock::now(),
        revoked: None,
    };
    let id = worker.id.clone();
    let mut audit = AuditEntry::new(clock::now(), format!("worker {}", wish.name), "worker.enrol");
    audit.detail = json!({ "worker": wish.name, "id": id, "token": token.id, "host": wish.about.host });
    match site.app.store.enrol_worker(&token.hash, worker, audit).await? {
        Enrolment::Done => {}
        Enrolment::NameTaken => return Err(taken()),
        why @ (Enrolment::NoSuchToken | Enrolment::Expired | Enrolment::UsedUp) => {
            return Err(ApiError::Status(StatusCode::UNAUTHORIZED, refusal(why).to_owned()));
        }
    }
    tracing::info!(worker = wish.name, "the worker `{}` enrolled", wish.name);
    site.app.fleet.workers_changed().await?;
    Ok(Json(Enrolled { worker: id, credential }))
}

async fn sync(
    State(site): State<Site>,
    Extension(worker): Extension<Arc<WorkerRow>>,
    bytes: Bytes,
) -> Result<Json<Answer>, Response> {
    let sync: Sync = read(&bytes).map_err(ApiError::into_response)?;
    same_protocol(sync.protocol).map_err(ApiError::into_response)?;
    let hub = &site.app.workers;
    let is_new = hub.is_new(&worker.id, &sync).map_err(|error| unanswered(error.into()))?;
    if is_new {
        let now = clock::now();
        let told: Option<Told> = serde_json::from_value(worker.about.clone()).ok();
        let moves = sync.about.as_ref().zip(told.as_ref()).is_some_and(|(about, told)| has_moved(told, about));
        // The server that heard of it may not be this one, or have been started again since.
        let moved = told.as_ref().and_then(|told| told.moved);
        let moved_lately = moved.is_some_and(|at| now.duration_since(at) <= hub.patience());
        if moves || (moved_lately && !hub.is_heard(&worker.id)) {
            hub.moved(&worker.id);
        }
        if let Some(about) = &sync.about {
            let moved = if moves { Some(now) } else { moved };
            let may_serve = told.map(|told| told.may_serve).unwrap_or_default();
            let told = Told { about: about.clone(), may_serve, moved };
            take_about(&site, &worker, told).await.map_err(ApiError::into_response)?;
        }
        site.app.fleet.worker_said(&worker.id, &sync, clock::now()).await;
        if let Some(log) = &sync.kernel {
            take_kernel(&site, &worker, log);
        }
        hub.drain(&worker.id, worker.drain);
        match nobodys(&site.app.store, hub.unclaimed(&worker.id)).await {
            Ok(over) if over.is_empty() => {}
            Ok(over) => hub.forget(&worker.id, &over),
            // The lease of what runs does not depend on it.
            Err(error) => tracing::warn!("cannot look up what the worker `{}` has: {error}", worker.name),
        }
        match over(&site.app.store, &sync.keeps).await {
            Ok(over) if over.is_empty() => {}
            Ok(over) => hub.may_leave(&worker.id, &over),
            // It asks again.
            Err(error) => {
                tracing::warn!("cannot look up of which runs the worker `{}` has files: {error}", worker.name)
            }
        }
    }
    // It may wait for long, and beside a thousand others: only with what it needs.
    let id = worker.id.clone();
    drop((worker, bytes));
    hub.sync(&id, sync).await.map(Json).map_err(unanswered)
}

fn unanswered(error: Unanswered) -> Response {
    match error {
        Unanswered::Superseded(error) => shut_out(StatusCode::CONFLICT, REPLACED, error.to_string()),
        Unanswered::Revoked => revoked(),
    }
}

/// The worker hears that its log was taken once it is written: until then it says it again.
fn take_kernel(site: &Site, worker: &WorkerRow, log: &KernelLog) {
    let (hub, desk) = (site.app.workers.clone(), site.app.recovery.clone());
    // A node of its name may have been configured since: then that one has the name.
    let Some(node) = site.app.fleet.node_of(&worker.id) else { return };
    let (id, log) = (worker.id.clone(), log.clone());
    let last = match &log.told {
        KernelTold::Records { last, .. } => *last,
        KernelTold::Journal { .. } | KernelTold::Denied(_) => 0,
    };
    tokio::spawn(async move {
        if desk.worker_log(&node, log).await {
            hub.kernel_taken(&id, last);
        }
    });
}

/// Whether an earlier process of the worker may still be where it was.
fn has_moved(before: &Told, about: &About) -> bool {
    before.about.place.is_some() && about.place != before.about.place
}

/// Writes what a worker tells of itself, if that is new.
async fn take_about(site: &Site, worker: &WorkerRow, told: Told) -> ApiResult<()> {
    check(&worker.name, &told.about, &told.may_serve).map_err(ApiError::bad_request)?;
    let told = serde_json::to_value(told).unwrap_or_default();
    let is_changed = told != worker.about;
    if is_changed {
        let change = WorkerChange { about: Some(told), ..WorkerChange::default() };
        site.app.store.change_worker(&worker.id, change, None).await?;
        site.auth.workers_changed();
    }
    if is_changed || !site.app.fleet.knows_worker(&worker.id) {
        site.app.fleet.workers_changed().await?;
    }
    Ok(())
}

/// Those that are over by their rows, or of which there is no row.
async fn nobodys(store: &Store, ids: Vec<AttemptId>) -> Result<Vec<AttemptId>, StoreError> {
    let mut over = Vec::new();
    for id in ids {
        let rows = store.attempts(id.run, &id.task, id.map_index).await?;
        let row = rows.iter().find(|row| row.number == id.number);
        if row.is_none_or(|row| row.exit.is_some()) {
            over.push(id);
        }
    }
    Ok(over)
}

/// Those of them that are over or deleted: all that anybody needs of them is at a server.
async fn over(store: &Store, runs: &[RunKey]) -> Result<Vec<RunKey>, StoreError> {
    let mut over = Vec::new();
    for run in runs.iter().take(MOST_KEPT) {
        if store.run(*run).await?.is_none_or(|run| run.state.is_final()) {
            over.push(*run);
        }
    }
    Ok(over)
}

async fn log(
    State(site): State<Site>,
    Extension(worker): Extension<Arc<WorkerRow>>,
    query: Query,
    bytes: Bytes,
) -> ApiResult<Json<LogTaken>> {
    let attempt = query.text("attempt").unwrap_or_default();
    let id: AttemptId = attempt.parse().map_err(|_| ApiError::bad_request(format!("`{attempt}` is no attempt")))?;
    let offset: u64 = number("offset", query.text("offset").unwrap_or("0"))?;
    if bytes.len() > LOG_PART {
        let message = format!("a part of a log has {LOG_PART} bytes at most");
        return Err(ApiError::Status(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    match site.app.workers.log(&worker.id, &id, offset, bytes.to_vec()).await {
        Ok(taken) => Ok(Json(taken)),
        Err(error @ NotTaken::Nobodys(_)) => Err(match site.app.workers.has(&worker.id, &id) {
            // Right after a start of the server.
            None => ApiError::Status(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            Some(_) => ApiError::not_found(error.to_string()),
        }),
        Err(NotTaken::Io(error)) => {
            tracing::error!("the log of {id} cannot be written: {error}");
            let message = "the server cannot write; its log says why".to_owned();
            Err(ApiError::Status(StatusCode::SERVICE_UNAVAILABLE, message))
        }
    }
}

/// Every worker.
pub async fn all(site: &Site) -> ApiResult<Vec<WorkerView>> {
    Ok(site.app.fleet.workers(&site.app.workers, &site.app.store.worker_ends().await?))
}

/// The worker of that name.
pub async fn one(site: &Site, name: &str) -> ApiResult<WorkerView> {
    let missing = || ApiError::not_found(format!("there is no worker `{name}`"));
    all(site).await?.into_iter().find(|worker| worker.name == name).ok_or_else(missing)
}

async fn list(State(site): State<Site>) -> ApiResult<Json<Value>> {
    let workers = all(&site).await?;
    Ok(Json(json!({ "total_entries": workers.len(), "workers": workers })))
}

async fn show(State(site): State<Site>, Path(name): Path<String>) -> ApiResult<Json<WorkerView>> {
    one(&site, &name).await.map(Json)
}

/// Makes a token to enrol with: its row, which the caller stores, and itself, which is shown once.
pub fn fresh_token(
    queues: Vec<String>,
    expires: Option<Timestamp>,
    uses: Option<u32>,
    by: &str,
) -> anyhow::Result<(WorkerToken, String)> {
    for queue in &queues {
        let right = pitcrew_core::fleet::check_queue(queue);
        right.map_err(|why| anyhow::anyhow!("`{queue}` is no name of a queue: {why}"))?;
    }
    let secret = format!("{TOKEN}{}", letters::<40>()?);
    let (id, hash) = (letters::<8>()?, digest(&secret));
    let row = WorkerToken { id, hash, queues, made_by: by.to_owned(), created: clock::now(), expires, uses };
    Ok((row, secret))
}

/// What a worker proves itself by.
pub fn fresh_credential() -> anyhow::Result<String> {
    Ok(format!("{CREDENTIAL}{}", letters::<40>()?))
}

/// The audit entry of something that somebody does with workers.
pub fn audit(who: &str, event: &str, detail: Value) -> AuditEntry {
    let mut audit = AuditEntry::new(clock::now(), who, event);
    audit.detail = detail;
    audit
}

async fn token(
    State(site): State<Site>,
    Extension(user): Extension<User>,
    mut body: Body,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let queues = body.texts("queues").unwrap_or_default();
    let life = body.text("expires");
    let uses = body.integer("uses", 1, 1_000_000).and_then(|uses| u32::try_from(uses).ok());
    let life = life.as_deref().unwrap_or(LIFE);
    let expires = match (life != NEVER).then(|| pitcrew_lang::parse_duration(life)) {
        None => None,
        Some(Ok(life)) => clock::now().checked_add(life).ok(),
        Some(Err(why)) => {
            body.problem("expires", "value_error", why);
            None
        }
    };
    body.finish()?;
    let fresh = fresh_token(queues, expires, uses, &user.name);
    let (row, secret) = fresh.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let detail = json!({ "id": row.id, "queues": row.queues, "expires": row.expires, "uses": row.uses });
    let answer = json!({
        "id": row.id, "token": secret, "queues": row.queues, "expires": row.expires, "uses": row.uses,
    });
    site.app.store.put_worker_token(row, audit(&user.name, "worker.token", detail)).await?;
    Ok((StatusCode::CREATED, Json(answer)))
}

/// A token as people and programs see it.
pub fn token_view(token: &WorkerToken) -> Value {
    json!({
        "id": token.id, "queues": token.queues, "made_by": token.made_by, "created": token.created,
        "expires": token.expires, "uses": token.uses, "works": token.refusal(clock::now()).is_none(),
    })
}

async fn tokens(State(site): State<Site>) -> ApiResult<Json<Value>> {
    let all: Vec<Value> = site.app.store.worker_tokens().await?.iter().map(token_view).collect();
    Ok(Json(json!({ "total_entries": all.len(), "tokens": all })))
}

async fn revoke_token(
    State(site): State<Site>,
    Path(id): Path<String>,
    Extension(user): Extension<User>,
) -> ApiResult<StatusCode> {
    let entry = audit(&user.name, "worker.token.delete", json!({ "id": id }));
    match site.app.store.delete_worker_token(&id, entry).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::not_found(format!("there is no token `{id}`"))),
    }
}

async fn drain(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
) -> ApiResult<Json<WorkerView>> {
    set_drain(&site, &user, &name, true).await.map(Json)
}

async fn undrain(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
) -> ApiResult<Json<WorkerView>> {
    set_drain(&site, &user, &name, false).await.map(Json)
}

/// Lets a worker take no more work, or take work again. Whether a person has cordoned its node is another matter, and stays as it is.
pub async fn set_drain(site: &Site, user: &User, name: &str, drain: bool) -> ApiResult<WorkerView> {
    let worker = one(site, name).await?;
    let event = if drain { "worker.drain" } else { "worker.undrain" };
    let change = WorkerChange { drain: Some(drain), ..WorkerChange::default() };
    let entry = audit(&user.name, event, json!({ "worker": name }));
    site.app.store.change_worker(&worker.id, change, Some(entry)).await?;
    site.auth.workers_changed();
    site.app.fleet.workers_changed().await?;
    site.app.workers.drain(&worker.id, drain);
    site.app.scheduler.look();
    one(site, name).await
}

async fn revoke(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
) -> ApiResult<Json<Value>> {
    end(&site, &user, &name).await?;
    Ok(Json(json!({ "worker": name, "revoked": true })))
}

/// Lets a worker in no more.
pub async fn end(site: &Site, user: &User, name: &str) -> ApiResult<()> {
    let worker = one(site, name).await?;
    let is_cordoned = site.app.fleet.view(name).is_some_and(|node| node.is_cordoned);
    let change = WorkerChange { revoked: Some(clock::now()), ..WorkerChange::default() };
    let entry = audit(&user.name, "worker.revoke", json!({ "worker": name, "id": worker.id }));
    site.app.store.change_worker(&worker.id, change, Some(entry)).await?;
    site.auth.workers_changed();
    site.app.workers.revoke(&worker.id);
    site.app.fleet.workers_changed().await?;
    // The marks of a node are by its name, and the next worker of that name is another. Not before it is revoked: it would be given
    // work once more.
    if is_cordoned {
        let change = NodeChange { cordoned: Some(false), ..NodeChange::default() };
        let entry = nodes::audit(&user.name, name, &change);
        site.app.store.change_node(name, change, entry).await?;
    }
    Ok(())
}
